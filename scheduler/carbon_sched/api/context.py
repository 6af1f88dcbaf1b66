"""What the routes need: the services and who we are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection

from carbon_sched.service.leadership import Leadership
from carbon_sched.service.metrics import Metrics

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from carbon_sched.domain.policy_version import Trial
    from carbon_sched.ports import Bundles, Clock, Store
    from carbon_sched.service.accept import Accept
    from carbon_sched.service.access import Access
    from carbon_sched.service.amend import Amend
    from carbon_sched.service.answers import Answers
    from carbon_sched.service.boundaries import Boundaries
    from carbon_sched.service.budgets import Budgets
    from carbon_sched.service.decide import Decide
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.intensities import Intensities
    from carbon_sched.service.logs import Logs
    from carbon_sched.service.outlooks import Outlooks
    from carbon_sched.service.policies import Policies
    from carbon_sched.service.rates import Rates
    from carbon_sched.service.recall import Recall
    from carbon_sched.service.receive import Receive
    from carbon_sched.service.requests import Requests
    from carbon_sched.service.schedules import Schedules
    from carbon_sched.service.seal import Sealing
    from carbon_sched.service.serving import Serving
    from carbon_sched.service.signals import Signals
    from carbon_sched.service.statements import Statements
    from carbon_sched.wire import GridFinding, ProviderView


@dataclass(frozen=True)
class Context:
    """Services behind the routes. `shutdown(stop_local_clusters)` asks the process to end after its answers.

    `trial(content, margin_ppm)` says what a policy file would have changed for the jobs of the last weeks.
    """

    url: str
    data_dir: Path
    database: str
    started_at: datetime
    clock: Clock
    store: Store
    bundles: Bundles
    access: Access
    rates: Rates
    boundaries: Boundaries
    accept: Accept
    schedules: Schedules
    serving: Serving
    requests: Requests
    amend: Amend
    recall: Recall
    receive: Receive
    decide: Decide
    fleet: Fleet
    outlooks: Outlooks
    policies: Policies
    trial: Callable[[str, int], Trial]
    budgets: Budgets
    preset_names: Callable[[], tuple[str, ...]]
    logs: Logs
    statements: Statements
    answers: Answers
    sealing: Sealing
    signals: Signals
    intensities: Intensities
    known_zone: Callable[[str], str]
    grid_providers: Callable[[], list[ProviderView]]
    check_grid: Callable[[Sequence[str]], list[GridFinding]]
    check_cluster: Callable[[str], list[dict[str, str]]]
    shutdown: Callable[..., None]
    leadership: Leadership
    faults: Callable[[], list[str]] = list
    """What keeps this server from its work, empty when it is ready."""
    metrics: Metrics = field(default_factory=Metrics)
    names: frozenset[str] = frozenset({"localhost"})
    """What the server may be called in a request, lower case; `*` stands for anything."""


async def _context(connection: HTTPConnection) -> Context:  # async: a function that is not is called in a thread
    return cast("Context", connection.app.state.context)


Ctx = Annotated[Context, Depends(_context)]
