"""A cause in a word beside each reason; attempts may be recalled; a person may give a lost job back to the queue."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run(op.get_bind(), revision)
