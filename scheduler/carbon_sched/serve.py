"""Counts the requests of a service where they are answered, for figures per request: an ASGI middleware and a context.

On clusters where this package is not installed, `from carbon_sched_runtime import serving` is the same; it travels with
every app that `carbon-sched serve-app` deploys. Its page says how an app uses it.
"""

from __future__ import annotations

from carbon_sched_runtime.serving import Middleware, Seen, request

__all__ = ["Middleware", "Seen", "request"]
