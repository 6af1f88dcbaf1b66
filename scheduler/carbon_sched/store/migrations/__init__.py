"""Alembic revisions and their SQL; see README.md."""
