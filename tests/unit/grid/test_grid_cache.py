from __future__ import annotations

import itertools
import threading
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import GridAuth, GridRateLimited, GridTransient, ZoneNotCovered
from carbon_sched.domain.intensity import Grade, Kind
from carbon_sched.grid.cache import CachedSource
from carbon_sched.grid.chain import Grid
from carbon_sched.grid.yearly import YearlyTable
from tests.fakes.grid import HOUR, T0, reading

QUARTER = timedelta(minutes=15)
NOW = T0 + timedelta(days=40, hours=14, minutes=7)


class FakeProvider:
    """Hourly values for any time up to 36 h ahead; counts what it is asked; fails while `error` is set."""

    name = "fake"
    ttl = QUARTER
    lookback = timedelta(days=365)
    horizon = timedelta(hours=36)
    max_span = timedelta(days=7)

    def __init__(self):
        self.asked = []
        self.error = None
        self.offset = 0.0
        self.started, self.go = threading.Event(), threading.Event()
        self.go.set()

    def zones(self):
        return frozenset({"DE", "FR"})

    def fetch(self, zone, start, end, now):
        self.asked.append((zone, start, end))
        self.started.set()
        self.go.wait(10)
        if self.error:
            raise self.error
        first = start.replace(minute=0, second=0, microsecond=0)
        hours = int((min(end, now + self.horizon) - first) / HOUR) + 1
        return [
            reading(zone, first + h * HOUR, first + (h + 1) * HOUR, 100.0 + h % 24 + self.offset, now=now)
            for h in range(hours)
            if first + h * HOUR < min(end, now + self.horizon)
        ]


def near(source, now, zone="DE"):
    return source.readings(zone, now - 2 * HOUR, now + 12 * HOUR, now)


def test_a_provider_is_asked_once_per_zone_and_interval():
    provider = FakeProvider()
    source = CachedSource(provider)
    for minutes in range(60):
        near(source, NOW + timedelta(minutes=minutes))
    assert len(provider.asked) == 4
    near(source, NOW, "FR")
    assert [zone for zone, _, _ in provider.asked].count("FR") == 1


def test_the_past_is_asked_for_once_in_long_spans():
    provider = FakeProvider()
    source = CachedSource(provider)
    for minutes in (0, 1, 20, 40):
        now = NOW + timedelta(minutes=minutes)
        found = source.readings("DE", now - timedelta(days=28), now, now)
        assert found[0].start <= now - timedelta(days=28)
        assert all(a.end == b.start for a, b in itertools.pairwise(found))
    past = [(start, end) for _, start, end in provider.asked if end < NOW]
    assert len(past) == 4, "26 days and a bit, seven at a time"
    assert len(provider.asked) == 4 + 3


def test_a_day_that_leaves_the_recent_window_is_asked_for_once_more():
    provider = FakeProvider()
    source = CachedSource(provider)
    source.readings("DE", NOW - timedelta(days=10), NOW, NOW)
    before = len(provider.asked)
    later = NOW + timedelta(days=1)
    source.readings("DE", later - timedelta(days=10), later, later)
    spans = [end - start for _, start, end in provider.asked[before:]]
    assert len(spans) == 2
    assert spans[1] == timedelta(days=1)


def test_while_it_fails_the_past_stays_and_forecasts_serve_for_a_day():
    provider = FakeProvider()
    source = CachedSource(provider)
    near(source, NOW)
    provider.error = GridTransient("fake: down")
    soon = NOW + timedelta(hours=20)
    assert [r.kind for r in near(source, soon)][-1] is Kind.FORECAST
    assert source.problem("DE") == "fake: down"
    late = NOW + timedelta(hours=25)
    with pytest.raises(GridTransient, match="fake: down"):
        near(source, late)
    assert source.readings("DE", NOW - 2 * HOUR, NOW, late), "what was measured stays true"


def test_a_day_of_outage_is_one_call_per_zone_and_interval_and_the_chain_goes_down_the_grades():
    provider = FakeProvider()
    source = CachedSource(provider)
    grid = Grid([source], YearlyTable.load())
    grid.outlook("DE", NOW, NOW + timedelta(days=2))
    provider.error, provider.asked = GridTransient("fake: down"), []
    grades = []
    for minutes in range(24 * 60):
        now = NOW + timedelta(minutes=minutes)
        outlook = grid.outlook("DE", now, now + timedelta(days=2))
        assert outlook.readings[0].start == now
        grades.append(outlook.readings[0].grade)
    assert len(provider.asked) <= 24 * 4
    assert set(grades) == {Grade.LIVE, Grade.PROVIDER_FORECAST}
    now = NOW + timedelta(hours=30)
    assert grid.outlook("DE", now, now + timedelta(days=2)).readings[0].grade > Grade.PROVIDER_FORECAST
    provider.error = None
    assert near(source, now + QUARTER)
    assert source.problem("DE") is None


