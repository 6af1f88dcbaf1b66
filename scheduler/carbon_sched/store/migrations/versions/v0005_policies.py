"""Applied policies."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run(op.get_bind(), revision)
