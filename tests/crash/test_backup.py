"""A backup made while fifty jobs a second come in: what it holds is whole, and what came later is known to miss."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import threading

import pytest
from sqlalchemy.engine import make_url

from carbon_sched.client import Client
from carbon_sched.domain.errors import NotFound
from carbon_sched.ledger.verify import Checkpoint, verify_entries
from carbon_sched.store.engine import open_store
from tests.fakes.clock import StoppedClock
from tests.fakes.postgres import SUPERUSER
from tests.fakes.ray_head import FakeRayHead
from tests.fakes.real_server import eventually
from tests.fakes.replicas import Replica

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RATE = 50
BEFORE, AFTER = 300, 600


class Writers:
    """Fifty submissions a second, in order; `acknowledged` in the order of their answers."""

    def __init__(self, server: Replica) -> None:
        self.server, self.acknowledged, self.over = server, list[str](), threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(4)]
        for thread in self.threads:
            thread.start()

    def run(self, number: int) -> None:
        token = (self.server.data_dir / "token").read_text().strip()
        with Client(self.server.url, token) as client:
            count = 0
            while not self.over.wait(len(self.threads) / RATE):
                request = {"entrypoint": "true", "name": f"writer-{number}", "earliest": "2099-01-01T00:00:00Z"}
                self.acknowledged.append(client.submit(request, idempotency_key=f"{number}-{count}")["job_id"])
                count += 1

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


def copied(url: str, folder, request: pytest.FixtureRequest) -> str:
    """An online backup by the database's own tools, restored; the copy's URL."""
    if url.startswith("sqlite"):
        source, target = url.removeprefix("sqlite:///"), folder / "restored.sqlite"
        with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
            one.backup(other)
        return f"sqlite:///{target}"
    server = request.getfixturevalue("postgres_server")
    name, source = server.create_database(), str(make_url(url).database)
    connection = {**os.environ, "PGHOST": str(server.folder), "PGUSER": SUPERUSER}
    dump = [str(server.programs / "pg_dump"), "--format=custom", f"--file={folder / 'dump'}", source]
    restore = [str(server.programs / "pg_restore"), f"--dbname={name}", "--exit-on-error", str(folder / "dump")]
    for command in (dump, restore):
        subprocess.run(command, env=connection, check=True)
    return server.url(name)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_backup_under_writes_is_restored_and_verified(kind, tmp_path, request):
    url = f"sqlite:///{tmp_path / 'live.sqlite'}" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    with FakeRayHead(cpus=64, execute=False) as head:
        live = Replica(tmp_path / "live", tmp_path / "shared", url)
        live.client.put_cluster("north", {"address": head.address, "zone": "NO", "home": True})
        writers = Writers(live)
        eventually(lambda: len(writers.acknowledged) >= BEFORE)
        sure = len(writers.acknowledged)
        before = checkpoint(live)
        restored_url = copied(url, tmp_path, request)
        possible = len(writers.acknowledged) + len(writers.threads)
        eventually(lambda: len(writers.acknowledged) >= AFTER)
        writers.stop()
        after = checkpoint(live)
        live.stop()
        shutil.copytree(tmp_path / "shared", tmp_path / "shared-restored")
        restored = Replica(tmp_path / "restored", tmp_path / "shared-restored", restored_url)
        try:
            there = [job_id for job_id in writers.acknowledged if found(restored.client, job_id)]
            assert there[:sure] == writers.acknowledged[:sure], "all that was acknowledged before the backup began"
            assert len(there) <= possible < len(writers.acknowledged)
            assert restored.client.verify()["ok"]
        finally:
            restored.stop()
    store = open_store(restored_url, StoppedClock())
    with store.transaction(write=False) as tx:
        entries = tx.entries(limit=10**6)
    store.close()
    assert verify_entries(entries, checkpoints=[before]).ok
    assert not verify_entries(entries, checkpoints=[before, after]).ok, "what came after the backup is missed"


def checkpoint(server: Replica) -> Checkpoint:
    """The ledger as it is now."""
    seen = server.client.verify()
    return Checkpoint(seen["size"], seen["head"])


def found(client: Client, job_id: str) -> bool:
    try:
        client.job(job_id)
    except NotFound:
        return False
    return True
