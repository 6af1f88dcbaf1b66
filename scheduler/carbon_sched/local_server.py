"""The server of this user on this machine: finding it, starting it exactly once, ending it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from carbon_sched import __version__, systemd
from carbon_sched.clusters import processes
from carbon_sched.domain.errors import Conflict, NotAllowed, ServerUnavailable
from carbon_sched.server_files import ServerFiles, explained, later, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from carbon_sched.server_files import Running

START_S = 120.0
"""Longest start that is waited for; the first one creates the database."""
HANDOVER_S = 45.0
"""Longest end of another server that is waited for; ending Ray heads may take half a minute."""
TERMINATE_S = 15.0
DYING_S = 1.0
OUR_EXIT_CODES = range(120, 127)
LOG_LIMIT = 10 * 1024 * 1024


class LocalServer:
    """Finds, starts and ends the server of one data folder. `say` is told what takes longer than a second."""

    def __init__(self, data_dir: Path, say: Callable[[str], None], *, command: Sequence[str] | None = None) -> None:
        self.files, self._say = ServerFiles(data_dir), say
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._log_began = 0

    def find(self) -> Running | None:
        """The server that runs now, or None; what a crash or a reboot left behind counts for nothing.

        Raises Conflict for a folder that a server on another machine holds.
        """
        running = self.files.read()
        if running is None or processes.alive(running.process):
            return running
        if running.host != os.uname().nodename and self.files.in_use():
            raise Conflict(
                f"a server on {running.host} uses {self.files.data_dir} (pid {running.pid}); "
                "stop it there, or set CARBON_SCHED_DATA_DIR to a folder of this machine"
            )
        return None

    def crashed(self) -> bool:
        """Whether the last server ended without saying so; one that was just killed is given a moment to be gone."""
        running = self.files.read()
        return running is not None and wait_until(lambda: not processes.alive(running.process), DYING_S)

    def ensure(self, *, busy: Callable[[Running], bool], end: Callable[[Running], None]) -> Running:
        """The running server; starts one where there is none, and replaces an older one that has nothing to do.

        `busy(running)` tells whether it has jobs, `end(running)` asks it to end and leave its clusters running.
        """
        running = self.find()
        if running is not None and not self._outdated(running, busy):
            return running
        with self.files.starting(self._say, START_S):
            running = self.find()
            if running is not None and self._outdated(running, busy):
                self._say(f"replacing the idle server of carbon-sched {running.version} by {__version__}")
                end(running)
                self._wait_for_end()
                running = self.find()
            return running or self._start()

    def stop(self, running: Running, ask: Callable[[], None]) -> None:
        """End this server: `ask` it, then, where that does not help, by signals. Returns once it is gone."""
        with contextlib.suppress(ServerUnavailable, NotAllowed):
            ask()
            if self._gone(running, HANDOVER_S):
                return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if processes.alive(running.process):
                self._say(f"the server (pid {running.pid}) does not end; sending {number.name}")
                processes.end([running.pid], number)
                if self._gone(running, TERMINATE_S):
                    break
        if processes.alive(running.process):
            raise ServerUnavailable(f"the server (pid {running.pid}) could not be ended; see {self.files.log}")
        if self.files.read() == running:  # it was killed, and could not take its word back
            self.files.forget()

    def _gone(self, running: Running, timeout_s: float) -> bool:
        ended = later(self._say, "waiting for the server and its clusters to end")
        return wait_until(lambda: not processes.alive(running.process), timeout_s, ended)

    def _outdated(self, running: Running, busy: Callable[[Running], bool]) -> bool:
        """Whether it should be replaced by ours; says so where it should, but works."""
        theirs, ours = _version(running.version), _version(__version__)
        if theirs == ours:
            return False
        if theirs > ours:
            self._say(f"the server is carbon-sched {running.version}, newer than this command ({__version__})")
            return False
        if busy(running):
            self._say(f"the server is still carbon-sched {running.version}; it is replaced once it has no jobs")
            return False
        return True

    def _wait_for_end(self) -> None:
        waiting = later(self._say, "waiting for the last server to end")
        if not wait_until(lambda: not self.files.in_use(), HANDOVER_S, waiting):
            raise ServerUnavailable(f"the last server does not end; see {self.files.log}")

    def _start(self) -> Running:
        """Start a server; called by the holder of the start lock only."""
        if self.files.in_use():  # one that was started by hand and is not ready yet, or one that is ending
            ready = later(self._say, "waiting for a server that is starting or ending")
            wait_until(lambda: self.find() is not None or not self.files.in_use(), HANDOVER_S, ready)
            if running := self.find():
                return running
        first = "" if self.files.log.exists() else " (the first start creates its database)"
        self._child = self._launch()
        waiting = later(self._say, f"starting the local server{first}")
        wait_until(lambda: self._ready() is not None or self._ended(), START_S, waiting)
        if running := self._ready():
            return running
        raise self._not_started(self._child)

    def _not_started(self, child: subprocess.Popen[bytes]) -> ServerUnavailable:
        """What it said of its end, with its own exit code where that is one of ours; one that hangs is ended."""
        code = child.poll()
        if code is None:
            child.terminate()
            child.wait(TERMINATE_S)
        why = f"not ready within {START_S:g} s" if code is None else f"it ended with exit code {code}"
        said = self.files.log_tail(since=self._log_began)
        error = ServerUnavailable(f"the local server did not start: {why}. Its log, {self.files.log}, ends:\n{said}")
        if code is not None and code in OUR_EXIT_CODES:
            words = said.rpartition("error: ")[2]
            error = ServerUnavailable(f"the local server did not start: {words} (its log: {self.files.log})")
            error.exit_code = code
        return error

    def _ready(self) -> Running | None:
        running = self.files.read()
        return running if running is not None and processes.alive(running.process) else None

    def _ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    def _launch(self) -> subprocess.Popen[bytes]:
        """Start the process in a session of its own, so that it survives this command, its terminal and Ctrl-C."""
        with explained(self.files.data_dir):
            if self.files.log_size() > LOG_LIMIT:
                self.files.log.replace(self.files.log.with_suffix(".log.1"))
            self._log_began = self.files.log_size()
            descriptor = os.open(self.files.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                return subprocess.Popen(
                    self._command or _serve(self.files.data_dir),
                    stdin=subprocess.DEVNULL,
                    stdout=descriptor,
                    stderr=descriptor,
                    cwd=self.files.data_dir,
                    start_new_session=True,
                    env=_environment(),
                )
            finally:
                os.close(descriptor)


def _serve(data_dir: Path) -> Sequence[str]:
    """What starts a server: its unit where that is installed, else a process of ours."""
    if systemd.runs_server_of(data_dir):
        return systemd.START
    return [sys.executable, "-m", "carbon_sched.cli.main", "serve", "--data-dir", str(data_dir)]


def _environment() -> dict[str, str]:
    """Ours, without what points commands at another server: the server is nobody's client."""
    ours = ("CARBON_SCHED_URL", "CARBON_SCHED_TOKEN", "CARBON_SCHED_TOKEN_FILE", "CARBON_SCHED_DATA_DIR")
    return {key: value for key, value in systemd.environment().items() if key not in ours}


def _version(text: str) -> tuple[tuple[int, ...], bool, str]:
    """Orders `0.1.0.dev1 < 0.1.0 < 0.2.0`."""
    numbers: list[int] = []
    parts = text.split(".")
    while parts and parts[0].isdigit():
        numbers.append(int(parts.pop(0)))
    return tuple(numbers), not parts, ".".join(parts)
