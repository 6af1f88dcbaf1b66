"""The first schema."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0001"
down_revision = None


def upgrade() -> None:
    run(op.get_bind(), revision)
