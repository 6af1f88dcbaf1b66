"""A Kubernetes API server without Kubernetes, for RayJobs and what we need beside them.

Objects are checked against the CRDs that KubeRay publishes, made strict. Versions, conflicts, finalizers, the status
subresource, label selectors, watches that expire (410 Gone) and events follow kube-apiserver: the real one
(`kube_apiserver.py`) passes the same tests. `fault` makes it fail.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import uuid
from bisect import bisect_right
from copy import deepcopy
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from tests.fakes.kubernetes import validate
from tests.fakes.ray_head import Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    from tests.fakes.ray_heads import RayHeads

Json = dict[str, Any]
PATH = re.compile(
    r"/apis?(?:/(?P<group>[a-z0-9.-]+))?/(?P<version>v1[a-z0-9]*)"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>status|proxy))?(?P<rest>/.*)?"
)
KINDS = {"rayjobs": "RayJob", "rayclusters": "RayCluster", "configmaps": "ConfigMap", "events": "Event"}


class FakeKubeApi:
    """Use as a context manager; `address` is what a cluster is configured with, `heads` are behind its proxy."""

    TOKEN = "the-controllers-token"
    heads_at = ("192.0.2.1", 8265)
    session: ClassVar[Json] = {"headers": {"Authorization": f"Bearer {TOKEN}"}}
    ca_file = None

    def __init__(self, heads: RayHeads, folder: Path) -> None:
        """`token` says where the token lies, in the folder."""
        self.heads = heads
        (folder / "token").write_text(self.TOKEN)
        self.token = f"file:{folder / 'token'}"
        self.changed = threading.Condition()
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.version = 1000
        self.forgotten = 0
        self.log: list[tuple[int, str, str, Json]] = []
        self.fault: Callable[[str, str], str] = lambda _method, _path: ""
        self.closed = False

    def __enter__(self) -> Self:
        self.server = Server(("127.0.0.1", 0), type("OurHandler", (_Handler,), {"fake": self}))
        self.operator_at = self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    # what tests make happen ----------------------------------------------------------------------

    def expire(self) -> None:
        """Forget all changes so far, as a compaction does, and end every watch: none can go on from where it was."""
        with self.changed:
            self.version += 1
            self.log, self.forgotten = [], self.version
            self.changed.notify_all()

    def of(self, plural: str) -> list[Json]:
        """Every object of a kind, as it is now."""
        with self.changed:
            return [deepcopy(one) for (kind, _, _), one in sorted(self.objects.items()) if kind == plural]

    def create(self, plural: str, one: Json) -> Json:
        with self.changed:
            metadata = one["metadata"]
            metadata.setdefault("namespace", "default")
            metadata.setdefault("name", f"{metadata.get('generateName', '')}{uuid.uuid4().hex[:8]}")
            key = (plural, metadata["namespace"], metadata["name"])
            if key in self.objects:
                raise Status(409, "AlreadyExists", f"{plural} {metadata['name']!r} already exists")
            self.check(plural, one)
            one.setdefault("kind", KINDS.get(plural, ""))
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-03-01T12:00:00Z"}
            one.pop("status", None)
            return self.put(key, one, "ADDED")

    def replace(self, key: tuple[str, str, str], one: Json, *, status: bool) -> Json:
        with self.changed:
            before = self.objects.get(key)
            if before is None:
                raise Status(404, "NotFound", f"{key[0]} {key[2]!r} not found")
            given = one["metadata"]
            if given.get("resourceVersion") not in (None, before["metadata"]["resourceVersion"]):
                raise Status(
                    409, "Conflict", "the object has been modified; please apply your changes to the latest version"
                )
            if given.get("uid") not in (None, before["metadata"]["uid"]):
                raise Status(409, "Conflict", "Precondition failed: UID in precondition")
            if status:
                return self.put(key, {**before, "status": one["status"]}, "MODIFIED")
            self.check(key[0], one)
            made = {**one, **({"status": before["status"]} if "status" in before else {})}
            kept = ("uid", "creationTimestamp", "deletionTimestamp")
            made["metadata"] = {**given, **{k: before["metadata"][k] for k in kept if k in before["metadata"]}}
            if "deletionTimestamp" in made["metadata"] and not given.get("finalizers"):
                return self.forget(key, made)
            return self.put(key, made, "MODIFIED")

    def delete(self, key: tuple[str, str, str], uid: str | None) -> Json:
        with self.changed:
            one = self.objects.get(key)
            if one is None:
                raise Status(404, "NotFound", f"{key[0]} {key[2]!r} not found")
            if uid not in (None, one["metadata"]["uid"]):
                raise Status(409, "Conflict", "Precondition failed: UID in precondition")
            if one["metadata"].get("finalizers"):
                one["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
                return self.put(key, one, "MODIFIED")
            return self.forget(key, one)

    def forget(self, key: tuple[str, str, str], one: Json) -> Json:
        del self.objects[key]
        self.tell(key[0], "DELETED", one)
        return one

    def put(self, key: tuple[str, str, str], one: Json, kind: str) -> Json:
        self.objects[key] = one = deepcopy(one)
        self.tell(key[0], kind, one)
        return deepcopy(one)

    def tell(self, plural: str, kind: str, one: Json) -> None:
        self.version += 1
        one["metadata"]["resourceVersion"] = str(self.version)
        self.log.append((self.version, plural, kind, deepcopy(one)))
        self.changed.notify_all()

    def check(self, plural: str, one: Json) -> None:
        if plural in ("rayjobs", "rayclusters"):
            typed = {"apiVersion": "ray.io/v1", "kind": KINDS[plural], **one}
            problems = validate({**typed, "metadata": {}})
            if problems:
                raise Status(422, "Invalid", "; ".join(problems))


class Status(Exception):
    """An answer that is no object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


