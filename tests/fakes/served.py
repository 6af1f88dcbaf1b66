"""A world of fake clusters behind the real application on loopback: our API as its clients meet it."""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import uvicorn

from carbon_sched.api.app import create_app
from carbon_sched.api.context import Context
from carbon_sched.client import Client
from carbon_sched.compose import RandomIds
from carbon_sched.grid.zones import known_zone
from carbon_sched.policy.presets import preset_names
from carbon_sched.service.access import Access
from carbon_sched.service.answers import Answers
from carbon_sched.service.boundaries import Boundaries
from carbon_sched.service.intensities import Intensities
from carbon_sched.service.rates import Rates
from carbon_sched.service.seal import Sealing
from carbon_sched.signing import PrivateKey
from carbon_sched.simulate.trial import Trials
from carbon_sched.store.seals import FileSeals
from tests.fakes.world import FakeGrid, World, a_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from carbon_sched.domain.cluster import Cluster

TOKEN = "cs_test"


class Served:
    """A world behind the real application on a free port."""

    def __init__(
        self,
        folder: Path,
        clusters: Sequence[Cluster] = (a_cluster("clean", "SE-SE3", 1.1, home=True),),
        grid: Mapping[str, list[tuple[float, float]]] = MappingProxyType({}),
        patience_s: float = 60.0,
    ) -> None:
        """`grid` as for `World`, beside two zones that are always there; pages wait so long for the book's answers."""
        steps = defaultdict(lambda: [(0.0, 100.0)], {"SE-SE3": [(0.0, 50.0)], "DE": [(0.0, 400.0)], **grid})
        self.world = World(folder, clusters, steps)
        self.answers = Answers(_Ticking(self.world.clock), patience_s=patience_s)
        seen = Intensities(_Scripted(steps), _Refreshed(), self.world.fleet, self.world.clock, lambda *_: None)
        self.world.logs._clock = _Ticking(self.world.clock)
        self.stopped_with: list[bool] = []
        self.faults: list[str] = []
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        place = FileSeals(folder / "seals.jsonl")
        key = PrivateKey(folder / "ledger.key")
        self.sealing = Sealing(self.world.store, {"file": place}, key, self.world.clock, every_s=600)
        context = Context(
            url=self.url,
            data_dir=folder,
            database="sqlite",
            started_at=self.world.clock.now(),
            access=Access(self.world.store, self.world.clock, RandomIds(), owner="ada", owner_token=TOKEN),
            rates=Rates(_Ticking(self.world.clock), 1e6),
            boundaries=Boundaries(folder / "secrets"),
            clock=_Ticking(self.world.clock),
            store=self.world.store,
            bundles=self.world.bundles,
            accept=self.world.accept,
            schedules=self.world.schedules,
            amend=self.world.amend,
            recall=self.world.recall,
            receive=self.world.receive,
            decide=self.world.decide,
            fleet=self.world.fleet,
            outlooks=self.world.outlooks,
            policies=self.world.policies,
            trial=Trials(
                self.world.store, self.world.policies, self.world.statements, self.world.outlooks, self.world.clock
            ).of,
            budgets=self.world.budgets,
            preset_names=preset_names,
            logs=self.world.logs,
            statements=self.world.statements,
            answers=self.answers,
            sealing=self.sealing,
            serving=self.world.serving,
            requests=self.world.requests,
            signals=self.world.signals,
            intensities=seen,
            known_zone=known_zone,
            grid_providers=list,
            check_grid=lambda _zones: [],
            check_cluster=lambda _name: [{"level": "ok", "topic": "reachable", "text": "answers"}],
            shutdown=lambda *, stop_local_clusters: self.stopped_with.append(stop_local_clusters),
            leadership=self.world.leadership,
            faults=lambda: self.faults,
        )
        self.app = create_app(context)
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_config=None, timeout_graceful_shutdown=2))
        self.listener.listen()
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        self.client = Client(self.url, TOKEN)

    def token(self, role: str, teams: list[str] | None = None, *, name: str = "eve", lifetime_s: float = 3600) -> str:
        """A new token's secret."""
        return self.client.give_token({"name": name, "role": role, "teams": teams, "lifetime_s": lifetime_s})["token"]

    def close(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join()
        self.answers.close()
        self.world.close()


class _Scripted(FakeGrid):
    """The world's grid as people ask it."""

    def compare(self, zones: Sequence[str], now: datetime, until: datetime) -> SimpleNamespace:
        return SimpleNamespace(outlooks=self.outlooks(zones, now, until), notes=())


class _Refreshed:
    """Nothing is ever stale."""

    def ask(self, zones: Sequence[str], since: datetime | None = None) -> None:
        pass


class _Ticking:
    """The world's dates, real seconds: long polls must end."""

    def __init__(self, clock) -> None:
        self.now = clock.now
        self.monotonic = time.monotonic


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.close()
