"""Where segments go besides the journal's folder, for nodes that do not outlive their jobs: pushed to the server's API.

`CARBON_SCHED_PUSH` is the server's address as this node reaches it, `CARBON_SCHED_PUSH_TOKEN` lets the attempt deliver
segments and nothing else. A segment is delivered at least once and tried again until it is; the server books it once.
"""

from __future__ import annotations

import http.client
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S = 10.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
KNOWN = 409  # it is there with other content: nothing that is tried again helps
TRY_AGAIN = (408, 425, 429)


@dataclass(frozen=True)
class Address:
    """Where to push, and with what."""

    url: str
    token: str


class Refused(Exception):
    """The server answers, and will not have it."""


class Pusher:
    """Delivers segments one after another from a thread of its own, so that no network holds up the meter."""

    def __init__(self, address: Address, attempt: str, report: Callable[..., None]) -> None:
        self._address, self._attempt, self._report = address, attempt, report
        self._waiting: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="carbon-sched-push", daemon=True)
        self._thread.start()

    def put(self, name: str, data: bytes) -> None:
        """Take a segment; returns at once."""
        self._waiting.put((name, data))

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything was delivered or refused; False when time ran out."""
        deadline = time.monotonic() + timeout_s
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self._waiting.unfinished_tasks

    def _run(self) -> None:
        complained = False
        while True:
            name, data = self._waiting.get()
            try:
                self._deliver(name, data)
            except Refused as error:
                if not complained:
                    self._report("fault", reason=f"segments are not taken by the server: {error}")
                complained = True
            self._waiting.task_done()

    def _deliver(self, name: str, data: bytes) -> None:
        """Until the server has it. Raises Refused."""
        wait_s = FIRST_WAIT_S
        while not self._once(name, data):
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _once(self, name: str, data: bytes) -> bool:
        try:
            status = self._post(name, data)
        except (OSError, http.client.HTTPException):
            return False
        if status in TRY_AGAIN or status >= http.client.INTERNAL_SERVER_ERROR:
            return False
        if status >= http.client.MULTIPLE_CHOICES and status != KNOWN:
            raise Refused(f"it answers {status} to a POST at {self._address.url}"[:200])
        return True

    def _post(self, name: str, data: bytes) -> int:
        parts = urlsplit(self._address.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self._address.token}", "Content-Type": "application/octet-stream"}
        try:
            connection.request("POST", f"{parts.path}/v1/journal/{self._attempt}/{name}", data, headers)
            return connection.getresponse().status
        finally:
            connection.close()
