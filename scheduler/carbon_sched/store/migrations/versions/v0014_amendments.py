"""Jobs count how often their spec was amended, so that who knows an earlier one notices."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run(op.get_bind(), revision)
