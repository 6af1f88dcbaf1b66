"""Use cases and loops: accept, decide, dispatch, follow, collect, book. Knows ports, never adapters."""
