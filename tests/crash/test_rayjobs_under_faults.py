"""RayJobs while the API server fails, watches expire and the controller is killed: none lost, none admitted twice.

What happens is drawn from a seed: errors and answers that are lost, conflicts with the operator's own writes, watches
that cannot go on (410), kill -9 at any commit or call. The API server is `tests/fakes/kube_api.py`, or a real one whose
etcd forgets, behind a proxy that fails; the operator is `tests/fakes/kuberay.py`.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import CarbonSchedError
from carbon_sched.domain.job import JobState
from tests.fakes.fuse import Fuse, Killed
from tests.fakes.kube_apiserver import KubeApiserver, running
from tests.fakes.manifests import rayjob
from tests.fakes.rayjobs import POOL, Kube

HOUR_S = 3600.0
CLEAN_AND_DIRTY = {"DE": [(hour * HOUR_S, (50.0, 900.0)[hour % 2]) for hour in range(24)]}
SHORT_S, LONG_S = 600.0, 1.4 * HOUR_S
"""The long ones do not fit the first clean hour: they are suspended, and go on in the next."""
ATTEMPT_UJ = 3_600_000
MOST_TURNS = 400


class Storm:
    """The world outside the controller, and what may go wrong between the two.

    Many RayJobs have longer turns and rarer faults, so that each of them meets about as many as in a small storm.
    """

    def __init__(self, kube: Kube, count: int) -> None:
        self.kube, self.random = kube, random.Random(count)
        self.turn_s, self.faulty = (120.0, 0.06) if count < 100 else (240.0, 0.02)
        self.ran_s: Counter[str] = Counter()
        self.closed: dict[str, int] = {}
        self.twice: list[str] = []
        self.happened: Counter[str] = Counter()

    def turn(self) -> None:
        """The operator and Ray, then the controller and every loop, which may fail or be killed."""
        self.kube.world.clock.pass_s(self.turn_s)
        self.kube.operator.step()
        self.work()
        if self.random.random() < 0.1:
            self.happened["expired"] += 1
            self.kube.api.expire()
        self.kube.caught_up()
        self.kube.api.fault = self.fault
        try:
            self.kube.controller.step()
            self.kube.world.settle()
        except Killed:
            self.happened["killed"] += 1
            self.begin_again()
        except CarbonSchedError as error:  # a loop says so and goes on
            self.happened[f"{type(error).__name__} in a loop"] += 1
        finally:
            self.kube.api.fault = lambda _method, _path: ""

    def begin_again(self) -> None:
        """The next controller; one may be killed while it begins."""
        begun = False
        while not begun:
            self.kube.end()
            with contextlib.suppress(Killed):
                self.kube.begin(self.fuse())
                begun = True

    def over(self, count: int) -> bool:
        """Whether all RayJobs were taken up and have ended, and all energy is collected."""
        jobs = self.kube.jobs()
        return len(jobs) == count and all(
            job.state.final and all(attempt.collected for attempt in self.kube.world.attempts(job)) for job in jobs
        )

    def fuse(self) -> Fuse:
        """Blows within the next turns."""
        return Fuse(self.random.randint(1, 30 * len(self.kube.api.of("rayjobs"))))

    def fault(self, _method: str, _path: str) -> str:
        if self.random.random() >= self.faulty:
            return ""
        found = self.random.choice(("error", "busy", "lost"))
        self.happened[found] += 1
        return found

    def work(self) -> None:
        """What runs goes on, is done, or stops as it was asked to."""
        running: Counter[str] = Counter()
        for attempt in self.attempts():
            job = self.kube.heads.job(attempt.attempt_id)
            if job is None or attempt.attempt_id in self.closed:
                continue
            running[attempt.job_id] += 1
            if job.status == "PENDING":
                self.kube.starts(attempt)
            elif job.status == "RUNNING":
                self.go_on(attempt, stop_asked=job.stop_asked)
        self.twice += [job_id for job_id, count in running.items() if count > 1]

    def go_on(self, attempt, *, stop_asked: bool) -> None:
        self.ran_s[attempt.job_id] += self.turn_s
        done = self.ran_s[attempt.job_id] >= (LONG_S if "long" in self.names[attempt.job_id] else SHORT_S)
        if not (done or stop_asked):
            return
        start, seq = self.kube.world.clock.now() - timedelta(seconds=60), len(self.closed)
        self.closed[attempt.attempt_id] = 0 if done else 143
        self.kube.closes(attempt, start=start, exit_code=self.closed[attempt.attempt_id], energy_uj=ATTEMPT_UJ, seq=seq)
        if done:
            self.kube.finishes(attempt)

    def attempts(self):
        self.names = {job.job_id: job.spec.name for job in self.kube.jobs()}
        with self.kube.world.store.transaction(write=False) as tx:
            return [attempt for job_id in self.names for attempt in tx.attempts(job_id=job_id)]


@pytest.fixture
def server(request):
    """A real kube-apiserver, whose watches depend on what etcd remembers; or None."""
    if request.param == "fake":
        yield None
    else:
        yield from running(KubeApiserver(watch_cache=False))


LONG = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    ("server", "count"),
    [
        ("fake", 8),
        pytest.param("real", 8, marks=LONG),
        *(pytest.param(kind, 500, marks=LONG) for kind in ("fake", "real")),
    ],
    indirect=["server"],
)
def test_none_is_lost_or_admitted_twice(tmp_path, server, count, caplog):
    caplog.set_level(logging.INFO, "carbon_sched.clusters.kubernetes.mirror")
    pool = replace(POOL, node_resources={"CPU": 64.0, "memory": 256e9}, max_nodes=max(count // 8, 2))
    with Kube(tmp_path, CLEAN_AND_DIRTY, pool=pool, server=server, faulty=True) as kube:
        storm = Storm(kube, count)
        for number in range(count):
            name, more = (f"long-{number}", {"interruptible": "true"}) if number % 2 else (f"short-{number}", {})
            kube.api.create("rayjobs", rayjob(name=name, duration="84m" if more else "10m", max_delay="6h", **more))
        storm.begin_again()
        for _ in range(MOST_TURNS):
            storm.turn()
            if storm.over(count):
                break
        jobs = kube.jobs()
        assert Counter(job.state for job in jobs) == {JobState.SUCCEEDED: count}, [job.reason for job in jobs]
        assert len({job.spec.name for job in jobs}) == count
        assert set(kube.operator.submitted.values()) == {1}
        assert storm.happened["killed"]
        assert "watch expired, listing anew" in caplog.text
        assert storm.twice == kube.operator.cut_off == []
        assert storm.closed.keys() == kube.operator.submitted.keys(), "each one that was begun has ended"
        suspended = [job for job in jobs if kube.world.attempts(job)[0].attempt_id in stopped(storm)]
        assert len(suspended) >= count // 4
        energy = [kube.world.statements.receipt(job.job_id)["energy_kwh"] for job in jobs]
        assert sum(energy) == pytest.approx(len(storm.closed) * ATTEMPT_UJ / 3.6e12)
        assert all(storm.happened[what] for what in ("killed", "expired", "error", "busy", "lost")), storm.happened


def stopped(storm: Storm) -> set[str]:
    return {attempt_id for attempt_id, code in storm.closed.items() if code == 143}
