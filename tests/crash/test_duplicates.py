"""The same request many times at once: one job for each key, and another body under a used key is refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from carbon_sched.client import Client
from carbon_sched.domain.errors import Conflict
from tests.fakes.real_server import place

__all__ = ["place"]


def check(place, *, threads, keys):
    place.head.execute = False
    place.add_cluster()
    running, token = place.server.running(), place.server.local.files.read_token()
    together = threading.Barrier(threads)

    def submit_all(_):
        """Every key at the same moment as all the others do."""
        answers = []
        with Client(running.url, token) as client:
            for key in range(keys):
                together.wait()
                request = {"entrypoint": "true", "name": f"job-{key}", "earliest": "2099-01-01T00:00:00Z"}
                answers.append(client.submit(request, idempotency_key=f"key-{key}")["job_id"])
        return answers

    with ThreadPoolExecutor(threads) as pool:
        answered = list(pool.map(submit_all, range(threads)))
    assert len({tuple(answers) for answers in answered}) == 1, "everybody was told of the same jobs"
    client = place.server.up()
    there = {job["job_id"] for job in client.jobs(limit=1000)["jobs"]}
    assert there == set(answered[0])
    assert len(there) == keys
    for key in range(keys):
        with pytest.raises(Conflict, match="used for another request"):
            client.submit({"entrypoint": "false", "name": f"job-{key}"}, idempotency_key=f"key-{key}")
    assert len(client.jobs(limit=1000)["jobs"]) == keys
    assert client.verify()["ok"]


def test_eight_at_once(place):
    check(place, threads=8, keys=5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_at_once_with_a_hundred_keys(place):
    check(place, threads=50, keys=100)
