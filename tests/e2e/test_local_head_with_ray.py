"""The local head with Ray itself: up, used, adopted, killed, up again, ended without a trace."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from carbon_sched.clusters import local_head, processes
from carbon_sched.clusters.bundle import runtime_package
from carbon_sched.clusters.check import Level, check_cluster
from carbon_sched.clusters.registry import RayClusters
from carbon_sched.domain.cluster import Cluster, LocalHead, Pue
from carbon_sched.ports import RaySubmission
from tests.fakes.ray_cluster import RealClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from carbon_sched.clusters.ray_client import RayClient

LOCAL = Cluster("local", "DE", Pue(1_200_000, "2026", "a test"), local=LocalHead(cpus=3))


def eventually(ask: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 60
    while not good(value := ask()):
        assert time.monotonic() < deadline, f"still {value!r}"
        time.sleep(0.1)
    return value


def usable(client: RayClient) -> Any:
    return eventually(client.status, lambda status: status.usable)


def listening(address: str) -> bool:
    parts = urlsplit(address)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname, parts.port)) == 0


def test_a_head_of_our_own(tmp_path: Path):
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'carbon-sched[local]')")
    clusters = RayClusters(tmp_path, RealClock())
    folder = tmp_path / "local-heads" / "local"
    marker = f"{local_head.MARKER}={folder}"
    try:
        client = clusters.client(LOCAL)
        assert "nothing answers" in client.status().problem
        first = usable(client)
        assert first.nodes[0].resources["CPU"] == 3.0
        assert first.nodes[0].used["CPU"] == 0.0, "a head that nobody used is free from its first second on"
        assert {finding.level for finding in check_cluster(client, LOCAL)} == {Level.OK}
        uses_the_package_and_our_python(client, tmp_path)

        # The next server finds it running.
        adopted = RayClusters(tmp_path, RealClock())
        assert adopted.client(LOCAL).epoch() == first.epoch

        # Its death takes nothing along but itself: what it ran is ended by whoever starts it again.
        client.submit(RaySubmission("cs-orphan-a1", "exec sleep 1000", {}, {}))
        eventually(lambda: client.job("cs-orphan-a1").status, lambda status: status == "RUNNING")
        head = client_pid(clusters)
        before = processes.members(head, marker)
        os.kill(head, signal.SIGKILL)
        again = eventually(client.status, lambda status: status.usable and status.epoch != first.epoch)
        assert again.address == first.address
        assert client.job("cs-orphan-a1") is None
        assert not [pid for pid in before if processes.process(pid)]

        left = processes.members(client_pid(clusters), marker)
        assert len(left) > 5
        clusters.stop_local("local")
        assert not [pid for pid in left if processes.process(pid)]
        assert not listening(again.address)
    finally:
        clusters.stop_local("local")
    assert processes.members(-1, marker) == set()


def client_pid(clusters: RayClusters) -> int:
    return clusters._heads["local"]._state.pid


def uses_the_package_and_our_python(client: RayClient, tmp_path: Path) -> None:
    package, name = runtime_package(tmp_path / "package")
    modules = {"py_modules": [client.ensure_package(package, name)]}
    code = "import os, sys, carbon_sched_runtime as c; print(c.__file__, os.path.realpath(sys.prefix))"
    client.submit(RaySubmission("cs-package-a1", f'python -c "{code}"', modules, {}))
    ended = eventually(lambda: client.job("cs-package-a1"), lambda job: job.status not in ("PENDING", "RUNNING"))
    log = client.logs("cs-package-a1").decode()
    assert ended.status == "SUCCEEDED", log
    assert f"py_modules_files/{name.removesuffix('.zip')}/carbon_sched_runtime" in log
    assert os.path.realpath(sys.prefix) in log, "`python` is the one of this environment"
