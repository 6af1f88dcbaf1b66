"""`carbon-sched serve` over TLS: the flags, and what is said where they cannot be used."""

from __future__ import annotations

import signal
import subprocess

import pytest
import requests

from carbon_sched.client import Client
from carbon_sched.domain.errors import ServerUnavailable
from carbon_sched.local_server import LocalServer
from tests.fakes.certificates import authority_and_server
from tests.fakes.real_server import CLI, eventually


def serve(folder, *flags: str) -> subprocess.Popen[str]:
    (folder / "config.yaml").write_text("grid: {providers: []}\n")
    return subprocess.Popen(
        [*CLI, "serve", "--data-dir", str(folder), *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_the_api_speaks_tls_with_the_certificate_that_was_named(tmp_path, monkeypatch):
    ca_file, certificate, key = authority_and_server(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    process = serve(data, "--tls-cert", str(certificate), "--tls-key", str(key))
    try:
        local = LocalServer(data, lambda _text: None)
        running = eventually(local.find)
        assert running.url.startswith("https://127.0.0.1:")
        token = local.files.read_token()
        with Client(running.url, token) as client, pytest.raises(ServerUnavailable, match="certificate"):
            client.health()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))
        with Client(running.url, token) as client:
            assert client.health()["ok"]
            assert client.session()["role"] == "admin"
            page = client.login_url()
        answer = requests.get(page, verify=str(ca_file), allow_redirects=False, timeout=5)
        assert "Secure" in answer.headers["Set-Cookie"]
        with pytest.raises(requests.ConnectionError):
            requests.get(running.url.replace("https", "http"), timeout=5)
    finally:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("server.pem", None, "belong together"),
        ("server.pem", "ca.pem", "cannot be used"),
        ("no.pem", "server.key", "No such"),
    ],
)
def test_what_tls_cannot_be_spoken_with_is_told(tmp_path, cert, key, said):
    authority_and_server(tmp_path)
    flags = ["--tls-cert", str(tmp_path / cert), *(["--tls-key", str(tmp_path / key)] if key else [])]
    process = serve(tmp_path, *flags)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 120, told
    assert said in told
    assert "Traceback" not in told
