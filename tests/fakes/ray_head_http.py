"""What the fake Ray head sends and how it lies: answers, lies on request, and the request handler."""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from tests.fakes.ray_head import FakeRayHead


@dataclass
class Lie:
    """What to do to requests whose method and path match, `times` times.

    `lost`: done, then the connection is cut. `cut`: cut before anything is done. `late`: done, answered after
    `delay_s`. `error`: HTTP 500, not done. `error-done`: HTTP 500, yet done. `html`: a proxy's page with 200, not done.
    `html-502`: with 502. `garbage`: broken JSON. `answer`: `body` with `code` instead of the true one, not done.
    `rewrite`: the true answer with `change` applied to the decoded JSON.
    """

    how: str
    method: str = ""
    path: str = ""
    times: int = 1
    delay_s: float = 0.0
    code: int = 200
    body: bytes = b""
    media_type: str = "application/json"
    change: Any = None


@dataclass
class Reply:
    """An answer to be sent; `blocks` makes it a chunked one."""

    code: int
    body: bytes
    media_type: str = "application/json; charset=utf-8"
    blocks: list[bytes] | None = None


def told(value: Any, code: int = 200) -> Reply:
    return Reply(code, json.dumps(value).encode())


def text(message: str, code: int) -> Reply:
    return Reply(code, message.encode(), "text/plain; charset=utf-8")


class Handler(BaseHTTPRequestHandler):
    """One request: credentials, lies, then the truth."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every second answer waits 40 ms for an acknowledgement
    fake: ClassVar[FakeRayHead]

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that gave up
            super().handle()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError("the client died while it sent")
        self.fake.seen.append((self.command, parts.path))
        self.fake.received.append(dict(self.headers.items()))
        refused = self.refused(parts.path)
        if refused is not None:
            self.send(refused)
            return
        lie = self.lie_for(self.command, parts.path)
        if lie is None:
            self.send(self.fake.answer(self.command, parts.path, query, body))
            return
        self.tell(lie, lambda: self.fake.answer(self.command, parts.path, query, body))

    def refused(self, path: str) -> Reply | None:
        if self.fake.token is None or path == "/api/authentication_mode":
            return None
        given = self.headers.get("X-Ray-Authorization") or self.headers.get("Authorization") or ""
        if not given:
            return text("Unauthorized: Missing authentication token", 401)
        return None if given == f"Bearer {self.fake.token}" else text("Forbidden: Invalid authentication token", 403)

    def lie_for(self, method: str, path: str) -> Lie | None:
        with self.fake.lock:
            for lie in self.fake.lies:
                if lie.method in ("", method) and re.fullmatch(lie.path or ".*", path):
                    lie.times -= 1
                    if lie.times <= 0:
                        self.fake.lies.remove(lie)
                    return lie
        return None

    def tell(self, lie: Lie, truth: Any) -> None:
        page = b"<html><body>Bad gateway</body></html>"
        replies = {
            "error": lambda: text("500 Internal Server Error\n\nServer got itself in trouble", 500),
            "html": lambda: Reply(200, page, "text/html"),
            "html-502": lambda: Reply(502, page, "text/html"),
            "garbage": lambda: Reply(200, b'{"result": tru'),
            "answer": lambda: Reply(lie.code, lie.body, lie.media_type),
        }
        if lie.how == "cut":
            self.cut()
        elif lie.how == "lost":
            truth()
            self.cut()
        elif lie.how == "late":
            reply = truth()
            time.sleep(lie.delay_s)
            self.send(reply)
        elif lie.how == "error-done":
            truth()
            self.send(replies["error"]())
        elif lie.how == "rewrite":
            reply = truth()
            self.send(told(lie.change(json.loads(reply.body)), reply.code))
        else:
            self.send(replies[lie.how]())

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def send(self, reply: Reply) -> None:
        self.send_response(reply.code)
        self.send_header("Content-Type", reply.media_type)
        if reply.blocks is None:
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for block in reply.blocks:
            self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")
