"""Hours of work in minutes: jobs come and go, the cluster goes away and comes back, and the server stays as it was."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
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
"""What a server may grow by with each job, the filling of page caches among it; 10.3 KiB were measured, and 5.5 over 20
rounds."""
HANDLES = 3
"""A connection's to SQLite: of the database, its log and their index."""
STRAY = 4
"""Threads and files that come and go with requests."""


def counts(pid: int) -> Counter[str]:
    """Memory in KiB, threads, open files and the database's handles of the server's own process."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = []
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            files.append(handle.readlink().name)
    database = sum(".sqlite" in name for name in files)
    memory, threads = int(lines["VmRSS"].split()[0]), int(lines["Threads"])
    return Counter(memory=memory, threads=threads, files=len(files) - database, database=database)


class Soak:
    """Rounds of jobs on one server that is never restarted."""

    def __init__(self, place) -> None:
        self.place, self.states = place, Counter[str]()
        place.head.execute = False
        place.add_cluster()
        self.pid = place.server.running().process.pid

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
    assert after[-1]["database"] <= HANDLES * POOL["pool_size"], "which keeps what many clients at once needed"
    assert grown < KIB_PER_JOB
    assert place.server.up().verify()["ok"]