FAULTS = {
    "error": Status(500, "InternalError", "etcdserver: request timed out"),
    "busy": Status(429, "TooManyRequests", "the server has received too many requests"),
}
"""Refused before anything is done. The third fault, `lost`, is done and never answered."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeKubeApi

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.fake.fault(self.command, parts.path)
        try:
            if self.headers.get("Authorization") != f"Bearer {self.fake.TOKEN}":
                self.send_status(Status(401, "Unauthorized", "Unauthorized"))
                return
            if fault in FAULTS:
                self.send_status(FAULTS[fault])
                return
            answer = self.answer(parts.path, query, body)
        except Status as status:
            self.send_status(status)
            return
        if fault == "lost":
            self.close_connection = True
            self.connection.shutdown(2)
        elif answer is not None:
            self.send(*answer)

    def answer(  # noqa: PLR0911 - one for each verb
        self, path: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes] | None:
        found = PATH.fullmatch(path)
        if found is None:
            raise Status(404, "NotFound", "the server could not find the requested resource")
        namespace, plural, name = found["namespace"] or "", found["plural"], found["name"] or ""
        if found["sub"] == "proxy":
            self.proxy(name.partition(":")[0], found["rest"] or "/", query, body)
            return None
        if plural == "localqueues" and not any(kind == plural for kind, _, _ in self.fake.objects):
            raise Status(404, "NotFound", "the server could not find the requested resource")
        if self.command == "GET" and not name:
            if query.get("watch") in ("true", "True"):
                self.watch(plural, namespace, query)
                return None
            return 200, json.dumps(self.list(plural, namespace, query)).encode()
        given, key = json.loads(body or b"{}"), (plural, namespace, name)
        if self.command == "POST":
            given.setdefault("metadata", {})["namespace"] = namespace
            return 201, json.dumps(self.fake.create(plural, given)).encode()
        if self.command == "PUT":
            return 200, json.dumps(self.fake.replace(key, given, status=found["sub"] == "status")).encode()
        if self.command == "DELETE":
            uid = ((given or {}).get("preconditions") or {}).get("uid")
            return 200, json.dumps(self.fake.delete(key, uid)).encode()
        with self.fake.changed:
            if key not in self.fake.objects:
                raise Status(404, "NotFound", f"{plural} {name!r} not found")
            return 200, json.dumps(self.fake.objects[key]).encode()

    def proxy(self, service: str, path: str, query: dict[str, str], body: bytes) -> None:
        reply = self.fake.heads.answer(service, self.command, path, query, body)
        if reply is None:
            raise Status(404, "NotFound", f"services {service!r} not found")
        content = b"".join(reply.blocks) if reply.blocks is not None else reply.body
        self.send(reply.code, content, reply.media_type)

    def list(self, plural: str, namespace: str, query: dict[str, str]) -> Json:
        with self.fake.changed:
            items = [
                one
                for (kind, where, _), one in sorted(self.fake.objects.items())
                if kind == plural and namespace in ("", where) and selected(one, query)
            ]
            return {"kind": "List", "items": deepcopy(items), "metadata": {"resourceVersion": str(self.fake.version)}}

    def watch(self, plural: str, namespace: str, query: dict[str, str]) -> None:
        since = int(query.get("resourceVersion") or 0)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            with self.fake.changed:
                self.fake.changed.wait_for(
                    lambda since=since: self.fake.closed or self.fake.forgotten > since or self.fake.version > since,
                    float(query.get("timeoutSeconds") or 60),
                )
                gone = self.fake.forgotten > since
                log = self.fake.log
                news = [(kind, one) for _, p, kind, one in log[bisect_right(log, since, key=_at) :] if p == plural]
                ended, since = self.fake.closed or self.fake.version == since, self.fake.version
            if gone:
                body = Status(410, "Expired", "The resourceVersion for the provided watch is too old.").body
                self.chunk({"type": "ERROR", "object": body})
                break
            for kind, one in news:
                if namespace in ("", one["metadata"]["namespace"]) and selected(one, query):
                    self.chunk({"type": kind, "object": one})
            if ended:
                break
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, event: Json) -> None:
        line = json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def send_status(self, status: Status) -> None:
        self.send(status.code, json.dumps(status.body).encode())

    def send(self, code: int, body: bytes, media_type: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _at(entry: tuple[int, str, str, Json]) -> int:
    return entry[0]


def selected(one: Json, query: dict[str, str]) -> bool:
    """Whether an object has the labels that a query asks for."""
    labels = one["metadata"].get("labels") or {}
    pairs = [part.partition("=") for part in (query.get("labelSelector") or "").split(",") if part]
    return all(labels.get(name) == value for name, _, value in pairs)
