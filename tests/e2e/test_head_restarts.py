"""A real Ray head is killed amid a job and comes back, with and without Redis: no guess, and no silent rerun."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.ray_cluster import RealRayHead
from tests.fakes.real_server import RealServer, eventually, recorded_spans

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis server of its own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed (.ci/provision redis)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        eventually(lambda: _answers(port))
        yield f"127.0.0.1:{port}"
        server.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["forgets", "remembers"])
def head(request: pytest.FixtureRequest) -> Iterator[RealRayHead]:
    environment = {}
    if request.param == "remembers":
        environment = {"RAY_REDIS_ADDRESS": request.getfixturevalue("redis")}
    made = RealRayHead(environment=environment)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def server(head: RealRayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealServer]:
    monkeypatch.setenv("CARBON_SCHED_MACHINE_DIR", str(tmp_path / "machine"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "config.yaml").write_text(json.dumps({"grid": {"providers": []}}))
    started = RealServer(data)
    client = started.up()
    cluster = {"address": head.address, "zone": "NO", "home": True, "token": f"file:{head.token_file}"}
    client.put_cluster("north", cluster)
    eventually(lambda: client.cluster("north")["problem"], lambda problem: not problem)
    yield started
    print(started.log()[-6000:])
    started.gone(started.signal(signal.SIGTERM))


def _energy_uj(client: Any) -> int:
    return sum(span["energy_uj"] for span in recorded_spans(client) if span["owner"].startswith("cs-"))


def test_a_head_killed_amid_a_job(head, server, tmp_path):
    client, marks = server.up(), tmp_path / "marks"
    request: Any = {"entrypoint": f"echo ran >> {marks}; sleep 600"}
    job = client.submit(request, idempotency_key="long")["job_id"]
    eventually(marks.exists)
    eventually(lambda: client.job(job)["state"], lambda state: state == "running")
    eventually(lambda: _energy_uj(client))
    head.kill()
    kept = _energy_uj(client)
    head.restart()
    eventually(lambda: client.cluster("north")["problem"], lambda problem: not problem)
    attempt = eventually(lambda: client.job(job)["attempts"][0], lambda one: one["outcome"])
    if "RAY_REDIS_ADDRESS" in head.environment:
        # Ray tells that its node died: nothing of it can run, and the policy allows another attempt
        assert (attempt["outcome"], attempt["cause"]) == ("failed", "preempted")
        assert "the node that it ran on left north" in attempt["reason"]
    else:
        view = client.job(job)
        assert (attempt["outcome"], view["state"], view["cause"]) == ("lost", "lost", "head-restarted")
        assert marks.read_text() == "ran\n", "nothing runs again before a person has said so"
        client.resolve(job, {"resolution": "requeue"})
    eventually(lambda: marks.read_text().count("ran") == 2)
    assert len(client.job(job)["attempts"]) == 2, "each run is an attempt that everybody sees"
    client.stop(job)
    # a journal that nobody finished is waited for
    receipt = eventually(lambda: client.receipt(job), lambda one: one["final"], patience_s=300.0)
    assert receipt["energy_kwh"] * 3.6e12 >= kept > 0
    assert client.verify()["ok"]
