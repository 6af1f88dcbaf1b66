"""The dashboard: pages of HTML over the very functions that answer the REST API, so that both show the same numbers."""
