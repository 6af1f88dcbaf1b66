"""One of several servers leads: leases with terms."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run(op.get_bind(), revision)
