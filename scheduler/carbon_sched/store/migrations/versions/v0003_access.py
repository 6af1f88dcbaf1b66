"""Credentials, and what Ray's job protocol needs."""

from __future__ import annotations

from alembic import op

from carbon_sched.store.migrations.statements import run

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run(op.get_bind(), revision)
