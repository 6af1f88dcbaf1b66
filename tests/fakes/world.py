"""The service with a real SQLite store, fake clusters and a scripted grid under a clock that tests move."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.cluster import Cluster, Pue
from carbon_sched.domain.intensity import Basis, Grade, Kind, Outlook, Perimeter, Ranking, Reading, Signal
from carbon_sched.domain.time import to_epoch
from carbon_sched.policy.presets import preset
from carbon_sched.service.accept import Accept
from carbon_sched.service.access import Access
from carbon_sched.service.amend import Amend
from carbon_sched.service.batches import Batches
from carbon_sched.service.book import Book
from carbon_sched.service.budgets import Budgets
from carbon_sched.service.collect import Collect
from carbon_sched.service.decide import Decide
from carbon_sched.service.dispatch import Dispatch
from carbon_sched.service.economics import Economics
from carbon_sched.service.estimates import Estimates
from carbon_sched.service.fleet import Fleet
from carbon_sched.service.follow import Follow
from carbon_sched.service.gauge import Gauge
from carbon_sched.service.journal import Journals
from carbon_sched.service.keep import Keep
from carbon_sched.service.lanes import Lanes
from carbon_sched.service.leadership import FencedStore, Leadership
from carbon_sched.service.logs import Logs
from carbon_sched.service.outlooks import Outlooks
from carbon_sched.service.policies import Policies
from carbon_sched.service.recall import Recall
from carbon_sched.service.receive import Receive, push_token
from carbon_sched.service.requests import Requests
from carbon_sched.service.runtime_env import RuntimePackage
from carbon_sched.service.schedules import Schedules
from carbon_sched.service.serve_owner import ServeOwner
from carbon_sched.service.serving import Serving
from carbon_sched.service.signals import Signals
from carbon_sched.service.so_far import SoFar
from carbon_sched.service.statements import Statements
from carbon_sched.service.stuck import Stuck
from carbon_sched.service.variants import Offers
from carbon_sched.store.bundles import FileBundles
from carbon_sched.store.engine import open_store
from carbon_sched.store.journals import FolderJournals
from carbon_sched.store.vault import FileVault
from carbon_sched_runtime import wire
from tests.fakes.cluster import FakeCluster, FakeClusters
from tests.fakes.fuse import FusedClusters, FusedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from carbon_sched.domain.job import Attempt, Job
    from carbon_sched.ports import Clusters
    from carbon_sched.wire import JobRequest
    from tests.fakes.fuse import Fuse

START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
LONG_AGO, FAR_AHEAD = timedelta(days=60), timedelta(days=60)
MACHINE, BOOT, READER = "0123456789ab", "01234567-0123-0123-0123-0123456789ab", "89abcdef"


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = START
        self.ticks = 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.ticks

    def pass_s(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.ticks += seconds


class FakeIds:
    """Counts."""

    def __init__(self) -> None:
        self.count, self.tokens = 0, 0

    def job_id(self, at: datetime) -> str:
        self.count += 1
        return f"job{self.count:07d}"

    def token(self) -> str:
        self.tokens += 1
        return f"token {self.tokens}"


class FakeGrid:
    """Piecewise constant g/kWh per zone: `[(from, value), ...]` in seconds after START."""

    def __init__(self, steps: dict[str, list[tuple[float, float]]]) -> None:
        self.steps = steps
        self.marginal: FakeGrid | None = None

    def ranked(
        self, zones: Sequence[str], now: datetime, until: datetime, ranking: Ranking
    ) -> tuple[dict[str, Outlook], str]:
        assert not ranking.as_booked
        if self.marginal is None:
            return {}, f"not ranked by {ranking.words} intensity, since there is none: ranked by what is booked"
        return self.marginal.outlooks(zones, now, until), f"ranked by {ranking.words} intensity"

    def actual(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        steps = self.steps[zone]
        edges = [START - LONG_AGO, *(START + timedelta(seconds=s) for s, _ in steps[1:]), START + FAR_AHEAD]
        readings = [
            _reading(zone, max(a, start), min(b, end), value, now)
            for a, b, (_, value) in zip(edges, edges[1:], steps, strict=False)
            if max(a, start) < min(b, end)
        ]
        assert readings
        return readings

    def outlooks(self, zones: Sequence[str], now: datetime, until: datetime) -> dict[str, Outlook]:
        return {zone: Outlook(zone, tuple(self.actual(zone, now, until, now))) for zone in zones}


def _reading(zone: str, start: datetime, end: datetime, g_per_kwh: float, now: datetime) -> Reading:
    return Reading(
        zone, start, end, round(g_per_kwh * 1000), Signal.AVERAGE, Basis.LIFECYCLE, Perimeter.CONSUMPTION,
        Kind.MEASURED, Grade.LIVE, "scripted", issued_at=START, fetched_at=now,
    )  # fmt: skip


def a_cluster(name: str, zone: str, pue: float = 1.0, **more: Any) -> Cluster:
    return Cluster(name, zone, Pue(round(pue * 1e6), "2026", "test"), address=f"http://{name}", **more)


class InOrder(Lanes):
    """No threads: one lane after another, always in the same order."""

    def run(self, work: Mapping[str, Callable[[], object]]) -> list[str]:
        for do in work.values():
            do()
        return []


class World:
    """Everything wired; `settle` runs the loops' steps until nothing changes any more."""

    def __init__(
        self,
        folder: Path,
        clusters: Sequence[Cluster],
        grid: dict[str, list[tuple[float, float]]],
        *,
        patience_s: float | None = None,
        before: World | None = None,
        fuse: Fuse | None = None,
        database: str | None = None,
        adapters: Clusters | None = None,
    ) -> None:
        """Clusters are worked on one after another, or with `patience_s` side by side, as in a real server.

        They are fakes, unless `adapters` are given. `before` is an earlier server's world on the same folder, which
        this one goes on with; `fuse` may kill it. `database` is the URL of another one than SQLite in the folder.
        """
        self.clock = before.clock if before else FakeClock()
        self.ids = before.ids if before else FakeIds()
        self.signals = Signals()

        def lanes(name: str) -> Lanes:
            return InOrder(name) if patience_s is None else Lanes(name, patience_s)

        self.store = open_store(database or f"sqlite:///{folder / 'w.sqlite'}", self.clock)
        made = {cluster.name: FakeCluster(cluster.name, self.clock) for cluster in clusters}
        self.clusters = before.clusters if before else made
        adapters = adapters or FakeClusters(*self.clusters.values())
        if fuse is not None:
            self.store, adapters = FusedStore(self.store, fuse), FusedClusters(adapters, fuse)  # type: ignore[assignment]
        self.bundles = FileBundles(folder / "bundles")
        (folder / "server").mkdir(exist_ok=True)
        vault = FileVault(folder / "server" / "vault.key")
        package = folder / "runtime.zip"
        package.write_bytes(b"zip")
        self.fleet = Fleet(self.store, adapters, self.clock, self.signals)
        self.grid = FakeGrid(grid)
        self.outlooks = outlooks = Outlooks(self.grid)
        self.leadership = Leadership(
            self.store, f"server {id(self)}", 15.0, self.signals.lead, begun=Dispatch.begin_term, sole=True
        )
        fenced = FencedStore(self.store, self.leadership)
        self.policies = policies = Policies(self.store, preset, self.clock)
        estimates = Estimates(self.store)
        self.accept = Accept(self.store, self.bundles, self.fleet, policies, vault, self.clock, self.ids, self.signals)
        self.schedules = Schedules(self.store, self.accept, self.access(), vault, self.clock, self.ids)
        self.statements = Statements(self.store)
        self.budgets = budgets = Budgets(self.store, policies, self.statements, self.clock)
        self.economics = economics = Economics(self.statements)
        self.decide = Decide(
            fenced, self.fleet, outlooks, estimates, policies, self.clock, self.signals, budgets, economics
        )
        self.dispatch = Dispatch(
            fenced,
            self.fleet,
            self.bundles,
            RuntimePackage(package, "runtime.zip"),
            vault,
            self.clock,
            self.signals,
            lanes("dispatch"),
            Offers(policies, self.statements),
        )
        journals = Journals()
        self.logs = Logs(self.store, self.fleet, folder / "logs", self.clock, self.signals)
        self.recall, self.amend = (
            Recall(self.store, self.clock, self.signals),
            Amend(self.store, policies, self.clock, self.signals),
        )
        self.follow = Follow(fenced, self.fleet, journals, policies, self.clock, self.signals, lanes("follow"))
        self.gauge = Gauge(fenced, self.fleet, Keep(fenced, self.clock), self.clock, lanes("gauge"))
        self.book = Book(outlooks, self.statements, policies, self.clock)
        so_far = SoFar(outlooks, self.statements, self.clock)
        self.requests = Requests(fenced, journals, so_far, self.clock)
        self.serving = Serving(
            fenced,
            self.fleet,
            self.accept,
            self.decide,
            outlooks,
            ServeOwner(self.fleet, self.bundles, RuntimePackage(package, "runtime.zip"), vault),
            vault,
            self.clock,
        )
        self.collect = Collect(
            fenced,
            self.fleet,
            journals,
            FolderJournals(),
            self.book,
            Batches(fenced, journals, so_far),
            self.requests,
            self.logs,
            self.clock,
            self.signals,
            lanes("collect"),
            self.gauge,
        )
        self.stuck = Stuck(fenced, self.fleet, self.clock, self.signals, lanes("stuck"))
        self.receive = Receive(
            self.store, self.fleet, vault, Keep(self.store, self.clock), self.clock, self.collect.arrived
        )
        self.push_token = lambda attempt: push_token(vault, attempt.attempt_id)
        try:
            self.leadership.step()
        except BaseException:  # killed as it begins: its connections go with it
            self.store.close()
            raise
        if before is not None:
            return
        for cluster in clusters:
            self.fleet.put(cluster)

    def close(self) -> None:
        self.outlooks.close()
        self.fleet.close()
        self.store.close()

    # what users do -------------------------------------------------------------------------------

    def submit(self, key: str | None = None, **request: Any) -> Job:
        body: JobRequest = {"entrypoint": "python job.py", **request}  # type: ignore[typeddict-item]
        return self.accept.submit(body, submitter="ada", idempotency_key=key)

    def a_bundle(self) -> str:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("job.py", "print('hello')")
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        self.bundles.put(digest, iter([buffer.getvalue()]))
        return digest

    # what loops do -------------------------------------------------------------------------------

    def access(self) -> Access:
        """Tokens, in a server whose own user is `owner`."""
        return Access(self.store, self.clock, self.ids, owner="owner", owner_token="secret")

    def settle(self, *, poll: bool = True) -> None:
        """One turn of every loop, twice, so that what one leaves the next one finds."""
        for _ in range(2):
            if poll:
                for cluster in self.fleet.all():
                    self.fleet.poll(cluster)
            self.decide.step()
            self.dispatch.step()
            self.follow.step()
            self.collect.step()

    def job(self, job: Job) -> Job:
        with self.store.transaction(write=False) as tx:
            return tx.job(job.job_id)

    def attempts(self, job: Job) -> list[Attempt]:
        with self.store.transaction(write=False) as tx:
            return tx.attempts(job_id=job.job_id)

    # what the wrapper does -----------------------------------------------------------------------

    def record(self, attempt: Attempt, *events: dict[str, Any]) -> None:
        """Append lines to the attempt's record on its cluster."""
        lines = [
            {"v": 1, "attempt": attempt.attempt_id, "t": round(to_epoch(self.clock.now()) * 1e6), **event}
            for event in events
        ]
        files = self.clusters[attempt.cluster].files
        name = wire.record_name(attempt.attempt_id)
        files[name] = files.get(name, b"") + "".join(json.dumps(line) + "\n" for line in lines).encode()

    def segment(
        self, attempt: Attempt, start: datetime, end: datetime, owners: dict[str, int], seq: int = 0, **more: Any
    ) -> str:
        """Put a journal segment with one CPU counter's energy, in uJ by owner, beside the attempt; its name."""
        segment = self.made_segment(start, end, owners, seq, **more)
        self.clusters[attempt.cluster].files[str(segment.name)] = wire.format_segment(segment)
        return str(segment.name)

    @staticmethod
    def made_segment(start: datetime, end: datetime, owners: dict[str, int], seq: int = 0, **more: Any) -> wire.Segment:
        t0, t1 = round(to_epoch(start) * 1e6), round(to_epoch(end) * 1e6)
        device = wire.Device("cpu:package-0", "cpu", "a CPU", "package")
        total = sum(owners.values())
        flags = more.pop("flags", ())
        rows = [wire.Row(device.id, 0, wire.COUNTER, o, t0, t1, uj, "alone", 50_000, flags) for o, uj in owners.items()]
        spans = (wire.Span(device.id, 0, wire.COUNTER, t0, t1, 0, total),)
        reader, mono = more.pop("reader", READER), (t1 - t0) * 1000
        identity = (MACHINE, BOOT, reader, seq, t0, t1, 0, mono, 0)
        return wire.Segment(*identity, {device.id: device}, spans, tuple(rows), **more)

    def run_to_end(
        self, job: Job, *, seconds: float = 10, energy_uj: int = 3_600_000_000, exit_code: int = 0, seq: int = 0
    ) -> None:
        """Ray and the wrapper carry the job's open attempt from start to end; `seq` counts the reader's segments."""
        attempt = self.attempts(job)[-1]
        cluster = self.clusters[attempt.cluster]
        start = self.clock.now()
        self.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
        cluster.run(attempt.attempt_id)
        self.settle()
        self.clock.pass_s(seconds)
        self.segment(attempt, start, self.clock.now(), {attempt.attempt_id: energy_uj, wire.IDLE: 1_000_000}, seq)
        self.record(
            attempt,
            {"event": "ended", "exit_code": exit_code},
            {"event": "closed", "exit_code": exit_code, "segments": 1},
        )
        cluster.end(attempt.attempt_id, "SUCCEEDED" if exit_code == 0 else "FAILED", exit_code)
        self.settle()
