"""Services, and what their replicas counted."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run(op.get_bind(), revision)
