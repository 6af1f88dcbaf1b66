"""Classes in the queue, and what teams and projects used by day."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run(op.get_bind(), revision)
