"""Real Ray heads for the tests: each with ports, temporary folder and token of its own, stopped by pid.

Not fakes, but what the fakes are compared with. Apart from what the product starts itself (clusters/local_head.py), so
that a fault there does not hide here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

import pytest

from carbon_sched.clusters import head_ports, processes

READY_TIMEOUT_S = 90
STOP_TIMEOUT_S = 30
TRIES = 3
TOKEN = "a-token-of-the-tests"
FLAGS = {
    "port": head_ports.GCS,
    "dashboard-port": head_ports.DASHBOARD,
    "ray-client-server-port": head_ports.RAY_CLIENT,
    "dashboard-agent-listen-port": head_ports.AGENT_HTTP,
    "dashboard-agent-grpc-port": head_ports.AGENT_GRPC,
    "runtime-env-agent-port": head_ports.RUNTIME_ENV,
    "metrics-export-port": head_ports.METRICS,
    "node-manager-port": head_ports.NODE_MANAGER,
    "object-manager-port": head_ports.OBJECT_MANAGER,
}


class RealClock:
    """The clock on the wall: these heads do not wait for a fake one."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        return time.monotonic()


def without_blanks(python: str, alias: Path) -> str:
    """The interpreter by a path that Ray, which does not quote it, can live with."""
    if " " not in python:
        return python
    alias.symlink_to(Path(python).parent.parent)
    return str(alias / "bin" / Path(python).name)


class RealRayHead:
    """One head on loopback. `gpus` are logical: Ray hands out numbers, no device is touched. Without a token: open."""

    def __init__(
        self,
        *,
        cpus: int = 4,
        gpus: int = 0,
        resources: dict[str, float] | None = None,
        labels: dict[str, str] | None = None,
        token: str | None = TOKEN,
        environment: dict[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cs-t-ray-"))  # short: Ray keeps sockets below it
        self.token, self.python = token, without_blanks(python, self.folder / "python")
        self.token_file = self.folder / "token"
        self.token_file.write_text(token or "")
        self.marker = f"CARBON_SCHED_TEST_HEAD={self.folder}"
        self.options = [f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        if resources:
            self.options.append(f"--resources={json.dumps(resources)}")
        if labels:
            self.options.append("--labels=" + ",".join(f"{name}={value}" for name, value in labels.items()))
        self.environment = environment or {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.base + head_ports.DASHBOARD}"

    def start(self) -> None:
        self.start_at(head_ports.preferred_base(os.getpid() * 7))

    def restart(self) -> None:
        """Again after `kill`, at the same address."""
        before = self.base

        def left() -> bool:
            block = head_ports.claim(before)
            block.close()
            return block.base == before

        assert processes.wait_until(left, STOP_TIMEOUT_S), "somebody took its ports"
        self.start_at(before)
        assert self.base == before, "somebody took its ports"

    def start_at(self, preferred: int) -> None:
        """Ray gives up a start that takes half a minute, as on a machine with much else to do: it is tried again."""
        for _ in range(TRIES):
            if self.started_at(preferred):
                return
            self.kill()
        pytest.fail(f"Ray did not start:\n{(self.folder / 'log').read_text()}")

    def started_at(self, preferred: int) -> bool:
        block = head_ports.claim(preferred)
        self.base = block.base
        command = [self.python, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--{flag}={self.base + offset}" for flag, offset in FLAGS.items()]
        command += ["--node-ip-address=127.0.0.2", "--dashboard-host=127.0.0.1", f"--temp-dir={self.folder / 'r'}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000", *self.options]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=self.environ(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(block.lock,),
            )
        block.close()
        return self.is_ready()

    def environ(self) -> dict[str, str]:
        name, _, value = self.marker.partition("=")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "CARBON_SCHED_"))}
        return {
            **kept,
            "PATH": f"{Path(self.python).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token" if self.token else "disabled",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "AUTOSCALER_METRIC_PORT": str(self.base + head_ports.AUTOSCALER_METRICS),
            "DASHBOARD_METRIC_PORT": str(self.base + head_ports.DASHBOARD_METRICS),
            name: value,
            **self.environment,
        }

    def is_ready(self) -> bool:
        """Wait until it is; False where it ended before."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while '"ALIVE"' not in self.get("/api/v0/nodes?detail=1"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def get(self, path: str) -> str:
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return ""

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        finally:
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL for the head and everything it started; they are gone when it returns."""

        def gone() -> bool:
            left = processes.members(self.process.pid, self.marker)
            processes.end(left, signal.SIGKILL)
            return not left

        assert processes.wait_until(gone, STOP_TIMEOUT_S), "some processes of Ray cannot be killed"
        self.process.wait(STOP_TIMEOUT_S)


@pytest.fixture(scope="session")
def real_ray_head():
    """A real head with token auth, 4 logical CPUs and 4 logical GPUs, shared by all tests of this process.

    It runs in this Python's environment, or in that of TEST_RAY_PYTHON: tests/e2e/test_ray_versions.py sets that.
    """
    python = os.environ.get("TEST_RAY_PYTHON")
    if python is None and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'carbon-sched[local]')")
    labels = {} if python else {"disk": "fast"}  # older Ray wants them in another form
    resources = {"accelerator_type:H100": 1, "my_disk": 2}
    quick = {"NODE_STATS_UPDATE_INTERVAL_SECONDS": "1"}  # who holds which GPU is shown after 15 s otherwise
    head = RealRayHead(gpus=4, resources=resources, labels=labels, python=python or sys.executable, environment=quick)
    head.start()
    yield head
    head.stop()
