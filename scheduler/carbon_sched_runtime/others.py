"""The other nodes of a job, as its wrapper sees them: are there any, and the helper process that has them metered.

On a cluster of one node nothing is started and Ray is not imported: whether there are more hosts is read off the
connections of the cluster's control store (GCS) that this host's kernel lists. The helper (`nodes.py`) speaks in JSON
lines on its standard output; what it says goes into the attempt's record.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import Any, Callable

LOOK_S = 5.0
ALONE_AGAIN_S = 300.0  # a peer of the control store was no node (a remote driver): look again after this long
AGAIN_S = 60.0
STARTS = 5
EVENTS_KEPT = 200  # the record has a size limit, and one that is over it cannot be read at all
LINE_LIMIT = 64 * 1024
ALONE = 3  # the helper's exit code when it found a single node

ESTABLISHED = "01"
FIELDS = {"node": ("node_id", "machine", "boot", "role"), "node-closed": ("node_id", "segments", "reason", "journal")}


def several_hosts(gcs_address: str, proc: str = "/proc") -> bool:
    """Whether hosts other than this one are connected to the control store at `IP:PORT`, or it is itself elsewhere.

    Reads the kernel's tables of TCP connections; False when they tell nothing.
    """
    port = gcs_address.rpartition(":")[2]
    if not port.isdigit():
        return False
    wanted = f"{int(port):04X}"
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"{proc}/net/{table}", encoding="ascii") as file:
            next(file, "")
            for line in file:
                _, local, remote, state, *_ = line.split(None, 4)
                here, _, here_port = local.rpartition(":")
                there, _, there_port = remote.rpartition(":")
                ours = state == ESTABLISHED and wanted in (here_port, there_port)
                if ours and here != there and not _is_loopback(there):
                    return True
    return False


def _is_loopback(address: str) -> bool:
    """As the kernel prints it, low byte first: IPv4 of 127.0.0.0/8 ends in 7F, also where it is mapped into IPv6."""
    return address.endswith("7F") or address == "0" * 24 + "01000000"


class OtherNodes:
    """Starts the helper once there are other nodes, and passes on what it reports. Never raises but OSError."""

    def __init__(self, attempt: str, report: Callable[..., None], proc: str = "/proc") -> None:
        self._attempt, self._report, self._proc = attempt, report, proc
        self._gcs = os.environ.get("RAY_ADDRESS", "")
        self._next_look = 0.0
        self._starts = 0
        self._events = 0
        self._ending = False
        self._rest = b""
        self._pid: int | None = None
        self._in = self._out = -1

    @property
    def pid(self) -> int | None:
        """The helper's process id while it runs."""
        return self._pid

    def beat(self) -> None:
        """Look whether there are other hosts, start the helper, hear what it says."""
        if self._pid is not None:
            self._hear()
        elif self._gcs and self._starts < STARTS and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_S
            if several_hosts(self._gcs, self._proc):
                self._start()

    def hurry(self) -> None:
        """A stop signal came: have the other nodes close their segments now."""
        self._say(b"hurry\n")

    def end(self) -> None:
        """The job ended: have the other nodes close their journals. Returns at once; `wait` sees it done."""
        self._ending = True
        self._say(b"end\n")

    def wait(self, timeout_s: float) -> str | None:
        """Wait for the helper's end; what is missing when it did not come, or None."""
        deadline = time.monotonic() + timeout_s
        while self._pid is not None and time.monotonic() < deadline:
            self._hear()
            time.sleep(0.02)
        if self._pid is None:
            return None
        # Its actors end with it; whoever meters those nodes next goes on from their checkpoints.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._reap(block=True, killed=True)
        missing = f"the meters of other nodes did not close their journals within {timeout_s:g} s"
        self._report("fault", reason=missing)
        return missing

    def _start(self) -> None:
        self._starts += 1
        heard, said = os.pipe2(os.O_CLOEXEC)
        commands, self._in = os.pipe2(os.O_CLOEXEC)
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self._out, self._rest = heard, b""
        os.set_blocking(heard, False)
        os.set_blocking(self._in, False)
        moves = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate((commands, said, nothing))]
        command = [sys.executable, "-m", "carbon_sched_runtime.nodes", self._attempt]
        try:
            self._pid = os.posix_spawn(sys.executable, command, _environment(), file_actions=moves)
        finally:
            for descriptor in (commands, said, nothing):
                os.close(descriptor)

    def _say(self, words: bytes) -> None:
        if self._pid is not None:
            with contextlib.suppress(BrokenPipeError, BlockingIOError):
                os.write(self._in, words)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = os.read(self._out, 65536)
                if not data:
                    self._reap(block=False)
                    return
                *lines, self._rest = (self._rest + data).split(b"\n")
                self._rest = self._rest[:LINE_LIMIT]
                for line in lines:
                    self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict) or said.get("event") not in (*FIELDS, "fault"):
            said = {"event": "fault", "reason": "the meter of other nodes said something unknown"}
        self._events += 1
        if self._events > EVENTS_KEPT:
            return
        if self._events == EVENTS_KEPT:
            said = {"event": "fault", "reason": "more happened on other nodes than this record holds"}
        self._report(said["event"], **{name: said.get(name) for name in FIELDS.get(said["event"], ("reason",))})

    def _reap(self, *, block: bool, killed: bool = False) -> None:
        if self._pid is None:
            return
        pid, status = os.waitpid(self._pid, 0 if block else os.WNOHANG)
        if not pid:
            return
        self._pid = None
        os.close(self._in)
        os.close(self._out)
        code = os.waitstatus_to_exitcode(status)
        self._next_look = time.monotonic() + (ALONE_AGAIN_S if code == ALONE else AGAIN_S)
        if code == ALONE:
            self._starts -= 1
        elif not killed and (code or not self._ending):
            self._report("fault", reason=f"the meter of other nodes ended by itself with {code}")


def _environment() -> dict[str, str]:
    """The helper's environment: not the job's runtime_env, or Ray would take the helper for the job's driver."""
    environment: dict[str, str] = dict(os.environ)
    environment["PYTHONPATH"] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment["CARBON_SCHED_PACKAGES"] = json.dumps(our_packages(environment.pop("RAY_JOB_CONFIG_JSON_ENV_VAR", "")))
    environment.pop("RAY_OVERRIDE_JOB_RUNTIME_ENV", None)
    return environment


def our_packages(job_config: str) -> list[str]:
    """The URIs of `py_modules` in a Ray job's config (JSON) that carry this package; all where none is named so."""
    try:
        config: Any = json.loads(job_config or "{}")
        uris = [str(uri) for uri in config["runtime_env"].get("py_modules", [])]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []
    return [uri for uri in uris if "/_ray_pkg_cs" in uri] or uris
