"""The durable state: SQLAlchemy tables, Alembic migrations and the `Store` port over SQLite and PostgreSQL.

Layer: adapter, a sibling of `grid/` and `clusters/`. Entry points: `engine.open_store`, `bundles.FileBundles` and
`location.check_local_filesystem`.
"""
