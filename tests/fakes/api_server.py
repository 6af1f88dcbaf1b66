"""A small loopback server that speaks our API: what clients are tested against, faults included.

It keeps what it is given (bundles, clusters, jobs by idempotency key) and tells jobs' lives as they were scripted:
every long poll moves a job one step on. `faults` makes it misbehave.
"""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from carbon_sched.service.access import REMEDY
from tests.fakes.api_views import (
    AT,
    cluster_view,
    decision_view,
    grid_views,
    job_view,
    problem,
    receipt_view,
    server_view,
)

if TYPE_CHECKING:
    import ssl

TOKEN = "cs_fake-token"


@dataclass
class Call:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Fault:
    """An answer in place of the true one: `status`, `body`; `hang_up` closes the connection without any.

    `after` does what was asked and then hides the answer: the unclear case.
    """

    status: int = 503
    body: bytes = b""
    content_type: str = "text/plain"
    hang_up: bool = False
    after: bool = False
    location: str = ""


@dataclass
class FakeApi:
    """State and script of the server; `url` while it runs."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    jobs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    receipts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    bundles: dict[str, bytes] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=grid_views)
    entries: list[dict[str, Any]] = field(default_factory=list)
    server: dict[str, Any] = field(default_factory=server_view)
    refuse: dict[str, Any] | None = None
    shut_down: dict[str, Any] | None = None
    life: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    comparison: dict[str, Any] = field(default_factory=dict)

    def tell(self, *states: dict[str, Any], text: str = "", decision: dict[str, Any] | None = None) -> None:
        """Script the next submitted job: its states one after another, and what it writes."""
        job_id = states[0]["job_id"]
        self.life = [state | {"version": number} for number, state in enumerate(states)]
        self.logs[job_id] = (
            [{"attempt": 1, "text": text, "next_offset": len(text.encode()), "final": False}] if text else []
        )
        self.decisions[job_id] = decision or decision_view(job_id=job_id)
        self.receipts[job_id] = [receipt_view(job_id=job_id)]

    def made(self, method: str, path: str) -> list[Call]:
        """Calls of one route."""
        return [call for call in self.calls if call.method == method and call.path == path]

    # routes --------------------------------------------------------------------------------------

    def answer(self, call: Call) -> tuple[int, Any]:  # noqa: C901, PLR0911, PLR0912 - one branch per route
        parts = [unquote(part) for part in call.path.strip("/").split("/")]
        match [call.method, *parts]:
            case ["GET", "healthz"]:
                return 200, {"ok": True, "version": self.server["version"]}
            case ["GET", "v1", "server"]:
                return 200, self.server
            case ["POST", "v1", "server", "shutdown"]:
                self.shut_down = call.json()
                return 202, {"stopping": True}
            case [("HEAD" | "PUT"), "v1", "bundles", sha256]:
                return self._bundle(call, sha256)
            case ["POST", "v1", "jobs"]:
                return self._submit(call)
            case ["GET", "v1", "jobs"]:
                return 200, self._list(call)
            case ["GET", "v1", "jobs", job_id, *rest] if job_id in self.jobs:
                return self._job(call, job_id, rest)
            case ["POST", "v1", "jobs", job_id, "stop"] if job_id in self.jobs:
                self.jobs[job_id] = [self.jobs[job_id][0] | {"state": "stopped", "finished_at": AT}]
                return 202, self.jobs[job_id][0]
            case ["PATCH", "v1", "jobs", job_id] if job_id in self.jobs:
                self.jobs[job_id] = [_amended(self.jobs[job_id][0], call.json())]
                return 200, self.jobs[job_id][0]
            case [method, "v1", "clusters", *rest]:
                return self._cluster(method, call, rest)
            case [_, "v1", "grid", what]:
                return 200, self.grid[what]
            case ["GET", "v1", "ledger", "entries"]:
                after = int(call.query.get("after", ["0"])[0])
                return 200, [entry for entry in self.entries if entry["seq"] > after]
            case ["GET", "v1", "ledger", "verify"]:
                size = len(self.entries)
                return 200, {"ok": True, "size": size, "head": "", "first_bad_seq": None, "problem": ""}
            case ["GET", "v1", "compare"]:
                return 200, self.comparison
            case ["GET", "v1", "report"]:
                return 200, f"report as {call.query['format'][0]}\n"
            case ["GET", "v1", "jobs", *_] | ["POST", "v1", "jobs", *_]:
                return 404, problem("not-found", 404, 121, f"there is no job {parts[2]!r}")
        return 404, {"detail": "Not Found"}

    def _bundle(self, call: Call, sha256: str) -> tuple[int, Any]:
        if call.method == "HEAD":
            return (200 if sha256 in self.bundles else 404), None
        self.bundles[sha256] = call.body
        return 204, None

    def _submit(self, call: Call) -> tuple[int, Any]:
        if self.refuse is not None:
            return self.refuse["status"], self.refuse
        if call.query.get("dry_run") == ["true"]:
            return 200, decision_view(job_id="")
        if lacking := self._lacking(call.json()):
            detail = f"bundle_sha256: {lacking!r} is not stored here. Upload it first with PUT /v1/bundles/SHA256"
            return 400, problem("invalid-input", 400, 120, detail, field="bundle_sha256", value=lacking)
        key = call.headers.get("idempotency-key", f"none-{len(self.keys)}")
        if key not in self.keys:
            if not self.life:
                number = len(self.keys)
                name = call.json().get("name", "train.py")
                self.tell(job_view(f"{number:010d}", name=name, entrypoint=call.json()["entrypoint"]))
            self.keys[key] = self.life[0]["job_id"]
            self.jobs[self.keys[key]] = self.life
            self.life = []
        return 202, self.jobs[self.keys[key]][0]

    def _lacking(self, request: dict[str, Any]) -> str | None:
        """The first bundle of a request that was not uploaded."""
        modules = request.get("runtime_env", {}).get("py_modules", [])
        stored = [module.removeprefix("bundle://")[:64] for module in modules if module.startswith("bundle://")]
        named = [*filter(None, [request.get("bundle_sha256")]), *stored]
        return next((sha256 for sha256 in named if sha256 not in self.bundles), None)

    def _list(self, call: Call) -> dict[str, Any]:
        views = [states[0] for states in reversed(self.jobs.values())]
        for key in ("name", "team", "project", "phase", "cluster", "state"):
            if key in call.query:
                views = [view for view in views if view[key] in call.query[key]]
        limit = int(call.query.get("limit", ["100"])[0])
        return {"jobs": views[:limit], "next": views[limit - 1]["job_id"] if len(views) > limit else None}

    def _job(self, call: Call, job_id: str, rest: list[str]) -> tuple[int, Any]:
        states = self.jobs[job_id]
        if not rest:
            waited = "wait_version" in call.query and states[0]["version"] <= int(call.query["wait_version"][0])
            if waited and len(states) > 1:
                states.pop(0)
            return 200, states[0]
        if rest == ["logs"]:
            return 200, self._log(call, job_id)
        if rest == ["receipt"]:
            receipts = self.receipts[job_id]
            return 200, receipts.pop(0) if len(receipts) > 1 else receipts[0]
        if rest == ["events"]:
            return 200, [{"at": AT, "event": "accepted", "state": "queued", "reason": ""}]
        if rest == ["decision"] and job_id in self.decisions:
            return 200, self.decisions[job_id]
        return 404, problem("not-found", 404, 121, f"job {job_id} has not been planned yet")

    def _log(self, call: Call, job_id: str) -> dict[str, Any]:
        """The chunk behind `attempt` and `offset`; when all is told, the job has ended."""
        behind = (int(call.query.get("attempt", ["0"])[0]), int(call.query["offset"][0]))
        for chunk in self.logs[job_id]:
            if (chunk["attempt"], chunk["next_offset"]) > behind:
                return chunk
        self.jobs[job_id] = self.jobs[job_id][-1:]
        return {"attempt": max(1, behind[0]), "text": "", "next_offset": behind[1], "final": True}

    def _cluster(self, method: str, call: Call, rest: list[str]) -> tuple[int, Any]:
        if not rest:
            return 200, list(self.clusters.values())
        name = rest[0]
        if method == "PUT":
            request = call.json()
            self.clusters[name] = cluster_view(name, zone=request["zone"], local="local" in request)
            return 200, self.clusters[name]
        if name not in self.clusters:
            return 404, problem("not-found", 404, 121, f"no cluster is called {name!r}")
        if method == "DELETE":
            del self.clusters[name]
            return 204, None
        if rest[1:] == ["check"]:
            return 200, {"name": name, "findings": [{"level": "ok", "text": "the dashboard answers"}]}
        return 200, self.clusters[name]


def _amended(view: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    changed = view | asked | {"amendments": view["amendments"]}
    return changed | {"amendments": view["amendments"] + (changed != view)}


class _Handler(BaseHTTPRequestHandler):
    """HTTP around FakeApi."""

    protocol_version = "HTTP/1.1"
    api: FakeApi

    def handle_one_call(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        url = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        call = Call(self.command, url.path, parse_qs(url.query), headers, self.rfile.read(length))
        self.api.calls.append(call)
        fault = self.api.faults.pop(0) if self.api.faults else None
        status, value = self._true_answer(call) if fault is None or fault.after else (0, None)
        if fault is not None and fault.hang_up:
            self.close_connection = True
            self.connection.close()
        elif fault is not None:
            self._send(fault.status, fault.body, fault.content_type, fault.location)
        else:
            with contextlib.suppress(BrokenPipeError):  # nobody waits any more, as after Ctrl-C
                self._send(status, *_encoded(call, status, value))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = handle_one_call  # noqa: N815 - the base class calls them so

    def _true_answer(self, call: Call) -> tuple[int, Any]:
        if call.path != "/healthz" and call.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, problem(
                "not-allowed", 401, 122, f"the server's token is missing, wrong, expired or revoked; {REMEDY}"
            )
        return copy.deepcopy(self.api.answer(call))

    def _send(self, status: int, body: bytes, content_type: str, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _encoded(call: Call, status: int, value: Any) -> tuple[bytes, str]:
    if value is None:
        return b"", "application/json"
    if isinstance(value, str):
        return value.encode(), "text/plain"
    if call.path == "/v1/ledger/entries":
        return "".join(json.dumps(entry) + "\n" for entry in value).encode(), "application/x-ndjson"
    return json.dumps(value).encode(), "application/problem+json" if status >= 400 else "application/json"


class RunningApi:
    """Serves a FakeApi on a free loopback port while inside; over TLS with a `context`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context

    def __enter__(self) -> FakeApi:
        self.api = FakeApi()
        handler = type("Handler", (_Handler,), {"api": self.api})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.api.url = f"http://127.0.0.1:{self._http.server_port}"
        if self._context is not None:
            self._http.socket = self._context.wrap_socket(self._http.socket, server_side=True)
            self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # refused handshakes are wanted
            self.api.url = self.api.url.replace("http:", "https:")
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self.api

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
