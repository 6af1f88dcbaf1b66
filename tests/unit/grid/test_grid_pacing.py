from __future__ import annotations

from datetime import datetime

import pytest

from carbon_sched.domain.errors import GridTransient
from carbon_sched.domain.time import UTC
from carbon_sched.grid.answers import quoted, retry_after_s, shown
from carbon_sched.grid.pacing import Breaker, Rate, TokenBucket
from tests.fakes.clock import StoppedClock

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def test_a_bucket_gives_a_burst_and_then_its_rate():
    clock = StoppedClock()
    bucket = TokenBucket(Rate(per_s=0.5, burst=3), clock.monotonic)
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 2.0]
    clock.pass_s(1.0)
    assert bucket.take() == pytest.approx(1.0)
    clock.pass_s(1.0)
    assert bucket.take() == 0.0
    clock.pass_s(3600.0)
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 2.0], "it never holds more than the burst"


def test_a_breaker_opens_after_three_failures_and_probes_once_per_pause():
    clock = StoppedClock()
    breaker, error = Breaker(clock.monotonic), GridTransient("down")
    for _ in range(3):
        assert breaker.enter() is None
        breaker.failed(error)
    assert str(breaker.enter()) == "down"
    clock.pass_s(59.0)
    assert breaker.enter() is not None
    clock.pass_s(1.0)
    assert breaker.enter() is None, "the probe"
    assert breaker.enter() is not None, "only one probe at a time"
    breaker.failed(error)
    clock.pass_s(119.0)
    assert breaker.enter() is not None, "the second pause is twice as long"
    clock.pass_s(1.0)
    assert breaker.enter() is None
    breaker.succeeded()
    assert breaker.enter() is None
    assert breaker.healthy


def test_pauses_never_exceed_a_quarter_of_an_hour():
    clock = StoppedClock()
    breaker = Breaker(clock.monotonic)
    for _ in range(40):
        breaker.failed(GridTransient("down"))
    clock.pass_s(900.0)
    assert breaker.enter() is None


def test_one_success_forgets_earlier_failures():
    breaker = Breaker(StoppedClock().monotonic)
    for _ in range(10):
        breaker.failed(GridTransient("down"))
        breaker.failed(GridTransient("down"))
        breaker.succeeded()
    assert breaker.enter() is None


def test_what_the_breaker_gives_is_a_copy_that_drags_no_traceback():
    breaker = Breaker(StoppedClock().monotonic)
    error = GridTransient("down")
    breaker.pause(error, 10.0)
    first, second = breaker.enter(), breaker.enter()
    assert first is not error
    assert first is not second
    assert first.__traceback__ is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Tue, 10 Mar 2026 12:01:30 GMT", 90.0),
        ("Tue, 10 Mar 2026 11:00:00 GMT", 0.0),
        ("99999999", 86400.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after_s(value, NOW) == seconds


def test_shown_urls_hold_no_keys():
    url = "https://x/api?securityToken=abc&documentType=A75&api_key=d%20e&key=f"
    assert shown(url) == "https://x/api?securityToken=***&documentType=A75&api_key=***&key=***"


def test_quotes_are_one_short_clean_line_without_secrets():
    assert quoted("a\x1b[31m\n  b s3cret c", ("s3cret",)) == "a [31m b *** c"
    assert len(quoted("x" * 5000, ())) == 203
