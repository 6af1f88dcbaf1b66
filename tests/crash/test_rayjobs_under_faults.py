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
from typing import TYPE_CHECKING

import pytest

from carbon_sched.domain.errors import CarbonSchedError
from carbon_sched.domain.job import JobState
from tests.fakes.fuse import Fuse, Killed
from tests.fakes.kube_apiserver import KubeApiserver, running
from tests.fakes.manifests import rayjob
from tests.fakes.rayjobs import POOL, Kube

if TYPE_CHECKING:
    from tests.fakes.ray_head_jobs import FakeJob

HOUR_S = 3600.0
CLEAN_AND_DIRTY = {"DE": [(hour * HOUR_S, (50.0, 900.0)[hour % 2]) for hour in range(24)]}
SHORT_S, LONG_S = 600.0, 1.4 * HOUR_S
"""The long ones do not fit the first clean hour: they are suspended, and go on in the next."""
ATTEMPT_UJ = 36_000_000_000
"""10 Wh: beside it a node that is made for a resumed job costs little."""
OPERATOR_STEPS = 3
"""KubeRay looks at a RayJob every few seconds, so several times a turn."""
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
        for _ in range(OPERATOR_STEPS):
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
        ended = len(jobs) == count and all(job.state.final for job in jobs)
        return ended and all(attempt.collected for job in jobs for attempt in self.kube.world.attempts(job))

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
        """What runs goes on, is done, or stops as it was asked to: by what the Ray heads know, not by our word."""
        running: Counter[str] = Counter()
        for attempt in [one for one in self.kube.heads.by_job if one not in self.closed]:
            job = self.kube.heads.job(attempt)
            running[job.request["metadata"]["carbon-sched.job"]] += 1
            if job.status == "PENDING":
                self.kube.sites[0].starts(attempt)
            elif job.status == "RUNNING":
                self.go_on(attempt, job)
        self.twice += [job_id for job_id, count in running.items() if count > 1]

    def go_on(self, attempt: str, job: FakeJob) -> None:
        name = job.request["metadata"]["job_name"]
        self.ran_s[name] += self.turn_s
        done = self.ran_s[name] >= (LONG_S if name.startswith("long") else SHORT_S)
        if not (done or job.stop_asked):
            return
        start, site = self.kube.now() - timedelta(seconds=60), self.kube.sites[0]
        code = 0 if done else 143
        site.closes(attempt, start=start, exit_code=code, energy_uj=ATTEMPT_UJ, seq=len(self.closed))
        self.closed[attempt] = code
        if done:
            site.finishes(attempt)


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
    pool = replace(POOL, node_resources={"CPU": 64.0, "memory": 256e9}, max_nodes=count // 4)
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
