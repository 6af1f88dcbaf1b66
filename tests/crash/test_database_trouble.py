"""The database goes away, is locked, or cannot be written: 503 meanwhile, nothing by half, and no hand to mend it."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import pytest
import requests

from carbon_sched.client import Client
from carbon_sched.domain.errors import CarbonSchedError, ServerUnavailable, StoreError
from tests.fakes.disks import mounted
from tests.fakes.postgres import SUPERUSER, PostgresServer, programs, why_not
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


@pytest.fixture
def database():
    """A server that a test may do to what it likes."""
    if reason := why_not():
        pytest.skip(reason)
    made = PostgresServer(programs())
    made.start()
    yield made
    made.stop()


@contextlib.contextmanager
def serving(folder, url):
    """One server of ours on this database, and a client that submits all the time; all must be well at the end."""
    with FakeRayHead(cpus=64) as head:
        server = Replica(folder / "server", folder / "shared", url)
        try:
            server.client.put_cluster("north", {"address": head.address, "zone": "NO", "home": True})
            submitting = Submitting(server.url, token_of(server))
            try:
                submitting.goes_on()
                yield server, submitting
                check(submitting, server.client)
            finally:
                submitting.stop()
        finally:
            server.stop()


def token_of(server: Replica) -> str:
    return (server.data_dir / "token").read_text().strip()


@pytest.mark.postgres
def test_postgresql_dies_and_comes_back(database, tmp_path):
    with serving(tmp_path, database.url(database.create_database())) as (server, submitting):
        for _ in range(ROUNDS):
            submitting.goes_on()
            database.crash()
            answer = refusal(server.url, token_of(server))
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert requests.get(f"{server.url}/healthz", timeout=10).status_code == 200, "it is no reason to end"
            assert requests.get(f"{server.url}/readyz", timeout=60).status_code == 503
            database.resume()
            assert submitting.goes_on() < RECOVERED_S


@pytest.mark.postgres
def test_postgresql_fails_over_to_its_standby(database, tmp_path):
    name = database.create_database()
    standby = database.standby()
    both = f"{database.folder},{standby.folder}&target_session_attrs=read-write"
    try:
        with serving(tmp_path, f"postgresql://{SUPERUSER}@/{name}?host={both}") as (_server, submitting):
            database.crash()
            standby.promote()
            assert submitting.goes_on() < RECOVERED_S
    finally:
        standby.stop()
        database.resume()


@pytest.mark.postgres
def test_postgresqls_disk_is_full(database, tmp_path):
    with tempfile.TemporaryDirectory(prefix="cs-t-disk-") as folder, mounted(Path(folder) / "disk", "24m") as disk:
        Path(folder).chmod(0o755)  # PostgreSQL is another user
        with serving(tmp_path, database.url(database.create_database(disk.folder))) as (_server, submitting):
            disk.fill()
            eventually(lambda: submitting.refused)
            assert "Free some space where it lies" in str(submitting.refused[0])
            disk.free()
            assert submitting.goes_on() < RECOVERED_S


@pytest.mark.postgres
def test_postgresql_is_slow(database, tmp_path):
    name = database.create_database()
    with serving(tmp_path, database.url(name)) as (_server, submitting):
        with psycopg.connect(host=str(database.folder), user=SUPERUSER, dbname=name) as slow:
            for _ in range(5):
                slow.execute("LOCK TABLE schema_info IN EXCLUSIVE MODE")
                time.sleep(2)
                slow.rollback()
                submitting.goes_on()
        assert submitting.refused == []


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
