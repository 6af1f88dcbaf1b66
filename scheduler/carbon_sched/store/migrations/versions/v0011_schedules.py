"""Jobs that are submitted again and again."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run(op.get_bind(), revision)
