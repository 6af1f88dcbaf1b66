"""kill -9 of a process that writes: what it was told is committed stays, and nothing stays by half."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from carbon_sched.ledger.encoding import decode_fact
from carbon_sched.ledger.verify import verify_entries
from carbon_sched.ports import JobFilter
from carbon_sched.store.engine import open_store
from tests.fakes.clock import StoppedClock
from tests.fakes.stores import database_url

__all__ = ["database_url"]

ROOT = Path(__file__).parents[2]


def killed_writer(url, first, draw):
    """Numbers that a writer had acknowledged when it was killed, after some commits and a moment more."""
    command = [sys.executable, "-m", "tests.fakes.store_writer", url, str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
        commits = draw.randint(1, 60)
        lines = [writer.stdout.readline() for _ in range(commits)]
        time.sleep(draw.random() * 0.004)  # into the midst of the next commits
        writer.kill()
        lines += writer.stdout.readlines()
    return [int(line) for line in lines if line.endswith(b"\n")]


def check(url, acknowledged):
    """Every acknowledged job with all that was written beside it; at most the one in flight besides, as whole."""
    store = open_store(url, StoppedClock())
    with store.transaction() as tx:
        jobs = {job.job_id for job in tx.jobs(JobFilter(), limit=10**6)}
        entries = tx.entries(limit=10**6)
        actions = {item.key for item in tx.claim_outbox(["submit"], limit=10**6, lease_s=0)}
        events = {job_id: [event.event for event in tx.events(job_id)] for job_id in jobs}
    store.close()
    assert verify_entries(entries).ok
    facts = [decode_fact(entry.payload).body["job"] for entry in entries]
    assert len(facts) == len(set(facts))
    assert jobs == set(facts) == actions
    assert set(map(tuple, events.values())) == {("accepted", "dispatch")}
    assert {f"j{number:09d}" for number in acknowledged} <= jobs
    return len(jobs)


def run(url, rounds, seed):
    draw, acknowledged = random.Random(seed), []
    for number in range(rounds):
        acknowledged += killed_writer(url, 1_000_000 * number, draw)
        # each killed writer may have committed one job that it could not tell of any more
        assert 0 <= check(url, acknowledged) - len(acknowledged) <= number + 1
    assert len(acknowledged) >= rounds


def test_nothing_acknowledged_is_lost(database_url):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    run(database_url, rounds=3, seed=seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_a_hundred_times(database_url):
    run(database_url, rounds=100, seed=2026)
