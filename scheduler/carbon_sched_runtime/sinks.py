"""Where segments go besides the journal's folder, for nodes that do not outlive their jobs.

The server puts one or both of these into the environment of a job:

    CARBON_SCHED_PUSH, CARBON_SCHED_PUSH_TOKEN   the server's address as this node reaches it, and what lets the attempt
                                                 deliver segments and nothing else
    CARBON_SCHED_STORE                           a folder that this node and the server share: ATTEMPT/NAME in it

A segment is delivered at least once and tried again until it is; the server books it once, however it comes.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from carbon_sched_runtime.machine import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TIMEOUT_S = 10.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
KNOWN = 409  # it is there with other content: nothing that is tried again helps
TRY_AGAIN = (408, 425, 429)


class Refused(Exception):
    """It is there, and will not have the segment."""


class Sink(Protocol):
    """A place that takes segments; `name` is how the record speaks of it."""

    name: str

    def take(self, name: str, data: bytes) -> None:
        """Have a segment kept. OSError or HTTPException when another try may help, Refused when none will."""


def sinks_of(environment: Mapping[str, str], attempt: str) -> list[Sink]:
    """The sinks that an environment names, for one attempt."""
    url, token = environment.get("CARBON_SCHED_PUSH", ""), environment.get("CARBON_SCHED_PUSH_TOKEN", "")
    folder = environment.get("CARBON_SCHED_STORE", "")
    found: list[Sink] = [Server(url.rstrip("/"), token, attempt)] if url and token else []
    return [*found, *([SharedFolder(folder, attempt)] if folder else [])]


class Server:
    """Our server's API."""

    name = "the server"

    def __init__(self, url: str, token: str, attempt: str) -> None:
        self._url, self._token, self._attempt = url, token, attempt

    def take(self, name: str, data: bytes) -> None:
        """POST it once."""
        status = self._post(name, data)
        if status in TRY_AGAIN or status >= http.client.INTERNAL_SERVER_ERROR:
            raise OSError(f"it answers {status}")
        if status >= http.client.MULTIPLE_CHOICES and status != KNOWN:
            raise Refused(f"it answers {status} to a POST at {self._url}"[:200])

    def _post(self, name: str, data: bytes) -> int:
        parts = urlsplit(self._url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/octet-stream"}
        try:
            connection.request("POST", f"{parts.path}/v1/journal/{self._attempt}/{name}", data, headers)
            return connection.getresponse().status
        finally:
            connection.close()


class SharedFolder:
    """The journal store: one folder per attempt in a folder that nodes and server mount at the same path.

    That folder is never made here: where it is missing, it is not mounted.
    """

    name = "the journal store"

    def __init__(self, root: str, attempt: str) -> None:
        self._root, self._folder = root, f"{root}/{attempt}"

    def take(self, name: str, data: bytes) -> None:
        """Write and sync it under another name, and move it into place."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder)
            os.chmod(self._folder, 0o755)  # noqa: S103 - the server, another user, reads it whatever the job's umask
        replace_file(f"{self._folder}/{name}", data, sync=True)


class Courier:
    """Delivers segments to a sink, one after another, from a thread of its own: no network holds up the meter."""

    def __init__(self, sink: Sink, report: Callable[..., None]) -> None:
        self._sink, self._report = sink, report
        self._waiting: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="carbon-sched-courier", daemon=True)
        self._thread.start()

    def put(self, name: str, data: bytes) -> None:
        """Take a segment; returns at once."""
        self._waiting.put((name, data))

    def flush(self, deadline: float) -> str | None:
        """Wait for the last delivery, at most until the deadline (monotonic); what is not delivered, or None."""
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        left = self._waiting.unfinished_tasks
        return f"segments that did not reach {self._sink.name}: {left}" if left else None

    def _run(self) -> None:
        complained = False
        while True:
            name, data = self._waiting.get()
            try:
                self._deliver(name, data)
            except Refused as error:
                if not complained:
                    self._report("fault", reason=f"segments are not taken by {self._sink.name}: {error}")
                complained = True
            self._waiting.task_done()

    def _deliver(self, name: str, data: bytes) -> None:
        """Until it is there. Raises Refused."""
        wait_s = FIRST_WAIT_S
        while not self._tried(name, data):
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _tried(self, name: str, data: bytes) -> bool:
        try:
            self._sink.take(name, data)
        except (OSError, http.client.HTTPException):
            return False
        return True
