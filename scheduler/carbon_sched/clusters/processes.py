"""Processes of this machine, named so that a number used again is not mistaken: pid, start time and boot id."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Iterator

PROC = Path("/proc")
POLL_S = 0.02
# Fields of /proc/<pid>/stat after the command's closing bracket, which is field 2: state is 3, start time 22.
_STATE, _PARENT, _SESSION, _START = 0, 1, 3, 19
_DEAD = "ZXx"


@dataclass(frozen=True)
class Process:
    """One process in one life of the machine; `started` is opaque (clock ticks since boot on Linux)."""

    pid: int
    started: str
    boot: str


def process(pid: int) -> Process | None:
    """The live process with this number; None when there is none, or it ended and waits to be reaped."""
    started = _linux_start(pid) if PROC.is_dir() else _ps_start(pid)
    return Process(pid, started, boot_id()) if started else None


def alive(one: Process) -> bool:
    """Whether this very process still runs."""
    return process(one.pid) == one


def boot_id() -> str:
    """What names the present life of this machine."""
    with contextlib.suppress(OSError):
        return (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    return _output("sysctl", "-n", "kern.bootsessionuuid")


def members(leader: int, marker: str) -> set[int]:
    """The pids of the session `leader`, and of all processes that inherited the environment entry `marker`.

    Processes that rewrite their title lose their environment, those that open a session of their own leave the
    leader's: Ray has both kinds. So the sessions of those found by the mark count too: only a descendant can have
    opened them. Ourselves and those we descend from are never among the pids.
    """
    ours = _lineage()
    if not PROC.is_dir():
        rows = (line.split() for line in _output("ps", "-A", "-o", "pid=,pgid=,user=").splitlines())
        return {int(pid) for pid, group, *_ in rows if int(group) == leader} - ours
    sessions = {pid: session for pid, session in _sessions() if pid not in ours}
    marked = {pid for pid in sessions if _is_marked(pid, marker.encode())}
    wanted = {leader, *(sessions[pid] for pid in marked)}
    return marked | {pid for pid, session in sessions.items() if session in wanted}


def end(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Look every 20 ms until `done`; False when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _sessions() -> Iterator[tuple[int, int]]:
    """(pid, session) of every live process of our user."""
    for entry in PROC.iterdir():
        with contextlib.suppress(OSError):  # it ended while we looked
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                fields = _stat(int(entry.name))
                if fields[_STATE] not in _DEAD:
                    yield int(entry.name), int(fields[_SESSION])


def _is_marked(pid: int, marker: bytes) -> bool:
    try:
        return marker in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _lineage() -> set[int]:
    pids = {os.getpid(), os.getppid()}
    with contextlib.suppress(OSError):
        pid = os.getppid()
        while pid > 1:
            pid = int(_stat(pid)[_PARENT])
            pids.add(pid)
    return pids


def _stat(pid: int) -> list[str]:
    """The fields behind the command, which may itself hold blanks and brackets."""
    return (PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()


def _linux_start(pid: int) -> str:
    try:
        fields = _stat(pid)
    except OSError:
        return ""
    return "" if fields[_STATE] in _DEAD else fields[_START]


def _ps_start(pid: int) -> str:
    state, _, started = _output("ps", "-o", "state=,lstart=", "-p", str(pid)).partition(" ")
    return "" if state[:1] in _DEAD else started.strip()


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()
