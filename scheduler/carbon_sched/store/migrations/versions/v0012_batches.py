"""How far batches have come."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run(op.get_bind(), revision)
