"""What finished runs teach is kept as one row each, so that an estimate reads no energy spans."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run(op.get_bind(), revision)
