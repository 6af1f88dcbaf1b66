"""A Ray head on this machine that we start, own and end: for people who have no cluster yet, and for the demo.

It runs in a session of its own with its own ports, temporary folder and token, and outlives the server that started it;
the next one adopts it again by pid, start time and boot id. `head.json` in the head's folder says which one it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carbon_sched.clusters import head_ports, processes
from carbon_sched.clusters.http import Endpoint
from carbon_sched.clusters.processes import Process
from carbon_sched.domain.cluster import LocalHead, SecretRef
from carbon_sched.domain.errors import ClusterUnclear, ClusterUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched.ports import Clock

# Inherited by everything the head starts, jobs included: how its last processes are found when it was killed.
MACHINE_DIR = "CARBON_SCHED_MACHINE_DIR"
"""Where the machine's meter keeps its state; the one variable of ours that jobs must share with each other."""
MARKER = "CARBON_SCHED_LOCAL_HEAD"
INSTALL_RAY = "Ray is not installed here. For a local cluster: pip install 'carbon-sched[local]'"
OBJECT_STORE_BYTES = 512 * 1024 * 1024
# Ray keeps sockets below its temporary folder, and a socket's path has at most 107 bytes (103 on macOS).
LONGEST_TEMP = 24
TERM_WAIT_S = 12.0
KILL_WAIT_S = PORTS_WAIT_S = 5.0
# A head that ends sooner than this failed to start; the next try waits longer each time.
FAILED_START_S = 30.0
LONGEST_PAUSE_S = 60.0
LOG_TAIL_BYTES = 20_000


@dataclass(frozen=True)
class HeadState:
    """What `head.json` holds; without a pid a start was begun and may not have happened."""

    base_port: int
    temp_dir: str
    pid: int = 0
    started: str = ""
    boot: str = ""

    @property
    def process(self) -> Process:
        """The head's own process, `ray start --block`."""
        return Process(self.pid, self.started, self.boot)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        _reap(self.pid)
        return bool(self.pid) and processes.alive(self.process)


