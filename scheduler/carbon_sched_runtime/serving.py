"""Counts the requests of a service where they are answered: an ASGI middleware, for FastAPI, Starlette and Ray Serve.

    from carbon_sched_runtime import serving    # travels with every app; `from carbon_sched import serve` is the same

    app = FastAPI()
    app.add_middleware(serving.Middleware, header=True)

    @serve.deployment
    @serve.ingress(app)
    class Chat: ...

It counts requests, failures (5xx and exceptions), latencies until the last byte, how many are in flight, and the tokens
that OpenAI-style answers name in `usage`, also at the end of a stream of events. What is no ASGI app counts itself:

    with serving.request() as seen:
        answer = model(prompt)
        seen.tokens(input=len(prompt), output=len(answer))

The sums lie beside the energy journal of the replica's node, from where the server divides the replica set's energy by
them. With `header=True` answers carry `carbon-sched-gco2e`: grams for one request, as this process's devices measured
over the last window of about ten seconds, at the intensity that was expected when the app was placed; no header where
energy, intensity or requests are not known yet. What is booked is what the server reads. Counting never raises into the
app, and adds no wait: files are written by a thread.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from carbon_sched_runtime.fields import OWNER, WireError
from carbon_sched_runtime.request_counts import Counts, ReplicaCounts, bucket, counts_name, format_counts
from carbon_sched_runtime.windows import Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]

HEADER = b"carbon-sched-gco2e"
TELL_S = 1.0
WINDOW_S = 10.0
LARGEST_ANSWER = 1 << 20
"""Of a longer answer that is no stream the usage is not read."""
LARGEST_TOKENS = 10**9
SERVER_ERROR = 500

log = logging.getLogger("carbon_sched")


class Seen:
    """One request while it is answered."""

    def __init__(self) -> None:
        self.failed = False
        self.input_tokens = self.output_tokens = 0

    def tokens(self, *, input: int = 0, output: int = 0) -> None:  # noqa: A002 - the field's own words
        """Tell what the request took and gave; the newest word holds."""
        self.input_tokens, self.output_tokens = input, output


class Requests:
    """The sums of this process. Safe in several threads."""

    def __init__(self) -> None:
        self.replica, self.start_us = os.urandom(4).hex(), time.time_ns() // 1000
        self._lock = threading.Lock()
        self._counts, self._in_flight, self._moved_ns = Counts(), 0, time.monotonic_ns()
        self._told = Counts()

    @contextmanager
    def request(self) -> Iterator[Seen]:
        """Count what happens inside as one request."""
        seen, start_ns = Seen(), time.monotonic_ns()
        with self._lock:
            self._flow(start_ns)
            self._in_flight += 1
        try:
            yield seen
        except BaseException:
            seen.failed = True
            raise
        finally:
            self._answered(seen, start_ns)

    def counts(self) -> Counts:
        """The sums now."""
        with self._lock:
            self._flow(time.monotonic_ns())
            return self._counts

    def _answered(self, seen: Seen, start_ns: int) -> None:
        end_ns = time.monotonic_ns()
        latency = {bucket((end_ns - start_ns) / 1e9): 1}
        one = Counts(1, int(seen.failed), seen.input_tokens, seen.output_tokens, latencies=latency)
        with self._lock:
            self._flow(end_ns)
            self._in_flight -= 1
            self._counts += one

    def _flow(self, now_ns: int) -> None:
        """Book the time since the last arrival or end to the requests that were in flight."""
        passed_us = max(0, now_ns - self._moved_ns) // 1000
        if self._in_flight and passed_us:
            busy, waited = self._counts.busy_us + passed_us, self._counts.waited_us + passed_us * self._in_flight
            self._counts = replace(self._counts, busy_us=busy, waited_us=waited)
        self._moved_ns = max(now_ns, self._moved_ns)

    def tell(self) -> None:
        """Write the sums where the server finds them, if they moved. OSError or WireError when that fails."""
        attempt, counts = os.environ.get("CARBON_SCHED_ATTEMPT", ""), self.counts()
        if not OWNER.fullmatch(attempt) or counts == self._told:
            return
        from carbon_sched_runtime.machine import replace_file  # noqa: PLC0415 - needs Linux; counting does not
        from carbon_sched_runtime.run import journal_folder  # noqa: PLC0415

        line = format_counts(ReplicaCounts(attempt, self.replica, self.start_us, time.time_ns() // 1000, counts))
        replace_file(f"{journal_folder()}/{counts_name(attempt, self.replica)}", line)
        self._told = counts


class Rate:
    """Grams CO2e for one request over the last window, measured at this process's own devices."""

    def __init__(self, requests: Requests) -> None:
        self._requests, self._before = requests, requests.counts().requests
        self._window = Window("requests", {}, kept=False).start()
        self.grams: float | None = None

    def turn(self) -> None:
        """End the window and begin the next."""
        measured, now = self._window.stop(), self._requests.counts().requests
        self._window = Window("requests", {}, kept=False).start()
        answered, self._before = now - self._before, now
        if answered:
            self.grams = None if measured.co2e_g is None else measured.co2e_g / answered


