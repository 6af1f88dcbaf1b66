"""The server of this user on this machine: its files, finding it, starting it exactly once, ending it.

In the data folder:

    server.json   where it listens and which process it is; written when it is ready, removed when it ends in order
    server.lock   held (flock) by the server as long as it lives; names its host, pid and boot for messages
    start.lock    held (flock) by whoever is starting one, so that two commands start one server
    token         the API's token, readable by the user alone
    server.log    what it prints

Locks die with their process, so nothing has to be cleaned by hand after a crash or a reboot.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from carbon_sched import __version__, systemd
from carbon_sched.clusters import processes
from carbon_sched.domain.errors import Conflict, InvalidInput, NotAllowed, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

START_S = 120.0
"""Longest start that is waited for; the first one creates the database."""
HANDOVER_S = 45.0
"""Longest end of another server that is waited for; ending Ray heads may take half a minute."""
TERMINATE_S = 15.0
DYING_S = 1.0
POLL_S = 0.03
LOG_LIMIT = 10 * 1024 * 1024
LOG_SHOWN = 8


@dataclass(frozen=True)
class Running:
    """A server as server.json tells of it; `started` and `boot` make the pid unmistakable."""

    url: str
    pid: int
    started: str
    boot: str
    host: str
    version: str

    @property
    def process(self) -> processes.Process:
        """Its process."""
        return processes.Process(self.pid, self.started, self.boot)


class ServerFiles:
    """The files that a server and the commands that look for it share."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.state, self.log = data_dir / "server.json", data_dir / "server.log"
        self._token, self._lock, self._start_lock = (data_dir / name for name in ("token", "server.lock", "start.lock"))

    def prepare(self) -> None:
        """Make the data folder, for the user alone; InvalidInput when it cannot be written."""
        with _explained(self.data_dir):
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(self.data_dir, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")

    # the server's side ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the one server of this folder; Conflict where another one lives."""
        self.prepare()
        with _locked(self._lock, timeout_s=1.0) as held:
            if not held:
                raise Conflict(f"another server uses {self.data_dir} already ({self._holder()}); stop it first")
            yield

    def token(self, make: Callable[[], str]) -> str:
        """The API's token; made by `make` on the first start. For the holder of the server's lock."""
        self.prepare()
        if not self._token.exists():
            with _explained(self.data_dir):
                _write_privately(self._token, make() + "\n")
        return self.read_token()

    def announce(self, url: str) -> None:
        """Say that this process serves at `url`."""
        own = processes.process(os.getpid())
        if own is None:
            raise ServerUnavailable("this process cannot be identified: neither /proc nor `ps` tells its start time")
        running = Running(url, own.pid, own.started, own.boot, os.uname().nodename, __version__)
        with _explained(self.data_dir):
            _write_privately(self.state, json.dumps(asdict(running)) + "\n")

    def withdraw(self) -> None:
        """Say that this process serves no more."""
        running = self.read()
        if running is not None and running.pid == os.getpid():
            self.state.unlink(missing_ok=True)

    # everybody's side ----------------------------------------------------------------------------

    def read(self) -> Running | None:
        """What server.json says, true or not; None where there is none, or nothing readable in it."""
        try:
            content = json.loads(self.state.read_text(encoding="utf-8"))
            return Running(**content)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise _not_ours(self.state, error) from None
        except (OSError, ValueError, TypeError):
            return None

    def read_token(self) -> str:
        """The token; NotAllowed where it is not there, not ours, or readable by others."""
        try:
            info = self._token.stat()
            text = self._token.read_text(encoding="utf-8").strip()
        except PermissionError as error:
            raise _not_ours(self._token, error) from None
        except (OSError, ValueError) as error:
            raise NotAllowed(f"the server's token {self._token} cannot be read: {error}") from None
        if not text:
            raise NotAllowed(f"the server's token {self._token} is empty; remove it and start the server again")
        if info.st_mode & 0o077:
            raise NotAllowed(f"{self._token} can be read by other users; run: chmod 600 '{self._token}'")
        return text

    def in_use(self) -> bool:
        """Whether a server holds this folder, ready or not."""
        if not self._lock.exists():
            return False
        with _locked(self._lock, timeout_s=0.0, write=False) as held:
            return not held

    @contextlib.contextmanager
    def starting(self, say: Callable[[str], None]) -> Iterator[None]:
        """Be the only one who starts a server; waits for another one who is at it."""
        self.prepare()
        waiting = _later(say, "another command is starting the local server")
        with _locked(self._start_lock, timeout_s=START_S, meanwhile=waiting) as held:
            if not held:
                raise ServerUnavailable(f"another command has been starting a server for {START_S:g} s; see {self.log}")
            yield

    def log_tail(self, lines: int = LOG_SHOWN) -> str:
        """The last lines of server.log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 100_000))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _holder(self) -> str:
        try:
            owner = json.loads(self._lock.read_text(encoding="utf-8"))
            return f"pid {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "it does not say who"


class LocalServer:
    """Finds, starts and ends the server of one data folder. `say` is told what takes longer than a second."""

    def __init__(self, data_dir: Path, say: Callable[[str], None], *, command: Sequence[str] | None = None) -> None:
        self.files, self._say = ServerFiles(data_dir), say
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None

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
        return running is not None and _wait_until(lambda: not processes.alive(running.process), DYING_S)

    def ensure(self, *, busy: Callable[[Running], bool], end: Callable[[Running], None]) -> Running:
        """The running server; starts one where there is none, and replaces an older one that has nothing to do.

        `busy(running)` tells whether it has jobs, `end(running)` asks it to end and leave its clusters running.
        """
        running = self.find()
        if running is not None and not self._outdated(running, busy):
            return running
        with self.files.starting(self._say):
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
            self.files.state.unlink(missing_ok=True)

    def _gone(self, running: Running, timeout_s: float) -> bool:
        ended = _later(self._say, "waiting for the server and its clusters to end")
        return _wait_until(lambda: not processes.alive(running.process), timeout_s, ended)

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
        waiting = _later(self._say, "waiting for the last server to end")
        if not _wait_until(lambda: not self.files.in_use(), HANDOVER_S, waiting):
            raise ServerUnavailable(f"the last server does not end; see {self.files.log}")

    def _start(self) -> Running:
        """Start a server; called by the holder of the start lock only."""
        if self.files.in_use():  # one that was started by hand and is not ready yet, or one that is ending
            ready = _later(self._say, "waiting for a server that is starting or ending")
            _wait_until(lambda: self.find() is not None or not self.files.in_use(), HANDOVER_S, ready)
            if running := self.find():
                return running
        first = "" if self.files.log.exists() else " (the first start creates its database)"
        self._child = self._launch()
        waiting = _later(self._say, f"starting the local server{first}")
        _wait_until(lambda: self._ready() is not None or self._ended(), START_S, waiting)
        if running := self._ready():
            return running
        said = self.files.log_tail()
        why = f"it ended with exit code {self._child.poll()}" if self._ended() else f"not ready within {START_S:g} s"
        if not self._ended():
            self._child.terminate()
            self._child.wait(TERMINATE_S)
        raise ServerUnavailable(f"the local server did not start: {why}. Its log, {self.files.log}, ends:\n{said}")

    def _ready(self) -> Running | None:
        running = self.files.read()
        return running if running is not None and processes.alive(running.process) else None

    def _ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    def _launch(self) -> subprocess.Popen[bytes]:
        """Start the process in a session of its own, so that it survives this command, its terminal and Ctrl-C."""
        with _explained(self.files.data_dir):
            with contextlib.suppress(FileNotFoundError):
                if self.files.log.stat().st_size > LOG_LIMIT:
                    self.files.log.replace(self.files.log.with_suffix(".log.1"))
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


@contextlib.contextmanager
def _locked(
    path: Path, *, timeout_s: float, write: bool = True, meanwhile: Callable[[], None] | None = None
) -> Iterator[bool]:
    """Hold the lock on `path` while inside; False inside where somebody else held it for `timeout_s`."""
    with _explained(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    kind = fcntl.LOCK_EX if write else fcntl.LOCK_SH
    try:
        with _explained(path.parent):
            held = _wait_until(lambda: _flock(descriptor, kind), timeout_s, meanwhile)
            if held and write:
                owner = {"host": os.uname().nodename, "pid": os.getpid(), "boot": processes.boot_id()}
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield held
    finally:
        os.close(descriptor)  # and with it the lock


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_until(done: Callable[[], bool], timeout_s: float, meanwhile: Callable[[], None] | None = None) -> bool:
    """Look until `done`; False when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline:
            return False
        if meanwhile is not None:
            meanwhile()
        time.sleep(POLL_S)
    return True


def _later(say: Callable[[str], None], text: str) -> Callable[[], None]:
    """Something to call again and again that says `text` once, after a second."""
    since, said = time.monotonic(), False

    def tick() -> None:
        nonlocal said
        if not said and time.monotonic() - since >= 1:
            said = True
            say(text)

    return tick


def _write_privately(path: Path, text: str) -> None:
    """Replace a file whole, readable by the user alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


@contextlib.contextmanager
def _explained(data_dir: Path) -> Iterator[None]:
    """Turn what the filesystem refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        remedy = "Set CARBON_SCHED_DATA_DIR to a folder on a local disk that you can write"
        raise InvalidInput("data-dir", data_dir, f"cannot be used ({error.strerror or error})", remedy) from None


def _not_ours(path: Path, error: Any) -> NotAllowed:
    return NotAllowed(
        f"{path}: {error.strerror}; it belongs to another user: set CARBON_SCHED_DATA_DIR to a folder of your own"
    )
