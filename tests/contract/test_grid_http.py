from __future__ import annotations

import logging
import time
from datetime import datetime

import pytest

from carbon_sched.domain.errors import GridAuth, GridMalformed, GridRateLimited, GridTransient, InvalidInput
from carbon_sched.domain.time import UTC
from carbon_sched.grid.http import Channel, Limits, Web
from carbon_sched.grid.pacing import Rate
from tests.fakes.clock import StoppedClock
from tests.fakes.grid_server import GridServer

NOW = datetime(2026, 3, 10, 14, 20, tzinfo=UTC)
SECRET = "s3cret-canary"


class SleepyClock(StoppedClock):
    """Remembers how long it was told to sleep."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_s(seconds)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def running():
    with GridServer(NOW) as server:
        yield server


@pytest.fixture
def server(running):
    running.reset(NOW)
    running.answers["plain"] = lambda *_: (200, {"ok": True})
    return running


def channel_of(server, clock=None, rate=None, **limits):
    clock = clock or SleepyClock()
    web = Web(clock, clock.sleep, lambda: 0.5, Limits(**limits))
    return Channel(web, "test", server.base("plain"), rate or Rate(per_s=1000.0, burst=1000))


def test_a_plain_answer(server):
    data, answer = channel_of(server).get_json("/x", {"a": "1", "b": ["2", "3"]})
    assert data == {"ok": True}
    assert answer.at == NOW
    path, query, headers = server.requests[0]
    assert (path, query) == ("/plain/x", {"a": ["1"], "b": ["2", "3"]})
    assert headers["user-agent"].startswith("carbon-sched/")


def test_failures_are_tried_again_with_growing_jittered_waits_while_healthy(server):
    server.fault = 503
    clock = SleepyClock()
    channel = channel_of(server, clock, tries=4, backoff_s=1.0)
    with pytest.raises(GridTransient, match="503"):
        channel.get("/x")
    assert clock.slept == [1.0, 2.0, 4.0]
    with pytest.raises(GridTransient):
        channel.get("/x")
    assert len(server.requests) == 5, "after a failed call: one try"


def test_an_open_breaker_asks_nobody(server):
    server.fault = 500
    clock = SleepyClock()
    channel = channel_of(server, clock, tries=1)
    for _ in range(10):
        with pytest.raises(GridTransient):
            channel.get("/x")
    assert len(server.requests) == 3
    server.fault = None
    clock.pass_s(60.0)
    assert channel.get("/x").status == 200


def test_a_short_retry_after_is_waited_for_and_a_long_one_is_not(server):
    server.fault, server.faults_left, server.retry_after = 429, 1, "3"
    clock = SleepyClock()
    assert channel_of(server, clock).get("/x").status == 200
    assert clock.slept == [3.0]
    server.reset(NOW)
    server.fault, server.retry_after = 429, "600"
    channel = channel_of(server, clock)
    for _ in range(5):
        with pytest.raises(GridRateLimited) as limited:
            channel.get("/x")
        assert limited.value.retry_after_s == 600.0
    assert len(server.requests) == 1, "not asked before its time"


def test_a_refused_key_is_not_tried_again_for_a_while(server):
    server.fault = 401
    channel = channel_of(server)
    for _ in range(5):
        with pytest.raises(GridAuth):
            channel.get("/x")
    assert len(server.requests) == 1


def test_our_own_rate_holds_us_back(server):
    clock = SleepyClock()
    channel = channel_of(server, clock, rate=Rate(per_s=1.0, burst=2))
    for _ in range(4):
        channel.get("/x")
    assert clock.slept == pytest.approx([1.0, 1.0])
    slow = channel_of(server, clock, rate=Rate(per_s=0.01, burst=1))
    slow.get("/x")
    with pytest.raises(GridRateLimited, match="we ask too often"):
        slow.get("/x")


@pytest.mark.parametrize("fault", ["drip", "drip-headers", "silent"])
def test_a_call_ends_within_its_deadline_whatever_the_other_side_does(server, fault):
    server.fault = fault
    began = time.monotonic()
    with pytest.raises(GridTransient, match=r"within 0\.3 s|in time"):
        channel_of(server, total_s=0.3, tries=1, read_s=5.0).get("/x")
    assert time.monotonic() - began < 5.0, "sixteen times the deadline, for a machine that is busy"


def test_redirects_are_followed_on_the_same_place_only(server):
    server.answers["plain"] = lambda *_: (200, {"here": True})
    server.fault, server.faults_left = "loop", 1
    assert channel_of(server).get_json("/x")[0] == {"here": True}
    server.fault, server.faults_left = "redirect", 1
    with pytest.raises(GridMalformed, match=r"another place \(localhost\)"):
        channel_of(server).get("/x")
    assert not [path for path, _, _ in server.requests if path == "/elsewhere"]


def test_an_answer_over_the_cap_is_left_unread(server):
    server.fault = "huge"
    with pytest.raises(GridMalformed, match="larger than 1000000 bytes"):
        channel_of(server, max_bytes=1_000_000).get("/x")


def test_keys_are_not_sent_in_the_clear_to_another_machine():
    clock = SleepyClock()
    channel = Channel(Web(clock, clock.sleep, lambda: 0.5), "test", "http://intensity.example")
    with pytest.raises(GridAuth, match="over plain http"):
        channel.get("/x", headers={"k": SECRET}, secrets=(SECRET,))


def test_keys_in_queries_are_in_no_log_and_no_shown_url(server, caplog):
    caplog.set_level(logging.DEBUG)
    answer = channel_of(server).get("/x", {"securityToken": SECRET}, secrets=(SECRET,))
    assert server.requests[0][1] == {"securityToken": [SECRET]}
    assert answer.url.endswith("/plain/x?securityToken=***")
    assert "GET /plain/x" in caplog.text
    assert SECRET not in caplog.text


def test_netrc_is_not_read(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    channel_of(server).get("/x")
    assert "authorization" not in server.requests[0][2]


@pytest.mark.parametrize(
    ("base", "error", "message"),
    [
        ("http://127.0.0.1:9", GridTransient, "no connection"),
        ("http://name-that-cannot-be.invalid", GridTransient, "cannot be resolved|no connection"),
    ],
)
def test_no_network_is_named(base, error, message):
    clock = SleepyClock()
    channel = Channel(Web(clock, clock.sleep, lambda: 0.5, Limits(tries=1)), "test", base)
    with pytest.raises(error, match=message):
        channel.get("/x")


@pytest.mark.parametrize(
    "base", ["ftp://127.0.0.1", "http://[::1", "http://me:pass@host", "http://", "host", "http://h:x"]
)
def test_an_address_that_is_none_is_refused_when_configured(base):
    clock = SleepyClock()
    with pytest.raises(InvalidInput, match="is not an address"):
        Channel(Web(clock, clock.sleep, lambda: 0.5), "test", base)


def test_a_redirect_to_nonsense_is_malformed(server):
    server.answers["plain"] = lambda *_: (200, {})
    server.fault = "redirect"
    server.redirect_to = "http://[::1"
    with pytest.raises(GridMalformed, match="a header cannot be read"):
        channel_of(server).get("/x")


def test_tls_to_something_that_speaks_none_is_transient(server):
    clock = SleepyClock()
    web = Web(clock, clock.sleep, lambda: 0.5, Limits(tries=1, total_s=2.0))
    with pytest.raises(GridTransient, match="TLS"):
        Channel(web, "test", server.base("plain").replace("http:", "https:")).get("/x")
