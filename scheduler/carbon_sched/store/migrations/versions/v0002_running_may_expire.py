"""A job that Ray runs already may still expire: its wrapper came too late and ran nothing."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run(op.get_bind(), revision)
