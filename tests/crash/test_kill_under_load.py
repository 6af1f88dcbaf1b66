"""A server ends while many clients submit, in order or by kill -9: nothing acknowledged is lost or started twice."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

from carbon_sched.client import Client
from carbon_sched.domain.errors import CarbonSchedError
from tests.fakes.real_server import Place, eventually, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.ray_head import FakeRayHead

__all__ = ["place"]

CLIENTS = 20
RUN_S = 0.2
DRAINED_S = 20.0
BUSY = 0.5
"""The share of kills that come while jobs are being started; the others come soon after the server's own start."""


class Ray:
    """What Ray does with submitted jobs, without running them: starts each, and ends it a moment later."""

    def __init__(self, head: FakeRayHead) -> None:
        self.head, self.began, self.over = head, {}, threading.Event()
        self.starts = Counter()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.over.wait(0.05):
            for submission_id, job in list(self.head.jobs.items()):
                if job.status == "PENDING":
                    self.starts[submission_id] += 1
                    self.began[submission_id] = time.monotonic()
                    self.head.begin(submission_id)
                elif job.status == "RUNNING" and time.monotonic() - self.began[submission_id] > RUN_S:
                    self.head.finish(submission_id)

    def goes_on(self, jobs: int) -> None:
        """Another one has started, or all have."""
        before = len(self.starts)
        eventually(lambda: before < len(self.starts) or len(self.starts) == jobs)

    def stop(self) -> None:
        self.over.set()
        self.thread.join()


class Clients:
    """Each submits its jobs one after another, and repeats under the job's key until it is acknowledged."""

    def __init__(self, place: Place, jobs: int, prefix: str = "job") -> None:
        self.place, self.acknowledged, self.over = place, {}, threading.Event()
        names = [f"{prefix}-{number}" for number in range(jobs)]
        self.threads = [threading.Thread(target=self.submit, args=(names[n::CLIENTS],)) for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def submit(self, names: list[str]) -> None:
        token = self.place.server.local.files.read_token()
        for name in names:
            while name not in self.acknowledged and not self.over.is_set():
                running = self.place.server.local.files.read()
                try:
                    assert running is not None
                    with Client(running.url, token) as client:
                        job = client.submit({"entrypoint": "true", "name": name}, idempotency_key=name)
                    self.acknowledged[name] = job["job_id"]
                except (CarbonSchedError, AssertionError):
                    time.sleep(0.05)

    def join(self) -> None:
        for thread in self.threads:
            thread.join()


def restart(place: Place) -> float:
    """kill -9 and start again; seconds from the start until it is ready."""
    place.server.kill()
    begin = time.monotonic()
    place.server.up()
    url = place.server.running().url
    eventually(lambda: requests.get(f"{url}/readyz", timeout=10).status_code, lambda status: status == 200)
    return time.monotonic() - begin


@contextmanager
def load(place: Place, jobs: int) -> Iterator[Ray]:
    """Clients submit meanwhile; then all their jobs must be acknowledged and end, and each must have started once."""
    place.head.execute = False
    place.add_cluster()
    ray, clients = Ray(place.head), Clients(place, jobs)
    try:
        yield ray
        clients.join()
        client = place.server.up()
        left = ["queued", "dispatching", "starting", "running", "stopping"]
        eventually(lambda: client.jobs(state=left, limit=1)["jobs"], lambda found: not found)
    finally:
        clients.over.set()
        clients.join()
        ray.stop()
    states = Counter(client.job(job_id)["state"] for job_id in clients.acknowledged.values())
    assert states == {"succeeded": jobs}, "0 lost"
    started = Counter(submission_id.rpartition("-")[0] for submission_id in ray.starts.elements())
    assert set(started) == {f"cs-{job_id}" for job_id in clients.acknowledged.values()}
    assert set(started.values()) == {1}, "0 started twice"
    assert client.verify()["ok"]


def run(place: Place, *, kills: int, jobs: int) -> None:
    seed = random.SystemRandom().randrange(10**6)
    draw, ready = random.Random(seed), list[float]()
    with load(place, jobs) as ray:
        for _ in range(kills):
            if draw.random() < BUSY:  # a server with a long queue plans before it starts jobs again
                ray.goes_on(jobs)
            time.sleep(draw.uniform(0.0, 1.0))
            ready.append(restart(place))
    print(f"seed {seed}: {kills} kills, {jobs} jobs; ready after {sorted(ready)[len(ready) // 2]:.1f} s (median), "
          f"{max(ready):.1f} s (longest)")  # fmt: skip


def test_killed_while_clients_submit(place):
    run(place, kills=3, jobs=60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_a_hundred_times_while_twenty_clients_submit_two_thousand_jobs(place, monkeypatch):
    monkeypatch.setattr("tests.fakes.real_server.PATIENCE_S", 600.0)
    run(place, kills=100, jobs=2000)


@pytest.mark.slow
@pytest.mark.parametrize("then", [None, signal.SIGTERM, signal.SIGKILL], ids=["once", "twice", "and killed"])
def test_told_to_end_with_a_hundred_submissions_under_way(place, then):
    place.head.lie("late", "/api/jobs/", method="POST", times=100, delay_s=0.1)
    with load(place, 100):
        eventually(lambda: place.head.count("POST", "/api/jobs/"))
        process, begin = place.server.signal(signal.SIGTERM), time.monotonic()
        if then is not None:
            os.kill(process.pid, then)
        place.server.gone(process)
        took = time.monotonic() - begin
        place.server.up()
    print(f"gone after {took:.1f} s")
    assert took < DRAINED_S