class LocalRayHead:
    """One named local head. Thread-safe, and safe against other processes that start, adopt or stop the same one."""

    def __init__(self, name: str, folder: Path, wanted: LocalHead, clock: Clock, python: str = sys.executable) -> None:
        """`folder` is the head's own; `python` is the interpreter whose environment has Ray and runs the jobs."""
        self.name, self.folder, self.wanted, self.python = name, folder, wanted, python
        self._clock = clock
        self._mutex = threading.Lock()
        self._state: HeadState | None = None
        self._stopped = False
        self._failures = 0
        self._started_at = self._next_start = clock.monotonic()

    # the three things one can ask for ------------------------------------------------------------

    def endpoint(self) -> Endpoint:
        """Where the head is reached; adopts it or starts it when it does not run. Returns before Ray has come up.

        ClusterUnreachable when it cannot be started, ends at once, or was stopped by us.
        """
        with self._mutex:
            if self._stopped:
                raise ClusterUnreachable(f"the local Ray head {self.name!r} was stopped")
            if self._state is None or not self._state.alive:
                self._state = self._adopt_or_start()
            return self._endpoint(self._state)

    def running(self) -> bool:
        """Whether the head's process runs, whoever started it."""
        state = self._read()
        return state is not None and state.alive

    def log_folders(self) -> list[Path]:
        """The session logs of the head's life now and of those before, the newest first."""
        state = self._read()
        return sorted(Path(state.temp_dir).glob("session_2*/logs"), reverse=True) if state else []

    def stop(self) -> None:
        """End the head and everything it started, remove its temporary folder, and start it no more from here.

        SIGTERM to our own process, a bounded wait, then SIGKILL for what is left of its session and descendants.
        ClusterUnclear when something does not end even then.
        """
        with self._mutex:
            self._stopped = True
            if not self.folder.is_dir() and self._state is None:
                return
            # Where the folder was taken away nobody else finds this head.
            with self._locked() if self.folder.is_dir() else contextlib.nullcontext():
                state = self._read() or self._state
                if state is not None and state.alive:
                    processes.end([state.pid], signal.SIGTERM)
                    processes.wait_until(lambda: not state.alive, TERM_WAIT_S)
                self._sweep(state)
                if state is not None:
                    shutil.rmtree(Path(state.temp_dir).parent, ignore_errors=True)
                with contextlib.suppress(OSError):  # what it says counts for nothing once its process is gone
                    self._state_file.unlink(missing_ok=True)
                self._state = None

    # starting ------------------------------------------------------------------------------------

    def _adopt_or_start(self) -> HeadState:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            state = self._read()
            if state is not None and state.alive:
                return state
            self._check_pause()
            self._check_ray()
            self._sweep(state)
            return self._start(state)

    def _start(self, last: HeadState | None) -> HeadState:
        if last:  # what has just been killed may hold its ports for a moment yet
            processes.wait_until(lambda: head_ports.free(last.base_port), PORTS_WAIT_S)
        block = head_ports.claim(last.base_port if last else self._preferred_port())
        try:
            state = HeadState(block.base, self._temp_dir(last))
            self._write(state)
            state = self._spawn(state, block)
            self._write(state)
            self._started_at = self._clock.monotonic()
        finally:
            block.close()
        return state

    def _spawn(self, state: HeadState, block: head_ports.PortBlock) -> HeadState:
        # A head that was killed leaves this file, and Ray would take it for a running cluster.
        Path(state.temp_dir, "ray_current_cluster").unlink(missing_ok=True)
        with self._log_file.open("wb") as log, _kept(Path(state.temp_dir).parent) as kept:
            child = subprocess.Popen(
                self._command(state),
                env=self._environment(state),
                cwd=Path(state.temp_dir).parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(block.lock, kept),
            )
        child.returncode = 0  # it outlives this object, and us: from here on it is known by its pid alone
        # One that has ended already is noticed at the next look, like one that ends a second later.
        process = processes.process(child.pid) or Process(child.pid, "", "")
        return HeadState(state.base_port, state.temp_dir, process.pid, process.started, process.boot)

    def _command(self, state: HeadState) -> list[str]:
        # On Linux all of 127/8 is this machine. Ray replaces 127.0.0.1 by the address of the network of the moment,
        # which a laptop loses on its way home; 127.0.0.2 it leaves alone, and nobody outside is told of it.
        node_ip = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
        ports = {
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
        command = [str(self._interpreter(state)), "-m", "ray.scripts.scripts"]
        command += ["start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--{flag}={state.base_port + offset}" for flag, offset in ports.items()]
        command += [f"--node-ip-address={node_ip}", "--dashboard-host=127.0.0.1", f"--temp-dir={state.temp_dir}"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # any free port
        command += [f"--num-cpus={self._cpus()}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        if self.wanted.gpus is not None:
            command.append(f"--num-gpus={self.wanted.gpus}")
        return command

    def _interpreter(self, state: HeadState) -> Path:
        """Our Python by a path without blanks: Ray does not quote the one it finds itself under."""
        python = Path(self.python)
        if not any(letter.isspace() for letter in self.python):
            return python
        alias = Path(state.temp_dir).parent / "python"
        if not alias.is_symlink():
            alias.symlink_to(python.parent.parent)
        return alias / python.parent.name / python.name

    def _environment(self, state: HeadState) -> dict[str, str]:
        """Ours without what steers this server or another Ray: jobs inherit it."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name == MACHINE_DIR or not name.startswith(("RAY_", "CARBON_SCHED_"))
        }
        folder = str(self._interpreter(state).parent)
        return {
            **kept,
            # `python` in an entrypoint must be the one that has Ray.
            "PATH": f"{folder}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token()),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            # How long what a finished job gave back stays unseen; 5 s by default.
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "AUTOSCALER_METRIC_PORT": str(state.base_port + head_ports.AUTOSCALER_METRICS),
            "DASHBOARD_METRIC_PORT": str(state.base_port + head_ports.DASHBOARD_METRICS),
            MARKER: str(self.folder.absolute()),
        }

    def _cpus(self) -> int:
        if self.wanted.cpus is not None:
            return self.wanted.cpus
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def _preferred_port(self) -> int:
        return head_ports.preferred_base(zlib.crc32(str(self.folder.absolute()).encode()))

    def _temp_dir(self, last: HeadState | None) -> str:
        """Ray's temporary folder, open to everybody by Ray's own doing, inside one that is open to us only."""
        if last is not None and Path(last.temp_dir).parent.is_dir():
            return last.temp_dir
        where = tempfile.gettempdir()
        short = where if len(where) <= LONGEST_TEMP else "/tmp"  # noqa: S108 - mkdtemp makes it ours
        return str(Path(tempfile.mkdtemp(prefix="cs-ray-", dir=short), "r"))

    def _token(self) -> Path:
        path = self.folder / "token"
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32))
        return path

    # failing -------------------------------------------------------------------------------------

    def _check_ray(self) -> None:
        if self.python == sys.executable and importlib.util.find_spec("ray") is None:
            raise ClusterUnreachable(INSTALL_RAY)

    def _check_pause(self) -> None:
        """Do not start again at once a head that keeps failing; say why it failed meanwhile."""
        now = self._clock.monotonic()
        if self._state is not None:
            lived_s = now - self._started_at
            self._failures = self._failures + 1 if lived_s < FAILED_START_S else 0
            pause_s = min(2.0**self._failures, LONGEST_PAUSE_S) if self._failures else 0.0
            self._next_start = now + pause_s
            self._state = None
        if now < self._next_start:
            raise ClusterUnreachable(self._ended())

    def _ended(self) -> str:
        lines: list[str] = []
        with contextlib.suppress(OSError):
            text = self._log_file.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
        if any("No module named 'ray'" in line for line in lines):
            return INSTALL_RAY
        last = lines[-1] if lines else "it said nothing"
        return (
            f"the local Ray head {self.name!r} ended soon after its start: {last[:300]} (all of it: {self._log_file})"
        )

    def _sweep(self, state: HeadState | None) -> None:
        """Kill what a head left behind: by its session, and by the mark in the environment of all it started."""
        marker = f"{MARKER}={self.folder.absolute()}"
        # Unless its number was given to somebody else since, a session keeps its dead leader's.
        reused = state is None or not state.pid or state.boot != processes.boot_id() or _taken_by_other(state.process)
        leader = 0 if state is None or reused else state.pid

        def nothing_left() -> bool:
            left = processes.members(leader, marker) if leader else processes.members(-1, marker)
            processes.end(left, signal.SIGKILL)
            return not left

        if not processes.wait_until(nothing_left, KILL_WAIT_S):
            raise ClusterUnclear(f"processes of the local Ray head {self.name!r} do not end; see `ps` for {marker}")

    # files ---------------------------------------------------------------------------------------

    @property
    def _state_file(self) -> Path:
        return self.folder / "head.json"

    @property
    def _log_file(self) -> Path:
        return self.folder / "head.log"

    def _endpoint(self, state: HeadState) -> Endpoint:
        address = f"http://127.0.0.1:{state.base_port + head_ports.DASHBOARD}"
        return Endpoint(self.name, address, SecretRef(file=str(self.folder / "token")))

    def _read(self) -> HeadState | None:
        try:
            return HeadState(**json.loads(self._state_file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None  # none, or cut short: what it named is found by its mark

    def _write(self, state: HeadState) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix=".head-", delete=False, encoding="utf-8") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(self._state_file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time among all processes; falls with its holder."""
        path = self.folder / "lock"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:  # a disk that can only be read has its lock all the same
            handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[int]:
    """A handle that keeps systemd-tmpfiles from clearing a folder of old files while whoever inherits it lives."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(BlockingIOError):  # one is clearing it right now: what we need is all new
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle
    finally:
        os.close(handle)


def _reap(pid: int) -> None:
    """Take the exit status of a head that is our own child; else it would stay as a zombie."""
    if pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _taken_by_other(one: Process) -> bool:
    now = processes.process(one.pid)
    return now is not None and now != one
