"""The refresh loops: what they ask, archive and restore, and that planning never waits for any of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import GridTransient, StoreError
from carbon_sched.domain.intensity import Grade, Kind
from carbon_sched.grid.cache import CachedSource, FromMemory
from carbon_sched.grid.chain import Grid
from carbon_sched.grid.yearly import YearlyTable
from carbon_sched.service import refresh
from carbon_sched.service.refresh import Archive, Refresh
from carbon_sched.service.signals import Signals
from carbon_sched.store.engine import open_store
from tests.fakes.clock import StoppedClock
from tests.fakes.grid import HOUR, T0, reading
from tests.fakes.world import World, a_cluster

NOW = T0 + timedelta(days=30)
DAY = timedelta(days=1)
HISTORY = timedelta(days=84)


class Provider:
    """Hourly values, 200 g/kWh, known a day ahead; counts its requests and fails on demand."""

    name = "fake"
    ttl = timedelta(minutes=15)
    lookback = timedelta(days=90)
    horizon = DAY
    max_span = timedelta(days=90)

    def __init__(self, zones=("DE", "FR")):
        self._zones = frozenset(zones)
        self.asked: list[tuple] = []
        self.error = None
        self.value, self.retention = 200.0, "full"

    def zones(self):
        return self._zones

    def fetch(self, zone, start, end, now):
        self.asked.append((zone, start, end))
        if self.error:
            raise self.error
        at = start.replace(minute=0)
        found = []
        while at < min(end, now.replace(minute=0, second=0) + self.horizon):
            one = reading(zone, at, at + HOUR, self.value, provider=self.name, now=now)
            found.append(replace(one, issued_at=now, retention=self.retention))
            at += HOUR
        return found


class Life:
    """One life of the server on a store that outlives it."""

    def __init__(self, store, clock, provider, zones=("DE",), *, leads=True):
        self.clock, self.signals, self.zones = clock, Signals(), list(zones)
        self.archive = Archive(store)
        self.source = CachedSource(provider, self.archive.take)
        self.leads = leads
        arguments = (self.archive, store, lambda: self.zones, clock, self.signals, lambda: self.leads)
        self.refresh = Refresh([self.source], *arguments)
        self.grid = Grid([FromMemory(self.source)], YearlyTable.load())

    def turn(self):
        """Steps until there is nothing due."""
        while self.refresh.step(self.source) == 0.0:
            pass

    def now(self, zone="DE"):
        return self.grid.outlook(zone, self.clock.now(), self.clock.now() + HOUR).readings[0]


@pytest.fixture
def clock():
    return StoppedClock(NOW)


@pytest.fixture
def store(tmp_path, clock):
    store = open_store(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    yield store
    store.close()


def archived(store, zone="DE"):
    with store.transaction(write=False) as tx:
        return tx.readings(zone, NOW - 2 * HISTORY, NOW + HISTORY)


def test_planning_asks_nobody(store, clock):
    provider = Provider()
    life = Life(store, clock, provider)
    assert life.now().grade is Grade.ZONE_YEAR
    assert life.grid.actual("DE", NOW - DAY, NOW, NOW)
    assert provider.asked == []
    life.turn()
    assert life.now().grade is Grade.LIVE
    asked = len(provider.asked)
    clock.pass_s(3600)
    life.now()
    assert len(provider.asked) == asked


def test_each_zone_is_asked_once_per_interval_and_only_those_in_use(store, clock):
    provider = Provider()
    life = Life(store, clock, provider)
    for _ in range(60):
        life.turn()
        clock.pass_s(60)
    recent = [zone for zone, start, _ in provider.asked if start > NOW - 3 * DAY]
    assert recent == ["DE"] * 4
    assert len(provider.asked) == 5, "and once for the weeks before"
    life.zones.append("FR")
    life.turn()
    assert [zone for zone, _, _ in provider.asked[5:]].count("FR") == 2


def test_a_new_zone_wakes_the_loops(tmp_path):
    world = World(tmp_path, [], {})
    events = [world.signals.wake_for_zones(), world.signals.wake_for_zones()]
    world.fleet.put(a_cluster("new", "DE"))
    assert all(event.is_set() for event in events)
    assert world.fleet.zones() == ["DE"]
    world.close()


def test_new_readings_are_archived_and_wake_the_planner(store, clock, monkeypatch):
    monkeypatch.setattr(refresh, "BATCH", 100)
    provider = Provider()
    life = Life(store, clock, provider)
    life.turn()
    kept = archived(store)
    assert len([r for r in kept if r.kind is Kind.MEASURED]) >= 28 * 24
    assert life.signals.decide.is_set()
    life.signals.decide.clear()
    clock.pass_s(1200)
    life.turn()
    assert not life.signals.decide.is_set(), "the same values again are no news"
    provider.value = 250.0
    clock.pass_s(1200)
    life.turn()
    assert life.signals.decide.is_set()
    assert {r.intensity_mg_per_kwh for r in archived(store)} == {200_000, 250_000}


def test_what_may_not_be_stored_is_not(store, clock):
    provider = Provider()
    provider.retention = "used-only"
    life = Life(store, clock, provider)
    life.turn()
    assert life.now().grade is Grade.LIVE
    assert archived(store) == []
    assert life.signals.decide.is_set(), "but planned with"


def test_after_a_restart_the_archive_stands_in_for_a_provider_that_is_away(store, clock):
    Life(store, clock, Provider()).turn()
    clock.pass_s(3600)
    gone = Provider()
    gone.error = GridTransient("fake: no answer in time")
    life = Life(store, clock, gone)
    life.turn()
    assert (life.now().grade, life.now().kind) == (Grade.PROVIDER_FORECAST, Kind.FORECAST)
    past = life.grid.actual("DE", clock.now() - HISTORY, NOW, clock.now())
    assert {r.grade for r in past} == {Grade.LIVE}
    assert dict(life.source.problems()) == {"DE": "fake: no answer in time"}


def test_after_a_restart_whole_past_days_are_not_asked_for_again(store, clock):
    Life(store, clock, Provider()).turn()
    clock.pass_s(3600)
    again = Provider()
    Life(store, clock, again).turn()
    assert [start >= NOW - 3 * DAY for _, start, _ in again.asked] == [True]


def test_what_was_booked_is_not_taken_for_what_the_provider_said(store, clock):
    """Booked readings lie in the same archive: cut at a job's ends, or at the level of another provider."""
    whole = reading("DE", NOW - HOUR, NOW, 200.0, provider="fake", now=NOW)
    cut = replace(whole, start=NOW - timedelta(minutes=20, seconds=7), fetched_at=NOW + HOUR)
    scaled = replace(whole, intensity_mg_per_kwh=999_000, model_version="at the level of other (x5.0)")
    fine = replace(whole, intensity_mg_per_kwh=998_000, model_version="in steps of fake")
    other = replace(whole, provider="other", intensity_mg_per_kwh=997_000)
    with store.transaction() as tx:
        tx.add_readings([whole, cut, scaled, fine, other])
    gone = Provider()
    gone.error = GridTransient("fake: away")
    life = Life(store, clock, gone)
    life.turn()
    assert life.source.known("DE", NOW - HOUR, NOW, NOW) == [whole]


