"""The database goes away, is locked, or cannot be written: 503 meanwhile, nothing by half, and no hand to mend it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time

import pytest
import requests

from carbon_sched.client import Client
from carbon_sched.domain.errors import CarbonSchedError, ServerUnavailable, StoreError
from tests.fakes.postgres import PostgresServer, programs, why_not
from tests.fakes.ray_head import FakeRayHead
from tests.fakes.real_server import eventually, place
from tests.fakes.replicas import Replica

__all__ = ["place"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RECOVERED_S = 30.0
ROUNDS = 3


class Submitting:
    """One client that submits all the time, each job under its key until the server has acknowledged it."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token, self.over = url, token, threading.Event()
        self.acknowledged, self.refused = dict[str, str](), list[CarbonSchedError]()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        with Client(self.url, self.token) as client:
            while not self.over.wait(0.05):
                name = f"job-{len(self.acknowledged)}"
                try:
                    self.acknowledged[name] = client.submit({"entrypoint": "true", "name": name}, idempotency_key=name)[
                        "job_id"
                    ]
                except CarbonSchedError as error:
                    self.refused.append(error)

    def stop(self) -> None:
        self.over.set()
        self.thread.join()

    def goes_on(self) -> float:
        """Seconds until another job is acknowledged."""
        before, begin = len(self.acknowledged), time.monotonic()
        eventually(lambda: len(self.acknowledged) > before)
        return time.monotonic() - begin


def check(submitting: Submitting, client: Client) -> None:
    """What was acknowledged is there and ends; what was refused was refused as something to try again."""
    submitting.stop()
    assert all(isinstance(error, (StoreError, ServerUnavailable)) for error in submitting.refused), submitting.refused
    for job_id in submitting.acknowledged.values():
        ended = eventually(lambda job_id=job_id: client.job(job_id), lambda job: job["finished_at"])
        assert ended["state"] == "succeeded"
    assert len(client.jobs(limit=1000)["jobs"]) == len(submitting.acknowledged)
    assert client.verify()["ok"]


def refusal(url: str, token: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "told"}
    return requests.post(f"{url}/v1/jobs", json={"entrypoint": "true", "name": "told"}, headers=headers, timeout=150)


@pytest.mark.postgres
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_postgresql_dies_and_comes_back(tmp_path):
    database = PostgresServer(programs())
    database.start()
    try:
        with FakeRayHead(cpus=64) as head:
            server = Replica(tmp_path / "server", tmp_path / "shared", database.url(database.create_database()))
            server.client.put_cluster("north", {"address": head.address, "zone": "NO", "home": True})
            token = (server.data_dir / "token").read_text().strip()
            submitting = Submitting(server.url, token)
            for _ in range(ROUNDS):
                submitting.goes_on()
                database.crash()
                answer = refusal(server.url, token)
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
                assert requests.get(f"{server.url}/healthz", timeout=10).status_code == 200, "it is no reason to end"
                assert requests.get(f"{server.url}/readyz", timeout=60).status_code == 503
                database.resume()
                assert submitting.goes_on() < RECOVERED_S
            check(submitting, server.client)
            server.stop()
    finally:
        database.stop()


def test_sqlite_is_locked_by_somebody_else(place):
    place.add_cluster()
    running, token = place.server.running(), place.server.local.files.read_token()
    submitting = Submitting(running.url, token)
    submitting.goes_on()
    file = next(place.server.data_dir.glob("*.sqlite"))
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = refusal(running.url, token)  # after the longest that a transaction waits for its turn
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        other.execute("ROLLBACK")
    assert submitting.goes_on() < RECOVERED_S
    check(submitting, place.server.up())
