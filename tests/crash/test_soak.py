"""Hours of work in minutes: jobs come and go, the cluster goes away and comes back, and the server stays as it was."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from carbon_sched.store.engine import POOL
from tests.crash.test_kill_under_load import Clients, Ray
from tests.fakes.ray_head_http import text
from tests.fakes.real_server import eventually, place

__all__ = ["place"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
WARM, ROUND, ROUNDS = 200, 200, int(os.environ.get("SOAK_ROUNDS", "4"))
AWAY_S = 3.0
KIB_PER_JOB = 16
"""What a server may grow by with each job, the filling of page caches among it; 9.3 KiB were measured."""
ASKING, ASKED = 2 * POOL["pool_size"], 10
"""Clients at once, and how often each asks, before anything is counted."""
STRAY = 4
"""Threads and files that come and go with requests."""


def counts(pid: int) -> Counter[str]:
    """Memory in KiB, threads and open files of the server's own process."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Counter(memory=int(lines["VmRSS"].split()[0]), threads=int(lines["Threads"]), files=files)


class Soak:
    """Rounds of jobs on one server that is never restarted."""

    def __init__(self, place) -> None:
        self.place, self.states = place, Counter[str]()
        place.head.execute = False
        place.add_cluster()
        self.pid = place.server.running().process.pid

    def crowd(self) -> None:
        """Ask with more clients at once than the pool keeps connections, so that it grows no more afterwards."""
        with ThreadPoolExecutor(ASKING) as pool:
            list(pool.map(lambda _: self.place.server.up().jobs(limit=200), range(ASKING * ASKED)))

    def round(self, number: int, jobs: int) -> Counter[str]:
        """Submit them from many clients, with the cluster away for a moment; what the server is when all have ended."""
        clients = Clients(self.place, jobs, prefix=f"round-{number}")
        answer, self.place.head.answer = self.place.head.answer, lambda *_: text("it is away", 503)
        time.sleep(AWAY_S)
        self.place.head.answer = answer
        clients.join()
        client = self.place.server.up()
        left = ["queued", "dispatching", "starting", "running", "stopping"]
        eventually(lambda: client.jobs(state=left, limit=1)["jobs"], lambda found: not found)
        self.states.update(client.job(job_id)["state"] for job_id in clients.acknowledged.values())
        return counts(self.pid)


def test_rounds_of_jobs_leave_no_threads_files_or_memory_behind(place, monkeypatch):
    monkeypatch.setattr("tests.fakes.real_server.PATIENCE_S", 600.0)
    soak, ray = Soak(place), Ray(place.head)
    try:
        soak.crowd()
        warm = soak.round(0, WARM)
        after = [soak.round(number, ROUND) for number in range(1, ROUNDS + 1)]
    finally:
        ray.stop()
    grown = (after[-1]["memory"] - warm["memory"]) / (ROUNDS * ROUND)
    print(f"warm {dict(warm)}; after {ROUNDS} rounds of {ROUND} jobs {dict(after[-1])}: {grown:.1f} KiB per job")
    assert soak.states == {"succeeded": WARM + ROUNDS * ROUND}, "nothing lost"
    assert place.server.running().process.pid == soak.pid, "it lived through all of it"
    assert after[-1]["threads"] <= warm["threads"] + STRAY
    assert after[-1]["files"] <= warm["files"] + STRAY
    assert grown < KIB_PER_JOB
    assert place.server.up().verify()["ok"]
