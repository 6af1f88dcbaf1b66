"""A timestamp service (RFC 3161) on loopback: OpenSSL's own answers, behind a small HTTP server."""

from __future__ import annotations

import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
[tsa]
default_tsa = service
[service]
serial = {folder}/serial
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256
ess_cert_id_alg = sha256
"""
STAMPING = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping\n"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)


class Authority:
    """A certificate authority `ca.pem`, and a signer of timestamps under it. `answers` are given instead, in turn."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.ca = folder, folder / "ca.pem"
        self.answers: list[tuple[int, str, bytes]] = []
        self.asked = 0
        (folder / "serial").write_text("01")
        (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
        (folder / "stamping.cnf").write_text(STAMPING)
        openssl(folder, "req", "-x509", *KEY, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test ca")
        openssl(folder, "req", *KEY, "-keyout", "signer.key", "-out", "signer.csr", "-subj", "/CN=test stamps")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "stamping.cnf", "-days", "2")
        openssl(folder, "x509", "-req", "-in", "signer.csr", *signed, "-out", "signer.pem")

    def stamped(self, query: bytes) -> bytes:
        """The service's answer to a query."""
        (self.folder / "query").write_bytes(query)
        openssl(self.folder, "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "answer")
        return (self.folder / "answer").read_bytes()

    def answer(self, query: bytes) -> tuple[int, str, bytes]:
        self.asked += 1
        return self.answers.pop(0) if self.answers else (200, "application/timestamp-reply", self.stamped(query))

    @contextmanager
    def served(self):
        """Its address."""
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                status, kind, body = authority.answer(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/stamp"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
