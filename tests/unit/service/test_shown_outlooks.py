"""What readers are shown of the grid: computed once for many, beside them, and never long ago."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import GridError
from carbon_sched.domain.intensity import Kind, Outlook
from carbon_sched.service.outlooks import FRESH, SHOWN, USABLE, Outlooks
from tests.fakes.world import START, FakeGrid

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
ZONES = ["DE", "FR"]


class Grid(FakeGrid):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__({zone: [(0.0, 100.0), (3600.0, 200.0)] for zone in ("DE", "FR", "PL")})
        self.asked = 0
        self.fails = False
        self.kind = Kind.MEASURED

    def outlooks(self, zones, now, until):
        self.asked += 1
        if self.fails:
            raise GridError("out of order")
        found = super().outlooks(zones, now, until)
        return {
            zone: Outlook(zone, tuple(replace(r, kind=self.kind) for r in one.readings)) for zone, one in found.items()
        }


@pytest.fixture
def grid():
    return Grid()


@pytest.fixture
def outlooks(grid):
    made = Outlooks(grid)
    yield made
    made.close()


def values(shown):
    return [reading.intensity_mg_per_kwh for reading in shown["DE"]]


def test_many_readers_are_shown_what_was_computed_once_each_from_its_own_moment_on(grid, outlooks):
    for passed in (0 * SECOND, 20 * SECOND, FRESH - SECOND):
        now = START + passed
        shown = outlooks.shown(ZONES, now)
        assert shown.keys() == set(ZONES)
        assert values(shown) == [100_000, 200_000]
        assert (shown["DE"][0].start, shown["DE"][-1].end >= now + SHOWN) == (now, True)
    assert grid.asked == 1


def test_who_came_a_moment_before_is_shown_the_same(grid, outlooks):
    outlooks.shown(ZONES, START)
    assert values(outlooks.shown(ZONES, START - SECOND)) == [100_000, 200_000]
    assert grid.asked == 1


def test_what_is_over_is_not_shown(outlooks):
    outlooks.shown(ZONES, START + HOUR - FRESH)
    assert values(outlooks.shown(ZONES, START + HOUR)) == [200_000]


def test_after_a_minute_readers_do_not_wait_for_the_next_and_then_get_it(grid, outlooks):
    outlooks.shown(ZONES, START)
    grid.steps["DE"] = [(0.0, 50.0)]
    assert values(outlooks.shown(ZONES, START + FRESH)) == [100_000, 200_000]
    outlooks.close()  # which waits for what is being computed
    assert values(outlooks.shown(ZONES, START + FRESH)) == [50_000]
    assert grid.asked == 2


@pytest.mark.parametrize(("kind", "asked"), [(Kind.STATIC, 2), (Kind.MEASURED, 1)])
def test_readings_that_come_replace_an_average_at_once(grid, kind, asked):
    news = threading.Event()
    outlooks, grid.kind = Outlooks(grid, news), kind
    outlooks.shown(ZONES, START)
    news.set()
    for _ in range(2):
        outlooks.shown(ZONES, START)
    assert grid.asked == asked
    outlooks.close()


@pytest.mark.parametrize(("zones", "now"), [(ZONES, START + USABLE), (ZONES, START - FRESH - SECOND), (["PL"], START)])
def test_what_is_too_old_or_of_other_zones_is_waited_for(grid, outlooks, zones, now):
    outlooks.shown(ZONES, START)
    assert outlooks.shown(zones, now).keys() == set(zones)
    assert grid.asked == 2


def test_what_went_wrong_beside_readers_is_told_to_the_next_once(grid, outlooks):
    outlooks.shown(ZONES, START)
    grid.fails = True
    outlooks.shown(ZONES, START + FRESH)
    outlooks.close()
    with pytest.raises(GridError, match="out of order"):
        outlooks.shown(ZONES, START + FRESH)
    assert values(outlooks.shown(ZONES, START + SECOND)) == [100_000, 200_000]
