"""A real Ray cluster of two machines on one: network namespaces, folders and machine ids of their own.

Two nodes of one cluster at one address mislead (a driver on one attaches to the other's raylet), so each lives in a
network namespace behind a bridge, with its own `/etc/machine-id`, its own temporary folder where Ray keeps sessions,
its own meeting place for meters and its own stubbed GPU. Processes share one table, as in no two machines: those of
another meeting place are passed over by our readers. Needs root and `ip` (iproute2).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from tests.fakes.nvml import StubbedNvml

GCS_PORT, DASHBOARD_PORT = 6379, 8265
READY_S = 120
WATTS = {"head": 120, "worker": 310}


class RayMachine:
    """One node: `name` is `head` or `worker`. `session_logs` is where its session keeps logs."""

    def __init__(self, cluster: RayMachines, name: str, number: int) -> None:
        self.cluster, self.name, self.space = cluster, name, f"{cluster.prefix}{number}"
        self.ip = f"{cluster.subnet}.{number}"
        self.folder = cluster.folder / name
        (self.folder / "ray").mkdir(parents=True)
        (self.folder / "machine-id").write_text(f"{number:032x}\n")
        self.nvml = StubbedNvml(cluster.library, self.folder / "nvml.script", self.folder / "nvml.log")
        start = int(time.time())
        self.nvml.write("count 1", f"origin {start}", f"at {start} 0 watts {WATTS[name]}")

    @property
    def session_logs(self) -> Path:
        latest = self.folder / "ray" / "session_latest"  # its target is a path inside the machine
        return latest.with_name(latest.readlink().name) / "logs"

    def wire(self) -> None:
        """A namespace with one interface on the cluster's bridge."""
        outside = f"{self.space}v"
        run("ip", "netns", "add", self.space)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        run("ip", "link", "set", outside, "master", f"{self.cluster.prefix}b", "up")
        run("ip", "-n", self.space, "addr", "add", f"{self.ip}/24", "dev", "eth0")
        for interface in ("lo", "eth0"):
            run("ip", "-n", self.space, "link", "set", interface, "up")

    def start(self) -> None:
        """`ray start --block`, on this machine's own disk and under its own name."""
        temporary = self.cluster.folder / "t"  # the same path on every machine, as Ray wants it
        temporary.mkdir(exist_ok=True)
        role = ["--head", f"--port={GCS_PORT}", "--dashboard-host=0.0.0.0", f"--temp-dir={temporary}"]
        if self.name != "head":
            role = [f"--address={self.cluster.head.ip}:{GCS_PORT}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *role]
        command += [f"--node-ip-address={self.ip}", "--num-cpus=2", "--num-gpus=1", "--object-store-memory=80000000"]
        own = (
            f"mount --bind {self.folder}/machine-id /etc/machine-id && mount --bind {self.folder}/ray {temporary}"
            f' && hostname {self.space} && exec ip netns exec {self.space} "$@"'
        )
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--uts", "sh", "-c", own, "sh", *command],
                env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL for every process of the machine."""
        while pids := run("ip", "netns", "pids", self.space).split():
            for pid in map(int, pids):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        self.process.wait(30)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CARBON_SCHED_"))}
        return {
            **kept,
            **self.nvml.environment,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "CARBON_SCHED_MACHINE_DIR": str(self.folder / "meeting"),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
        }


class RayMachines:
    """The cluster; `address` is its dashboard, reachable from here over the bridge."""

    def __init__(self, library: Path) -> None:
        self.library = library
        self.prefix = f"cst{os.getpid() % 100000}"  # names of interfaces have 15 characters
        self.subnet = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self.folder = Path(tempfile.mkdtemp(prefix="cs-t-"))  # short: Ray keeps sockets below it
        self.head, self.worker = RayMachine(self, "head", 2), RayMachine(self, "worker", 3)

    @property
    def address(self) -> str:
        return f"http://{self.head.ip}:{DASHBOARD_PORT}"

    def start(self) -> None:
        run("ip", "link", "add", f"{self.prefix}b", "type", "bridge")
        run("ip", "addr", "add", f"{self.subnet}.1/24", "dev", f"{self.prefix}b")
        run("ip", "link", "set", f"{self.prefix}b", "up")
        for number, machine in enumerate((self.head, self.worker), start=1):
            machine.wire()
            machine.start()
            self._wait_for(number)

    def stop(self) -> None:
        """Leave no process, namespace or interface behind, however far the start came."""
        for machine in (self.worker, self.head):
            if hasattr(machine, "process"):
                machine.kill()
            run("ip", "netns", "del", machine.space, check=False)
        run("ip", "link", "del", f"{self.prefix}b", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_for(self, nodes: int) -> None:
        deadline = time.monotonic() + READY_S
        while self._alive() < nodes:
            if time.monotonic() > deadline:
                logs = [(machine.folder / "log").read_text() for machine in (self.head, self.worker)]
                pytest.fail("\n".join(["Ray did not start on every machine:", *logs]))
            time.sleep(0.2)

    def _alive(self) -> int:
        try:
            with urllib.request.urlopen(f"{self.address}/api/v0/nodes", timeout=10) as answer:
                return answer.read().decode().count('"ALIVE"')
        except OSError:
            return 0


def require_namespaces() -> None:
    """Skip where machines cannot be separated."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "mount"))):
        pytest.skip("network namespaces need root, iproute2 and util-linux")
    probe = subprocess.run(["unshare", "--net", "--mount", "--uts", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no namespaces here: {probe.stderr.decode().strip()}")


def run(*command: str, check: bool = True) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=check).stdout
