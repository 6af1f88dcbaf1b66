"""Several servers on one PostgreSQL database: any of them serves, one leads, and a paused leader changes nothing."""

from __future__ import annotations

import signal
import time

import pytest

from tests.fakes.ray_head import FakeRayHead
from tests.fakes.real_server import eventually
from tests.fakes.replicas import LEASE_S, Replicas

pytestmark = pytest.mark.postgres


@pytest.fixture
def replicas(tmp_path, postgres_url, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_MACHINE_DIR", str(tmp_path / "machine"))
    with FakeRayHead(cpus=64) as head:
        made = Replicas(tmp_path, postgres_url, head)
        try:
            yield made
        finally:
            made.stop()
            print(*(server.log()[-4000:] for server in made.servers), sep="\n=====\n")


def take_over(replicas, number):
    """Pause the leader past its lease amid work, let another one lead, and wake the first; the jobs submitted."""
    leader = replicas.leader()
    other, term = replicas.others(leader)[0], leader.term()
    jobs = [replicas.submit(other, f"before-{number}", "sleep 0.5")]
    leader.signal(signal.SIGSTOP)
    paused_at = time.monotonic()
    while not other.leads():
        time.sleep(0.05)
    jobs.append(replicas.submit(other, f"meanwhile-{number}"))
    time.sleep(max(0.0, paused_at + 3 * LEASE_S - time.monotonic()))
    leader.signal(signal.SIGCONT)
    jobs.append(replicas.submit(leader, f"after-{number}"))
    # on a busy machine the other one may have missed its short lease, too; the term that was slept through is over
    eventually(lambda: replicas.leader().term(), lambda now: now > term)
    return jobs


def check(replicas, rounds):
    jobs = [job for number in range(rounds) for job in take_over(replicas, number)]
    assert set(replicas.ended(jobs).values()) == {"succeeded"}
    kinds = ("before", "meanwhile", "after")
    assert replicas.runs() == sorted(f"{kind}-{number}" for number in range(rounds) for kind in kinds), "each ran once"
    assert all(server.client.verify()["ok"] for server in replicas.servers)


def test_a_leader_paused_past_its_lease_is_replaced_and_its_late_writes_are_refused(replicas):
    check(replicas, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_paused_leaders(replicas):
    check(replicas, 50)


def test_a_leader_that_ends_hands_over_at_once_and_one_that_is_killed_after_its_lease(replicas):
    first = replicas.leader()
    second = replicas.others(first)[0]
    job = replicas.submit(second, "one", "sleep 1")
    first.stop()
    eventually(second.leads)
    first.start()
    second.kill()
    replicas.servers = [first]
    assert replicas.leader() is first
    assert replicas.ended([job]) == {job: "succeeded"}
    assert replicas.runs() == ["one"]
