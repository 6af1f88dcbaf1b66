"""24 hours in which every provider fails, each hour in another way: no job is late, no provider is pestered."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise

import pytest

from carbon_sched.domain.errors import (
    GridAuth,
    GridExpired,
    GridMalformed,
    GridNoData,
    GridRateLimited,
    GridTransient,
    GridUnreachable,
    ZoneNotCovered,
)
from carbon_sched.domain.intensity import Grade
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.grid.cache import CachedSource, FromMemory
from carbon_sched.grid.chain import Grid
from carbon_sched.grid.yearly import YearlyTable
from carbon_sched.service.forecasts import OwnForecasts
from carbon_sched.service.refresh import Archive, Refresh
from tests.fakes.grid import reading
from tests.fakes.world import World, a_cluster

HOUR = timedelta(hours=1)
ZONES = ("DE", "FR")
FAULTS = (
    GridTransient("no answer in time"),
    GridUnreachable("no network"),
    GridRateLimited("slow down", 1800.0),
    GridMalformed("a web page"),
    GridAuth("wrong key"),
    GridExpired("trial over"),
    GridNoData("nothing there"),
    ZoneNotCovered("not in this plan"),
)


class Provider:
    """Hourly values with a daily course and six hours of forecast, until it fails; remembers when it was asked."""

    ttl, lookback, horizon, max_span = timedelta(minutes=15), timedelta(days=90), 6 * HOUR, timedelta(days=90)

    def __init__(self, name):
        self.name, self.asked, self.fails_from = name, [], None

    def zones(self):
        return frozenset(ZONES)

    def fetch(self, zone, start, end, now):
        self.asked.append((zone, now))
        if self.fails_from is not None:
            raise FAULTS[int((now - self.fails_from) / HOUR) % len(FAULTS)]
        at, last = start.replace(minute=0), min(end, now.replace(minute=0) + self.horizon)
        hours = (at + h * HOUR for h in range(math.ceil((last - at) / HOUR)))
        return [reading(zone, h, h + HOUR, self.value(h), provider=self.name, now=now) for h in hours]

    def value(self, at):
        return 300 + 150 * math.cos(2 * math.pi * at.hour / 24)


class Outage:
    """A world whose grid is the real chain over two providers that end to answer an hour after its start."""

    def __init__(self, folder):
        self.world = World(folder, [a_cluster("one", "DE", home=True), a_cluster("two", "FR")], {})
        self.providers = [Provider("first"), Provider("second")]
        archive, clock = Archive(self.world.store), self.world.clock
        sources = [CachedSource(provider, archive.take) for provider in self.providers]
        self.refresh = Refresh(sources, archive, self.world.store, lambda: ZONES, clock, self.world.signals)
        self.sources, self.own = sources, OwnForecasts(clock)
        self.outlooks = self.world.outlooks
        self.outlooks._grid = Grid([FromMemory(s) for s in sources], YearlyTable.load(), forecaster=self.own)

    def fail(self):
        for provider in self.providers:
            provider.fails_from = self.world.clock.now()

    def refreshed(self):
        for source in self.sources:
            while self.refresh.step(source) == 0.0:
                pass

    def turn(self):
        """One turn of every loop that leads to a start."""
        self.refreshed()
        self.own.step()
        for cluster in self.world.fleet.all():
            self.world.fleet.poll(cluster)
        self.world.decide.step()
        self.world.dispatch.step()


@pytest.fixture
def outage(tmp_path):
    outage = Outage(tmp_path)
    yield outage
    outage.refresh.close()
    outage.world.close()


def test_no_job_is_late(outage):
    """A job of an hour every two hours, due in 3 to 14 hours; each starts in time, and some wait for a better hour."""
    world, jobs, grades = outage.world, [], set()
    for turn in range(25 * 2):
        now = world.clock.now()
        if turn == 2:
            outage.fail()
        if turn % 4 == 0:
            deadline = now + (3 + turn // 4) * HOUR
            jobs.append((world.submit(duration_s=3600, deadline=to_rfc3339(deadline)), deadline))
        outage.turn()
        grades.add(outage.outlooks.of(ZONES, now, now + HOUR)["DE"].readings[0].grade)
        world.clock.pass_s(1800)
    waits = []
    for job, deadline in jobs:
        opened = [attempt.opened_at for attempt in world.attempts(job)]
        assert opened or deadline > world.clock.now() + HOUR, f"due at {deadline}: {world.job(job)}"
        assert all(at + HOUR <= deadline for at in opened)
        waits += [at - job.submitted_at for at in opened]
    assert len(waits) >= 8
    assert max(waits) >= 2 * HOUR, "delaying went on with the forecast that was left"
    assert grades == {Grade.LIVE, Grade.PROVIDER_FORECAST, Grade.OWN_FORECAST}


def test_each_provider_is_asked_at_most_once_per_zone_and_interval(outage):
    outage.refreshed()
    outage.fail()
    for provider in outage.providers:
        provider.asked.clear()
    for _ in range(24 * 60):
        outage.world.clock.pass_s(60)
        outage.refreshed()
    for provider in outage.providers:
        for zone in ZONES:
            times = [at for asked, at in provider.asked if asked == zone]
            assert len(times) > 24, "it went on trying"
            assert all(later - at >= provider.ttl for at, later in pairwise(times))
