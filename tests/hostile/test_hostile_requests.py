"""Requests that no client of ours sends: only answers of the 4xx kind, no trace, and others are served meanwhile."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
import requests

from carbon_sched.client import Client
from carbon_sched.domain.errors import TooMany
from carbon_sched.service.rates import Rates
from tests.fakes.served import TOKEN, served
from tests.fakes.world import FakeClock

__all__ = ["served"]

AUTH = {"Authorization": f"Bearer {TOKEN}"}


def answer_to(served, raw: bytes) -> str:
    """The first line of the answer to bytes on the wire; empty for a closed connection."""
    host, port = served.listener.getsockname()
    with socket.create_connection((host, port), timeout=10) as wire:
        wire.sendall(raw)
        return wire.makefile("rb").readline().decode()


@pytest.mark.parametrize("path", ["/v1/jobs", "/api/jobs/", "/v1/tokens", "/v1/policies/effective"])
@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b'{"entrypoint": "' + b"\xed\xa0\x80" + b'"}',
        b'{"entrypoint": "\\ud800"}',
        b'{"entrypoint": "a\\u0000b"}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"entrypoint": "true", "runtime_env": {"config": ' + b"[" * 400 + b"]" * 400 + b"}}",
        b'{"entrypoint": "true", "runtime_env": {"config": ' + b"[" * 9000 + b"]" * 9000 + b"}}",
        b'{"entrypoint": "true", "duration_s": NaN}',
        b'{"entrypoint": "true", "duration_s": 1e999}',
        b'{"entrypoint": "true", "resources": {"gpus": ' + b"9" * 5000 + b"}}",
        b'{"entrypoint": "true", "entrypoint_num_cpus": -1}',
        b'{"entrypoint": {"a": 1}}',
        b"null",
        b"0",
    ],
    ids=range(14),
)
def test_a_body_that_cannot_be_meant_is_refused(served, path, body):
    answer = requests.post(
        served.url + path, data=body, headers={**AUTH, "Content-Type": "application/json"}, timeout=9
    )
    assert 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    assert served.client.jobs()["jobs"] == []


@pytest.mark.parametrize("since", ["2026-11-23T18:00:00", "0001-01-01T00:00:00+08:41", "9999-12-31T23:00:00-02:00"])
def test_a_time_that_is_no_instant_is_refused(served, since):
    answer = requests.get(f"{served.url}/v1/jobs", params={"since": since}, headers=AUTH, timeout=9)
    assert (answer.status_code, answer.json()["field"]) == (400, "since"), answer.text


def test_a_body_larger_than_is_taken_is_refused_before_it_is_read(served):
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 104857600\r\n"
    )
    assert " 413 " in answer_to(served, f"{head}Content-Type: application/json\r\n\r\n".encode() + b"{")

    def endless():
        for _ in range(6):
            yield b" " * 1024 * 1024

    assert requests.post(f"{served.url}/v1/jobs", data=endless(), headers=AUTH, timeout=9).status_code == 413


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX\x00: a\r\n\r\n",
        b"GET http://evil.example/v1/jobs HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\n\r\n",
        b"GET /v1/../v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/%2e%2e/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1//jobs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /V1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/jobs;/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"TRACE /v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/jobs?name=%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/jobs?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    ],
    ids=range(17),
)
def test_smuggled_headers_and_paths_reach_nothing(served, raw):
    line = answer_to(served, raw)
    assert line == "" or line.split()[1].startswith("4"), line


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:80", "", "local host", "[::1", "a@b"]
)
def test_a_name_that_is_not_the_servers_is_not_answered(served, host):
    assert requests.get(f"{served.url}/healthz", headers={"Host": host}, timeout=5).status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8265", "127.0.0.1", "[::1]:80", "10.0.0.7", "localhost."])
def test_the_servers_own_names_and_plain_addresses_are_answered(served, host):
    assert requests.get(f"{served.url}/healthz", headers={"Host": host}, timeout=5).status_code == 200


def test_two_hundred_slow_senders_hold_nobody_up(served):
    host, port = served.listener.getsockname()
    rest = f"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 99\r\n\r\n{{"
    lines = ("POST /v1/jobs", f"PUT /v1/bundles/{'0' * 64}", "PUT /api/packages/gcs/x.zip")
    heads = [b"GET /v1/jobs HTTP/1.1\r\nHost: loc", *(f"{line} {rest}".encode() for line in lines)]
    slow = [socket.create_connection((host, port), timeout=10) for _ in range(200)]
    try:
        for number, wire in enumerate(slow):
            wire.sendall(heads[number % len(heads)])
        with Client(served.url, TOKEN) as client:
            assert client.jobs()["jobs"] == []
            assert client.submit({"entrypoint": "true"}, idempotency_key="k")["state"] == "queued"
    finally:
        for wire in slow:
            wire.close()


def test_sixty_four_waiting_readers_hold_nobody_up(served):
    job = served.client.submit({"entrypoint": "true"}, idempotency_key="k")
    answers = []

    def wait(number: int) -> None:
        with Client(served.url, TOKEN) as client:
            if number % 2:
                answers.append(client.job(job["job_id"], wait_version=job["version"], timeout_s=60))
            else:
                answers.append(client.logs(job["job_id"], wait_s=60))

    readers = [threading.Thread(target=wait, args=(number,)) for number in range(64)]
    for reader in readers:
        reader.start()
    begin = time.monotonic()
    with Client(served.url, TOKEN) as client:
        assert client.stop(job["job_id"])["state"] == "stopped"
    assert time.monotonic() - begin < 30
    for reader in readers:
        reader.join(60)
    assert len(answers) == 64


def test_one_caller_cannot_ask_for_all_that_there_is():
    clock = FakeClock()
    rates = Rates(clock, per_s=10)
    for _ in range(20):
        rates.take("eve")
    with pytest.raises(TooMany):
        rates.take("eve")
    rates.take("ada")
    clock.pass_s(0.1)
    rates.take("eve")
    with pytest.raises(TooMany):
        rates.take("eve")


def test_a_caller_who_asks_too_often_is_told_so_and_when_to_come_back(served):
    object.__setattr__(served.app.state.context, "rates", Rates(FakeClock(), per_s=0.5))
    statuses = [requests.get(f"{served.url}/v1/session", headers=AUTH, timeout=5) for _ in range(2)]
    assert [answer.status_code for answer in statuses] == [200, 429]
    assert statuses[1].headers["Retry-After"] == "1"
    assert requests.get(f"{served.url}/healthz", timeout=5).status_code == 200


def test_every_answer_forbids_guessing_and_keeping(served):
    for path in ("/healthz", "/v1/jobs", "/nowhere"):
        headers = requests.get(served.url + path, headers=AUTH, timeout=5).headers
        assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/v1/jobs/a/b/c", 404), ("/v1/server/shutdown", 405)])
def test_what_the_framework_refuses_is_a_problem_too(served, path, status):
    answer = requests.get(served.url + path, headers=AUTH, timeout=5)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"status", "title", "detail", "code", "exit_code"} <= set(json.loads(answer.content))