class _Process:
    """What this process counts, and the thread that tells of it."""

    def __init__(self) -> None:
        self.requests = Requests()
        self.rate: Rate | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._complained = False

    def begin(self, *, rate: bool) -> None:
        """Have the thread run, at the first request: importing this module starts nothing."""
        with self._lock:
            if rate and self.rate is None:
                self.rate = Rate(self.requests)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="carbon-sched-requests", daemon=True)
                self._thread.start()
                atexit.register(self.tell)

    def tell(self) -> None:
        """Write the sums; trouble is logged once, and no app's business."""
        try:
            self.requests.tell()
        except (OSError, WireError) as error:
            if not self._complained:
                log.warning("the requests are not told: %s", error)
            self._complained = True

    def _run(self) -> None:
        turned = time.monotonic()
        while True:
            time.sleep(TELL_S)
            self.tell()
            if self.rate is not None and time.monotonic() - turned >= WINDOW_S:
                self.rate.turn()
                turned = time.monotonic()


_process = _Process()


def _forget() -> None:
    """A forked child counts for itself."""
    global _process  # noqa: PLW0603 - one per process is the point
    _process = _Process()


os.register_at_fork(after_in_child=_forget)


@contextmanager
def request() -> Iterator[Seen]:
    """Count what happens inside as one request, where no middleware can."""
    _process.begin(rate=False)
    with _process.requests.request() as seen:
        yield seen


class Middleware:
    """Wraps an ASGI app; `header` adds the grams of one request to its answers."""

    def __init__(self, app: App, *, header: bool = False) -> None:
        self._app, self._header = app, header

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer as the app does."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        process = _process
        process.begin(rate=self._header)
        with process.requests.request() as seen:
            answer = _Answer(seen, process.rate if self._header else None)

            async def observed(message: Message) -> None:
                answer.look(message)
                await send(message)

            await self._app(scope, receive, observed)
            answer.end()


class _Answer:
    """One answer as it passes: its status, and the usage it names."""

    def __init__(self, seen: Seen, rate: Rate | None) -> None:
        self._seen, self._rate = seen, rate
        self._stream = False
        self._body: bytearray | None = None

    def look(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
        elif message["type"] == "http.response.body" and self._body is not None:
            self._body += message.get("body", b"")
            if self._stream:
                self._events()
            elif len(self._body) > LARGEST_ANSWER:
                self._body = None

    def end(self) -> None:
        """The answer is out: read what is left of it."""
        if self._body:
            self._usage(bytes(self._body).removeprefix(b"data:") if self._stream else bytes(self._body))

    def _begin(self, message: Message) -> None:
        headers = {name.lower(): value for name, value in message.get("headers", ())}
        kind = headers.get(b"content-type", b"").split(b";")[0].strip()
        self._seen.failed = message["status"] >= SERVER_ERROR
        self._stream = kind == b"text/event-stream"
        self._body = bytearray() if self._stream or kind == b"application/json" else None
        grams = self._rate.grams if self._rate is not None else None
        if grams is not None:
            message["headers"] = [*message.get("headers", ()), (HEADER, f"{grams:.6g}".encode())]

    def _events(self) -> None:
        """Take whole lines off a stream of events; the last one that names usage holds."""
        *lines, rest = bytes(self._body or b"").split(b"\n")
        self._body = bytearray(rest[-LARGEST_ANSWER:])
        for line in lines:
            if line.startswith(b"data:") and b'"usage"' in line:
                self._usage(line[5:])

    def _usage(self, data: bytes) -> None:
        if b'"usage"' not in data:
            return
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return  # what is no JSON names no usage
        usage = document.get("usage") if isinstance(document, dict) else None
        if isinstance(usage, dict):
            self._seen.tokens(
                input=_tokens(usage, "prompt_tokens", "input_tokens"),
                output=_tokens(usage, "completion_tokens", "output_tokens"),
            )


def _tokens(usage: dict[str, Any], *names: str) -> int:
    """The first of these fields that is a plausible number of tokens, else 0."""
    found = (usage.get(name) for name in names)
    return next((value for value in found if type(value) is int and 0 <= value <= LARGEST_TOKENS), 0)
