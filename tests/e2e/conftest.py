"""A real installation: our server, started by our command line, with two local Ray heads that see two stubbed GPUs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from carbon_sched.cli.connection import find_job
from carbon_sched.clusters import processes
from tests.fakes.nvml import StubbedNvml, build_stub
from tests.fakes.real_server import CLI, MARK, client_of, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched.client import Client
    from carbon_sched.wire import Receipt

GPU_WATTS = (100, 250)


@dataclass(frozen=True)
class Installation:
    """A data folder with its own server and clusters `north` (cleaner) and `south`; commands run in `work`."""

    data: Path
    work: Path
    nvml: StubbedNvml

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARBON_SCHED_", "RAY_"))}
        machine = {"CARBON_SCHED_MACHINE_DIR": str(self.data / "machine")}
        ours = {"CARBON_SCHED_DATA_DIR": str(self.data), "NO_COLOR": "1", MARK: str(self.data)}
        return {**kept, **machine, **self.nvml.environment, **ours}

    def run(
        self, *arguments: str, cwd: Path | None = None, check: bool = True, timeout_s: float = 150
    ) -> subprocess.CompletedProcess[str]:
        """One command of ours, to its end."""
        done = subprocess.run(
            [*CLI, *arguments],
            env=self.env,
            cwd=cwd or self.work,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(
                f"carbon-sched {' '.join(arguments)} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def json(self, *arguments: str, timeout_s: float = 150) -> Any:
        """The answer of a command that has --json."""
        return json.loads(self.run(*arguments, "--json", timeout_s=timeout_s).stdout)

    def start(self, *arguments: str) -> str:
        """Submit without waiting; the job's id."""
        return str(json.loads(self.run("submit", "--no-wait", "--json", *arguments).stdout)["job_id"])

    def client(self) -> Client:
        """The server that runs, without a command for each question."""
        return client_of(self.data)

    def finished(self, job: str, patience_s: float | None = None) -> Receipt:
        """The job's receipt once it is final."""
        with self.client() as client:
            job_id = find_job(client, job)["job_id"]
            return eventually(lambda: client.receipt(job_id), lambda receipt: receipt["final"], patience_s=patience_s)

    def wait_ready(self) -> None:
        """Until every cluster can take jobs."""
        with self.client() as client:
            eventually(client.clusters, lambda views: not any(view["problem"] for view in views))

    def wait_free(self) -> None:
        """Until no cluster has anything in use: Ray gives a job's resources back a moment after the job has ended."""
        with self.client() as client:
            eventually(client.clusters, lambda views: not any(v["problem"] or v["cpus_used"] for v in views))

    def ray_environment(self, cluster: str) -> dict[str, str]:
        """What Ray's own client needs to reach a local head of ours."""
        address = next(view["address"] for view in self.json("clusters", "list") if view["name"] == cluster)
        (token,) = (self.data / "local-heads" / cluster).glob("*token*")
        return {**self.env, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Started once, stopped by its own `server stop` at the end."""
    with installed_in(tmp_path_factory.mktemp("installation"), {"providers": []}) as installed:  # nobody outside
        yield installed


@contextlib.contextmanager
def installed_in(folder: Path, grid: dict[str, Any]) -> Iterator[Installation]:
    """An installation with these settings of the grid; its Ray heads run when it is handed over, and end with it."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'carbon-sched[local]')")
    nvml = StubbedNvml(build_stub(folder), folder / "nvml.script", folder / "nvml.log")
    start = int(time.time())
    nvml.write("count 2", f"origin {start}", *(f"at {start} {gpu} watts {w}" for gpu, w in enumerate(GPU_WATTS)))
    with tempfile.TemporaryDirectory(prefix="cs-t-") as data:  # short: Ray keeps sockets below it
        Path(data, "config.yaml").write_text(json.dumps({"grid": grid}), encoding="utf-8")
        installed = Installation(Path(data), folder, nvml)
        try:
            installed.run(
                "clusters", "add", "south", "--local", "--cpus", "4", "--zone", "DE", "--pue", "1.4", "--home"
            )
            installed.run("clusters", "add", "north", "--local", "--cpus", "4", "--zone", "NO", "--pue", "1.1")
            installed.wait_ready()
            yield installed
        finally:
            stopped = installed.run("server", "stop", "--force", check=False)
        assert stopped.returncode == 0, stopped.stderr
        left = processes.members(-1, f"{MARK}={data}")
        assert not left, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
