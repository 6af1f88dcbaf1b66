"""Several real server processes on one PostgreSQL database, over a fake Ray head, paused and killed at will."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import requests

from carbon_sched.client import Client
from carbon_sched.domain.errors import CarbonSchedError
from carbon_sched.local_server import ServerFiles
from tests.fakes.real_server import CLI, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from carbon_sched.local_server import Running
    from tests.fakes.ray_head import FakeRayHead

LEASE_S = 1.0
"""Short, so that a test of takeovers need not wait long; a busy machine can miss it."""


def write_grid(data_dir: Path) -> None:
    """A zone NO whose intensity is in a file, and nobody on the internet to ask."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    rows = "".join(f"{(now + timedelta(days=days)).isoformat()},100\n" for days in (-40, 10))
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / "no.csv").write_text(f"start,g_per_kwh\n{rows}")
    (data_dir / "config.yaml").write_text("grid: {series: [{zone: 'NO', file: no.csv}], providers: []}\n")


class Replica:
    """One server: its process, its data folder and a client of it."""

    def __init__(self, data_dir: Path, shared_dir: Path, database: str, *, lease_s: float = LEASE_S) -> None:
        write_grid(data_dir)
        self.data_dir = data_dir
        self.command = [*CLI, "serve", "--data-dir", str(data_dir), "--shared-dir", str(shared_dir)]
        self.command += ["--database", database]
        self.lease_s, self.environment = lease_s, dict[str, str]()
        self.start()

    def start(self) -> None:
        files = ServerFiles(self.data_dir)
        environment = {**os.environ, "CARBON_SCHED_LEADER_LEASE_S": str(self.lease_s), **self.environment}
        with (self.data_dir / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)
        running = eventually(files.read, self.announced)
        self.url = running.url
        self.client = Client(running.url, files.read_token())

    def announced(self, found: Running | None) -> bool:
        assert self.process.poll() is None, self.log()
        return found is not None and found.pid == self.process.pid

    def ready(self) -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(f"{self.url}/readyz", timeout=10).json()
        return answer

    def leads(self) -> bool:
        return bool(self.ready()["leader"])

    def term(self) -> int:
        """The term that it leads in, 0 when it does not."""
        token = {"Authorization": f"Bearer {ServerFiles(self.data_dir).read_token()}"}
        lines = requests.get(f"{self.url}/metrics", headers=token, timeout=10).text.splitlines()
        return next(int(float(line.split()[1])) for line in lines if line.startswith("carbon_sched_leader_term "))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            self.process.wait(60)

    def log(self) -> str:
        return (self.data_dir / "server.log").read_text()


class Replicas:
    """Some of them, with one cluster."""

    def __init__(self, folder: Path, database: str, head: FakeRayHead, count: int = 2) -> None:
        self.servers = [Replica(folder / f"server-{n}", folder / "shared", database) for n in range(count)]
        self.marks = folder / "marks"
        self.marks.touch()
        self.servers[0].client.put_cluster("north", {"address": head.address, "zone": "NO", "home": True})

    def leader(self) -> Replica:
        """The one that leads, once only one says so: who was paused hears a moment later that another one does."""
        (leader,) = eventually(lambda: [one for one in self.servers if one.leads()], lambda found: len(found) == 1)
        return leader

    def others(self, leader: Replica) -> list[Replica]:
        return [server for server in self.servers if server is not leader]

    def submit(self, through: Replica, name: str, then: str = "true") -> str:
        """A job that notes its run; repeated until the server acknowledges it, under one key."""
        request: Any = {"entrypoint": f"echo {name} >> {self.marks}; {then}", "name": name}
        deadline = time.monotonic() + 60
        while True:
            try:
                return str(through.client.submit(request, idempotency_key=name)["job_id"])
            except CarbonSchedError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def ended(self, job_ids: list[str]) -> dict[str, str]:
        """Every job's final state, asked of the last server."""
        client = self.servers[-1].client
        return {
            job_id: eventually(lambda job_id=job_id: client.job(job_id), lambda job: job["finished_at"])["state"]
            for job_id in job_ids
        }

    def runs(self) -> list[str]:
        return sorted(self.marks.read_text().split())

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