def test_a_revision_replaces_what_was_archived_before_it(store, clock):
    first = reading("DE", NOW - HOUR, NOW, 200.0, provider="fake", now=NOW)
    revised = replace(first, intensity_mg_per_kwh=210_000, issued_at=NOW + HOUR, fetched_at=NOW + HOUR)
    with store.transaction() as tx:
        tx.add_readings([revised, first])
    clock.pass_s(7200)
    gone = Provider()
    gone.error = GridTransient("fake: away")
    life = Life(store, clock, gone)
    life.turn()
    assert life.source.known("DE", NOW - HOUR, NOW, clock.now()) == [revised]


def test_while_the_store_is_away_nothing_is_lost(store, clock, monkeypatch):
    provider = Provider()
    life = Life(store, clock, provider)
    monkeypatch.setattr(life.archive, "_store", Broken())
    with pytest.raises(StoreError):
        life.turn()
    assert life.now().grade is Grade.LIVE
    monkeypatch.setattr(life.archive, "_store", store)
    life.turn()
    assert len(archived(store)) >= 28 * 24


class Broken:
    def transaction(self, *, write=True):
        raise StoreError


def test_a_person_may_ask_for_any_zone(store, clock):
    provider = Provider()
    life = Life(store, clock, provider, zones=())
    life.refresh.ask(["FR", "FR", "XX"])
    assert life.now("FR").grade is Grade.LIVE
    assert {zone for zone, _, _ in provider.asked} == {"FR"}
    life.refresh.ask(["FR"], clock.now() - timedelta(days=60))
    assert min(start for _, start, _ in provider.asked) <= clock.now() - timedelta(days=60)
    life.refresh.close()


def test_only_the_leader_asks_for_zones_in_use_and_the_others_read_what_it_stored(store, clock):
    asked_by_leader, asked_by_other = Provider(), Provider()
    leader, other = Life(store, clock, asked_by_leader), Life(store, clock, asked_by_other, leads=False)
    for value in (200.0, 150.0):
        asked_by_leader.value = value
        leader.turn()
        other.turn()
        assert other.now().intensity_mg_per_kwh == leader.now().intensity_mg_per_kwh == value * 1000
        clock.pass_s(HOUR.total_seconds())
    other.refresh.ask(["DE"])
    assert asked_by_other.asked == []
    other.refresh.ask(["FR"])
    assert {zone for zone, *_ in asked_by_other.asked} == {"FR"}, "which no leader asks for"
    other.leads = True
    other.turn()
    assert asked_by_other.asked[-1][0] == "DE"
    for life in (leader, other):
        life.refresh.close()
