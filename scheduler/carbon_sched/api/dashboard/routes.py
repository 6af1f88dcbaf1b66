"""The dashboard's routers, which the application includes."""

from __future__ import annotations

from carbon_sched.api.dashboard import footprint, health, job, live, now, queue, rules

DASHBOARD = (live.router, now.router, queue.router, job.router, footprint.router, rules.router, health.router)
