"""The Ray heads of RayJobs: one for each cluster, found by the name of its service, gone with all its files.

`serve_at` lets an API server reach them as its proxy does: at one address, the service in `X-Forwarded-Uri`.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.ray_head import FakeRayHead, Server
from tests.fakes.ray_head_http import Reply, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.ray_head_jobs import FakeJob

SERVICE = re.compile(r".*/services/(?:[a-z]+:)?(?P<service>[^:/]+)(?::[^/]*)?/proxy(?P<path>/.*)?")


class RayHeads:
    """Heads by service; `answer` is what one of them says."""

    def __init__(self) -> None:
        self.by_service: dict[str, FakeRayHead] = {}
        self.by_job: dict[str, FakeRayHead] = {}
        self.begun = 0

    def begin(self, service: str) -> FakeRayHead:
        """A cluster comes up."""
        self.begun += 1
        head = self.by_service[service] = FakeRayHead(execute=False, number=self.begun)
        return head

    def end(self, service: str) -> list[FakeJob]:
        """A cluster goes, with its jobs, which are returned, and its files; nothing for one that is gone."""
        head = self.by_service.pop(service, None)
        if head is None:
            return []
        shutil.rmtree(head.folder)
        for job_id in head.jobs:
            self.by_job.pop(job_id, None)
        return list(head.jobs.values())

    def close(self) -> None:
        for service in list(self.by_service):
            self.end(service)

    def submit(self, service: str, job_id: str, body: bytes) -> None:
        """What an operator submits."""
        head = self.by_service[service]
        reply = head.answer("POST", "/api/jobs/", {}, body)
        assert reply.code == 200, reply.body
        self.by_job[job_id] = head

    def job(self, job_id: str) -> FakeJob | None:
        """As its head knows it; None before it was submitted and once its cluster is gone."""
        head = self.by_job.get(job_id)
        return head.jobs[job_id] if head else None

    def answer(self, service: str, method: str, path: str, query: dict[str, str], body: bytes) -> Reply | None:
        """None where no cluster has this service."""
        head = self.by_service.get(service)
        return None if head is None else head.answer(method, path or "/", query, body)

    @contextlib.contextmanager
    def serve_at(self, host: str) -> Iterator[int]:
        """Listen there; yields the port."""
        server = Server((host, 0), type("OurGateway", (_Gateway,), {"heads": self}))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Gateway(BaseHTTPRequestHandler):
    """Every head behind one address."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    heads: RayHeads

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
        found = SERVICE.fullmatch(urlsplit(self.headers.get("X-Forwarded-Uri", "")).path)
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reply = self.heads.answer(found["service"], self.command, parts.path, query, body) if found else None
        reply = reply or text("connection refused", 503)
        content = b"".join(reply.blocks) if reply.blocks is not None else reply.body
        self.send_response(reply.code)
        self.send_header("Content-Type", reply.media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
