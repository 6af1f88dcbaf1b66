"""The files that the server of one data folder and the commands that look for it share.

    server.json   where it listens and which process it is; written when it is ready, removed when it ends in order
    server.lock   held (flock) by the server as long as it lives; names its host, pid and boot for messages
    start.lock    held (flock) by whoever is starting one, so that two commands start one server
    token         the API's token, readable by the user alone
    server.log    what it prints

Locks die with their process, so nothing has to be cleaned by hand after a crash or a reboot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from carbon_sched import __version__
from carbon_sched.clusters import processes
from carbon_sched.domain.errors import Conflict, InvalidInput, NotAllowed, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

POLL_S = 0.03
LOG_SHOWN = 8
ANOTHER_FOLDER = "set CARBON_SCHED_DATA_DIR to a folder on a local disk that you can write"


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
    """Reads and writes them; a command uses one half of it, the server the other."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.state, self.log = data_dir / "server.json", data_dir / "server.log"
        self._token, self._lock, self._start_lock = (data_dir / name for name in ("token", "server.lock", "start.lock"))
        self._held: os.stat_result | None = None

    def prepare(self) -> None:
        """Make the data folder, for the user alone; InvalidInput when it cannot be written, or has no room left."""
        with explained(self.data_dir):
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            disk, number = os.statvfs(self.data_dir), 0
            if not os.access(self.data_dir, os.R_OK | os.W_OK | os.X_OK):
                number = errno.EROFS if disk.f_flag & os.ST_RDONLY else errno.EACCES
            elif disk.f_blocks and not disk.f_bavail:  # a server could not even write why it does not start
                number = errno.ENOSPC
            if number:
                raise OSError(number, os.strerror(number))

    # the server's side ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the one server of this folder; Conflict where another one lives."""
        self.prepare()
        with _locked(self._lock, timeout_s=1.0) as held:
            if not held:
                raise Conflict(f"another server uses {self.data_dir} already ({self._holder()}); stop it first")
            self._held = self._lock.stat()
            yield

    def lost(self) -> bool:
        """Whether the folder that this server holds was removed, or another one put in its place."""
        try:
            return self._held is not None and not os.path.samestat(self._held, self._lock.stat())
        except FileNotFoundError:
            return True
        except OSError:  # a disk that does not answer may do so again
            return False

    def token(self, make: Callable[[], str]) -> str:
        """The API's token; made by `make` on the first start. For the holder of the server's lock."""
        self.prepare()
        if not self._token.exists():
            with explained(self.data_dir):
                _write_privately(self._token, make() + "\n")
        return self.read_token()

    def announce(self, url: str) -> None:
        """Say that this process serves at `url`."""
        own = processes.process(os.getpid())
        if own is None:
            raise ServerUnavailable("this process cannot be identified: neither /proc nor `ps` tells its start time")
        running = Running(url, own.pid, own.started, own.boot, os.uname().nodename, __version__)
        with explained(self.data_dir):
            _write_privately(self.state, json.dumps(asdict(running)) + "\n")

    def withdraw(self) -> None:
        """Say that this process serves no more."""
        running = self.read()
        if running is not None and running.pid == os.getpid():
            self.forget()

    def forget(self) -> None:
        """Remove server.json; where that cannot be done, what it says counts for nothing once its process is gone."""
        with contextlib.suppress(OSError):
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
    def starting(self, say: Callable[[str], None], timeout_s: float) -> Iterator[None]:
        """Be the only one who starts a server; waits for another one who is at it, up to `timeout_s`."""
        self.prepare()
        waiting = later(say, "another command is starting the local server")
        with _locked(self._start_lock, timeout_s=timeout_s, meanwhile=waiting) as held:
            if not held:
                message = f"another command has been starting a server for {timeout_s:g} s; see {self.log}"
                raise ServerUnavailable(message)
            yield

    def log_size(self) -> int:
        """Bytes of server.log so far; NotAllowed in another user's folder."""
        try:
            return self.log.stat().st_size
        except FileNotFoundError:
            return 0
        except PermissionError as error:
            raise _not_ours(self.log, error) from None

    def log_tail(self, lines: int = LOG_SHOWN, *, since: int = 0) -> str:
        """The last lines of server.log, none of them from before byte `since`."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(since, file.seek(0, os.SEEK_END) - 100_000))
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


@contextlib.contextmanager
def _locked(
    path: Path, *, timeout_s: float, write: bool = True, meanwhile: Callable[[], None] | None = None
) -> Iterator[bool]:
    """Hold the lock on `path` while inside; False inside where somebody else held it for `timeout_s`."""
    with explained(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    kind = fcntl.LOCK_EX if write else fcntl.LOCK_SH
    try:
        with explained(path.parent):
            held = wait_until(lambda: _flock(descriptor, kind), timeout_s, meanwhile)
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


def wait_until(done: Callable[[], bool], timeout_s: float, meanwhile: Callable[[], None] | None = None) -> bool:
    """Look until `done`; False when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline:
            return False
        if meanwhile is not None:
            meanwhile()
        time.sleep(POLL_S)
    return True


def later(say: Callable[[str], None], text: str) -> Callable[[], None]:
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
def explained(data_dir: Path) -> Iterator[None]:
    """Turn what the filesystem refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = f"Free some space there, or {ANOTHER_FOLDER}" if full else f"S{ANOTHER_FOLDER[1:]}"
        raise InvalidInput("data-dir", data_dir, f"cannot be used ({error.strerror or error})", remedy) from None


def _not_ours(path: Path, error: Any) -> NotAllowed:
    return NotAllowed(f"{path}: {error.strerror}; it belongs to another user: {ANOTHER_FOLDER}")
