"""A proxy before a real API server that fails as the fake one is made to: refuses, loses answers, ends watches."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.fakes.kube_api import FAULTS
from tests.fakes.ray_head import Server

if TYPE_CHECKING:
    from collections.abc import Callable


class FaultProxy:
    """Between `address` and a server on this machine; `fault` is asked for every request, as the fake asks."""

    def __init__(self, port: int, ca_file: str) -> None:
        self.port, self.context = port, ssl.create_default_context(cafile=ca_file)
        self.fault: Callable[[str, str], str] = lambda _method, _path: ""
        self.watches: set[socket.socket] = set()
        self.server = Server(("127.0.0.1", 0), type("OurProxy", (_Handler,), {"proxy": self}))
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def end_watches(self) -> None:
        """As an API server ends them after their time: without an error."""
        for upstream in list(self.watches):
            with contextlib.suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.end_watches()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultProxy
    upstream: http.client.HTTPSConnection | None = None

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()
        if self.upstream is not None:
            self.upstream.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.fault(self.command, urlsplit(self.path).path)
        if fault in FAULTS:
            self.send(FAULTS[fault].code, "application/json", json.dumps(FAULTS[fault].body).encode())
            return
        if self.upstream is None:
            self.upstream = http.client.HTTPSConnection("127.0.0.1", self.proxy.port, context=self.proxy.context)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        self.upstream.request(self.command, self.path, body, headers)
        answer = self.upstream.getresponse()
        if "watch=true" in self.path.lower():
            self.watch(answer)
            return
        content = answer.read()
        if fault == "lost":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send(answer.status, answer.headers["Content-Type"] or "", content)

    def watch(self, answer: http.client.HTTPResponse) -> None:
        assert self.upstream is not None
        upstream = self.upstream.sock
        self.proxy.watches.add(upstream)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"] or "")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(http.client.HTTPException, ssl.SSLError, ValueError):
            while line := answer.readline():
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.proxy.watches.discard(upstream)
        self.upstream.close()
        self.upstream = None

    def send(self, code: int, media_type: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
