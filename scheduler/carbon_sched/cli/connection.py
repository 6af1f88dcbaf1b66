"""Which server a command talks to, and which job it means."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carbon_sched.cli.output import say
from carbon_sched.cli.progress import Progress
from carbon_sched.domain.errors import Conflict, NotAllowed, NotFound, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from carbon_sched.client import Client
    from carbon_sched.local_server import LocalServer
    from carbon_sched.server_files import Running
    from carbon_sched.wire import JobView

    T = TypeVar("T")

ID_LENGTH = 10
ID_LETTERS = frozenset("0123456789abcdefghjkmnpqrstvwxyz")
LAST = "last"
RENEWALS = 3
SHOWN_IDS = 5


@dataclass
class Connection:
    """A server to talk to; `local` is None for a configured one."""

    client: Client
    local: LocalServer | None = None

    def renew(self) -> bool:
        """Start the local server again if it crashed; False where it was ended on purpose, or is not ours to start."""
        if self.local is None or not self.local.crashed():
            return False
        say("the local server went away; starting it again")
        self.client = client_of(self.local, _ensure(self.local))
        return True

    def ask(self, question: Callable[[Client], T]) -> T:
        """Ask the server something that may be asked twice; a local one that crashed is started again, a few times."""
        for _ in range(RENEWALS):
            try:
                return question(self.client)
            except ServerUnavailable:
                if not self.renew():
                    raise
        return question(self.client)


def connect(*, start: bool = True) -> Connection:
    """The configured server (CARBON_SCHED_URL), else the local one, started if it does not run.

    Without `start`, raises ServerUnavailable when it does not run.
    """
    if remote := remote_client():
        return Connection(remote)
    local = local_server()
    running = local.find()
    if running is None and not start:
        raise ServerUnavailable(f"no server runs for {local.files.data_dir}; the next `carbon-sched submit` starts one")
    return Connection(client_of(local, _ensure(local)), local)


def local_server() -> LocalServer:
    """The server of this user on this machine, running or not."""
    from carbon_sched.data_dir import default_data_dir
    from carbon_sched.local_server import LocalServer

    return LocalServer(default_data_dir(), say)


def remote_client(timeout_s: float = 30.0) -> Client | None:
    """The client of the server that the environment names, if any; NotAllowed when its token is not given."""
    url = os.environ.get("CARBON_SCHED_URL")
    if not url:
        return None
    from carbon_sched.client import Client

    plain = os.environ.get("CARBON_SCHED_ALLOW_PLAIN_HTTP") == "1"
    return Client(url, _remote_token(), timeout_s=timeout_s, allow_plain_http=plain, waiting=_waiting)


def client_of(local: LocalServer, running: Running) -> Client:
    """The client of a local server that runs."""
    from carbon_sched.client import Client

    return Client(running.url, local.files.read_token(), waiting=_waiting)


def _waiting() -> Progress:
    return Progress("waiting for the server's answer")


def _ensure(local: LocalServer) -> Running:
    def busy(running: Running) -> bool:
        with client_of(local, running) as client:
            return client.server()["jobs_live"] > 0

    def end(running: Running) -> None:
        with client_of(local, running) as client:
            client.shutdown(stop_local_clusters=False)

    if local.find() is None:
        _require_server_extra()
    return local.ensure(busy=busy, end=end)


def _require_server_extra() -> None:
    """A server can only be started where its libraries are; say so before a log has to be read."""
    from importlib.util import find_spec

    missing = [name for name in ("uvicorn", "fastapi", "sqlalchemy", "alembic") if find_spec(name) is None]
    if missing:
        raise ServerUnavailable(
            f"no server is configured, and none can be started here: {', '.join(missing)} missing. "
            "Run: pip install 'carbon-sched[local]' - or set CARBON_SCHED_URL to your team's server"
        )


def _remote_token() -> str:
    if token := os.environ.get("CARBON_SCHED_TOKEN"):
        return token.strip()
    file = os.environ.get("CARBON_SCHED_TOKEN_FILE")
    if not file:
        raise NotAllowed("CARBON_SCHED_URL is set, but no token: set CARBON_SCHED_TOKEN_FILE or CARBON_SCHED_TOKEN")
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise NotAllowed(f"CARBON_SCHED_TOKEN_FILE: {file} cannot be read ({reason})") from None


def find_job(client: Client, text: str) -> JobView:
    """The job that `text` means: an id, a name that only one job has, or `last`.

    Raises NotFound, or Conflict for a name that several jobs have.
    """
    if text == LAST:
        newest = client.jobs(limit=1)["jobs"]
        if not newest:
            raise NotFound("there is no job yet; `carbon-sched submit job.py` makes one")
        return newest[0]
    if is_id(text):
        try:
            return client.job(text)
        except NotFound:
            pass  # ten letters may also be somebody's name for a job
    named = client.jobs(name=text, limit=SHOWN_IDS + 1)["jobs"]
    if not named:
        raise NotFound(f"no job has the id or name {text!r}; `carbon-sched list` shows those there are")
    if len(named) > 1:
        ids = ", ".join(job["job_id"] for job in named[:SHOWN_IDS]) + (", ..." if len(named) > SHOWN_IDS else "")
        raise Conflict(f"several jobs are called {text!r}; name one by its id, newest first: {ids}")
    return named[0]


def is_id(text: str) -> bool:
    """Whether `text` has the form of a job id."""
    return len(text) == ID_LENGTH and set(text) <= ID_LETTERS
