"""What a server counts about itself while it runs; what is in the database is read when somebody asks (api/metrics)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector

STEP_S = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """One registry per server; safe for several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._steps = Histogram(
            "carbon_sched_step_seconds", "Steps of the loops", ["loop"], buckets=STEP_S, registry=self.registry
        )
        self._failures = Counter(
            "carbon_sched_step_failures", "Steps that raised, by error code", ["loop", "code"], registry=self.registry
        )
        self._requests = Histogram(
            "carbon_sched_request_seconds",
            "Answers of the API",
            ["method", "route", "status"],
            buckets=REQUEST_S,
            registry=self.registry,
        )

    def step(self, loop: str, seconds: float, code: str) -> None:
        """One step of a loop; `code` names its error, empty when it went well."""
        self._steps.labels(loop).observe(seconds)
        if code:
            self._failures.labels(loop, code).inc()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answer; `route` is the template, never the path, so that the series stay few."""
        self._requests.labels(method, route, str(status)).observe(seconds)
