"""Two servers on PostgreSQL under load become the next version one after the other, and go back: nothing is lost.

The next version is this code with one more migration, additive as all are: what is tested is that the code as it is
lives with what comes after it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from carbon_sched.policy.presets import presets_folder
from carbon_sched.store import schema
from tests.fakes.ray_head import FakeRayHead
from tests.fakes.real_server import eventually
from tests.fakes.replicas import Replicas

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(900)]
NEXT = schema.REVISION + 1
PACKAGES = Path(schema.__file__).parents[2]
CLIENTS = 4
JOBS_BETWEEN = 12
MIGRATION = """
from alembic import op
from carbon_sched.store.migrations.statements import run
revision, down_revision = "{next:04}", "{now:04}"
def upgrade():
    run(op.get_bind(), revision)
"""
STATEMENTS = """ALTER TABLE jobs ADD COLUMN of_the_next_version TEXT

CREATE INDEX ix_jobs_of_the_next_version ON jobs (of_the_next_version)

UPDATE schema_info SET revision = {next}, min_code = {now}
"""


def next_version(folder: Path) -> dict[str, str]:
    """Make it; the environment in which Python runs it."""
    for package in ("carbon_sched", "carbon_sched_runtime"):
        shutil.copytree(PACKAGES / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(presets_folder(), folder / "carbon_sched" / "_presets", dirs_exist_ok=True)
    store = folder / "carbon_sched" / "store"
    numbers = {"next": NEXT, "now": schema.REVISION}
    (store / "migrations" / "versions" / f"v{NEXT:04}_next.py").write_text(MIGRATION.format(**numbers))
    (store / "migrations" / "sql" / f"{NEXT:04}.postgresql.sql").write_text(STATEMENTS.format(**numbers))
    code = (store / "schema.py").read_text()
    (store / "schema.py").write_text(re.sub(r"(?m)^REVISION = \d+$", f"REVISION = {NEXT}", code))
    return {"PYTHONPATH": str(folder)}


class Load:
    """Clients that submit all the time, each repeating a job under its key until a server has acknowledged it."""

    def __init__(self, replicas: Replicas) -> None:
        self.replicas, self.acknowledged, self.over = replicas, dict[str, str](), threading.Event()
        self.threads = [threading.Thread(target=self.submit, args=(number,)) for number in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def submit(self, number: int) -> None:
        count = 0
        while not self.over.wait(0.2):
            name = f"client-{number}-job-{count}"
            through = self.replicas.servers[(number + count) % len(self.replicas.servers)]
            self.acknowledged[name] = self.replicas.submit(through, name)
            count += 1

    def goes_on(self) -> None:
        """More jobs have been acknowledged."""
        before = len(self.acknowledged)
        eventually(lambda: len(self.acknowledged), lambda count: count >= before + JOBS_BETWEEN)

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


def revision(url: str) -> int:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = schema.read_schema(connection)
    engine.dispose()
    assert found is not None
    return found.revision


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


def test_a_rolling_upgrade_under_load_and_one_version_back_lose_nothing(replicas, postgres_url, tmp_path):
    new, load = next_version(tmp_path / "next"), Load(replicas)
    try:
        load.goes_on()
        assert revision(postgres_url) == schema.REVISION
        for environment in (new, {}):
            for server in replicas.servers:
                server.stop()
                server.environment = environment
                server.start()
                load.goes_on()
                assert revision(postgres_url) == NEXT, "also the code as it is serves the newer schema"
    finally:
        load.stop()
    states = replicas.ended(list(load.acknowledged.values()))
    assert set(states.values()) == {"succeeded"}, "0 lost"
    assert Counter(replicas.runs()) == dict.fromkeys(load.acknowledged, 1), "each ran once"
    assert all(server.client.verify()["ok"] for server in replicas.servers)


def test_code_older_than_the_schema_allows_says_what_to_install(replicas, postgres_url):
    replicas.stop()
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE schema_info SET revision = {NEXT}, min_code = {NEXT}"))
    engine.dispose()
    server = replicas.servers[0]
    done = subprocess.run(server.command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ})
    assert 120 <= done.returncode <= 127
    assert f"wants a carbon-sched that knows schema {NEXT}; this one knows {schema.REVISION}" in done.stderr
    assert "Install a newer carbon-sched" in done.stderr
    assert "Traceback" not in done.stderr
