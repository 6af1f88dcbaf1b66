"""What a plan leaves to the next one: the capacity prices, where jobs are meant to go, and what classes gained."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run(op.get_bind(), revision)
