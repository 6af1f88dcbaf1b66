"""An online service: what was asked for, and on which clusters it is, is being made, and is going from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class AppState(str, Enum):
    """Where a service stands."""

    WAITING = "waiting"
    """No cluster can take it now."""
    DEPLOYING = "deploying"
    RUNNING = "running"
    MOVING = "moving"
    """It answers where it is, and is being made elsewhere."""
    DRAINING = "draining"
    """It has moved; where it was it still answers."""
    DELETING = "deleting"


@dataclass(frozen=True)
class AppSpec:
    """What was asked for. `sealed_application` is Ray Serve's own description of it, encrypted: it holds variables.

    `request` is the job request that stands for it in planning and metering: resources, labels, clusters.
    `latencies_ms` are the users' latencies to clusters by name; one above `max_latency_ms` (None: no limit), or none
    given, rules a cluster out. Expected emissions are compared over `horizon_s`; it moves for a gain of at least
    `min_gain`, and not before `min_stay_s`. Clients may keep its address for `max_age_s`; where it was it answers for
    `drain_s` more.
    """

    name: str
    route_prefix: str
    sealed_application: str
    request: Mapping[str, Any]
    bundle_sha256: str | None = None
    max_latency_ms: float | None = None
    latencies_ms: Mapping[str, float] = field(default_factory=dict)
    horizon_s: float = 6 * 3600.0
    min_gain: float = 0.15
    min_stay_s: float = 3600.0
    max_age_s: float = 10.0
    drain_s: float = 60.0


@dataclass(frozen=True)
class Site:
    """A service on one cluster. `job_id` is the job that holds its room and meters it; `number` counts its sites.

    `expected_g_per_kwh` of IT energy, PUE included, is what it was chosen by. `healthy_at` is when it was first seen to
    answer, `address` where clients reach it, `digest` what it was last seen to be there (empty: it is to be put anew);
    `leaves_at` is when it may be deleted, once it has moved, and `leaves_for` why.
    """

    number: int
    cluster: str
    job_id: str
    chosen_at: datetime
    expected_g_per_kwh: float = 0.0
    healthy_at: datetime | None = None
    address: str = ""
    digest: str = ""
    leaves_at: datetime | None = None
    leaves_for: str = ""


@dataclass(frozen=True)
class ServeApp:
    """A service; `version` counts changes and guards every write. `problem` is what a person should know, or empty."""

    spec: AppSpec
    submitter: str
    created_at: datetime
    sites: int = 0
    current: Site | None = None
    coming: Site | None = None
    leaving: tuple[Site, ...] = ()
    problem: str = ""
    deleted: bool = False
    version: int = 0

    @property
    def name(self) -> str:
        """Its name, on our side and in Ray Serve."""
        return self.spec.name

    @property
    def team(self) -> str:
        """The team whose it is."""
        return str(self.spec.request.get("team", ""))

    @property
    def state(self) -> AppState:
        """Where it stands."""
        if self.deleted:
            return AppState.DELETING
        if self.coming is not None:
            return AppState.MOVING if self.current else AppState.DEPLOYING
        if self.current is None:
            return AppState.WAITING
        return AppState.DRAINING if self.leaving else AppState.RUNNING

    @property
    def everywhere(self) -> tuple[Site, ...]:
        """All sites, whatever they are there for."""
        return tuple(site for site in (self.current, self.coming, *self.leaving) if site is not None)