def test_one_request_is_under_way_however_many_ask():
    provider = FakeProvider()
    provider.go.clear()
    source, found = CachedSource(provider), []
    threads = [threading.Thread(target=lambda: found.append(near(source, NOW))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert provider.started.wait(10)
    provider.go.set()
    for thread in threads:
        thread.join(10)
    assert len(provider.asked) == 1
    assert len(found) == 8
    assert all(one == found[0] for one in found)


def test_who_knows_something_does_not_wait_for_a_slow_request_of_another():
    provider = FakeProvider()
    source = CachedSource(provider)
    before = near(source, NOW)
    provider.started.clear()
    provider.go.clear()
    slow = threading.Thread(target=near, args=(source, NOW + QUARTER))
    slow.start()
    assert provider.started.wait(10)
    assert near(source, NOW + QUARTER)[: len(before) - 1] == before[: len(before) - 1]
    assert slow.is_alive()
    provider.go.set()
    slow.join(10)
    assert len(provider.asked) == 2


def test_retry_after_is_obeyed():
    provider = FakeProvider()
    provider.error = GridRateLimited("fake: slow down", 7200.0)
    source = CachedSource(provider)
    for minutes in range(0, 119, 7):
        with pytest.raises(GridRateLimited) as limited:
            near(source, NOW + timedelta(minutes=minutes))
        assert limited.value.retry_after_s == 7200.0
    assert len(provider.asked) == 1
    with pytest.raises(GridRateLimited):
        near(source, NOW + timedelta(minutes=120))
    assert len(provider.asked) == 2


def test_a_zone_outside_the_plan_is_not_asked_for_all_the_time():
    provider = FakeProvider()
    provider.error = ZoneNotCovered("fake: not in this plan")
    source = CachedSource(provider)
    for hours in range(6):
        with pytest.raises(ZoneNotCovered):
            near(source, NOW + hours * HOUR)
    assert len(provider.asked) == 1


def test_a_failing_past_does_not_hide_the_present():
    provider = FakeProvider()
    source = CachedSource(provider)
    near(source, NOW)
    provider.error = GridAuth("fake: no history in this plan")
    found = source.readings("DE", NOW - timedelta(days=28), NOW, NOW)
    assert found[-1].end > NOW - HOUR
    asked = len(provider.asked)
    source.readings("DE", NOW - timedelta(days=28), NOW, NOW + timedelta(minutes=1))
    assert len(provider.asked) == asked


def test_a_revision_is_a_further_reading_and_the_same_value_is_not():
    provider, seen = FakeProvider(), []
    source = CachedSource(provider, seen.extend)
    first = near(source, NOW)
    count = len(seen)
    near(source, NOW + QUARTER)
    assert {r.start for r in seen[count:]} <= {NOW.replace(minute=0) + 36 * HOUR}, "only the hour come into sight"
    provider.offset = 5.0
    second = near(source, NOW + 2 * QUARTER)
    assert second[0].intensity_mg_per_kwh == first[0].intensity_mg_per_kwh + 5000
    assert first[0] in seen
    assert second[0] in seen
    assert second[0].fetched_at > first[0].fetched_at


def test_a_forecast_that_came_true_is_a_further_reading():
    provider, seen = FakeProvider(), []
    source = CachedSource(provider, seen.extend)
    near(source, NOW)
    near(source, NOW + 2 * HOUR)
    hour = NOW.replace(minute=0) + HOUR
    assert [r.kind for r in seen if r.start == hour] == [Kind.FORECAST, Kind.MEASURED]


def test_only_its_own_zones_are_answered():
    provider = FakeProvider()
    source = CachedSource(provider, zones=("DE", "GB"))
    assert source.zones() == {"DE"}
    for zone in ("FR", "GB"):
        with pytest.raises(ZoneNotCovered):
            near(source, NOW, zone)
    assert provider.asked == []


def test_memory_is_bounded():
    provider = FakeProvider()
    source = CachedSource(provider)
    for days in range(0, 400, 7):
        now = NOW + timedelta(days=days)
        source.readings("DE", now - timedelta(days=7), now, now)
    memory = source._memories["DE"]
    assert len(memory.readings) <= 24 * 95
    assert len(memory.held) <= 95
