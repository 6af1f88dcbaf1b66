"""Budget lines and approvals."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run(op.get_bind(), revision)
