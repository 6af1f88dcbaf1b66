"""Other people's rules on a scenario of several clusters with capacity: the baselines of a backtest."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.simulate.baselines import RULES, ecovisor, wait_awhile, waited
from carbon_sched.simulate.outcome import Outcome, paused, started
from carbon_sched.simulate.scenario import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from carbon_sched.simulate.baselines import Paused
    from carbon_sched.simulate.scenario import Scenario
    from carbon_sched.simulate.traces import Jobs

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]
    Ranking = Callable[[int], list[int]]

HERE, FIXED = "run-now-here", "best-fixed"
EPSILON = 1e-9


def names() -> tuple[str, ...]:
    """Every baseline there is."""
    return (*PLACES, *RULES, *PAUSES)


def check_names(wanted: Iterable[str]) -> None:
    """Raise InvalidInput for a name that is no baseline."""
    for name in wanted:
        if name not in names():
            raise InvalidInput("--baseline", name, "is not a known baseline", f"Use one of: {', '.join(names())}")


def baseline(name: str, scenario: Scenario) -> Outcome:
    """The outcome of a named rule.

    Rules of one region (lowest-slot and the like) act where each job is at home. Whatever a rule wants, a job starts
    only when its cluster has room, first come, first served, smaller ones past larger ones. Rules that pause jobs are
    given room for everybody.
    """
    if name in PAUSES:
        return _pausing(scenario, PAUSES[name])
    if name in PLACES:
        return _queued(scenario, scenario.ticks, PLACES[name](scenario))
    return _queued(scenario, scenario.ticks + _waits(scenario, name), None)


# where: rankings of the clusters, best first, by step --------------------------------------------


def _best_fixed(scenario: Scenario) -> Ranking:
    """The cluster that was cleanest over the 28 days before, else the next one with room."""
    return _hourly(scenario, scenario.trailing)


def _greedy_now(scenario: Scenario) -> Ranking:
    """The cluster whose present hour is expected to be the cleanest, else the next one with room."""
    zones = [cluster.zone for cluster in scenario.clusters]
    return _hourly(scenario, lambda hour: np.array([scenario.forecast[zone][hour, 0] for zone in zones]) * scenario.pue)


def _hourly(scenario: Scenario, score: Callable[[int], Floats]) -> Ranking:
    known: dict[int, list[int]] = {}

    def ranking(tick: int) -> list[int]:
        hour = min(int(tick * scenario.step_h), scenario.hours - 1)
        if hour not in known:
            known[hour] = np.argsort(score(hour), kind="stable").tolist()
        return known[hour]

    return ranking


PLACES: Mapping[str, Callable[[Scenario], Ranking]] = {FIXED: _best_fixed, "greedy-now": _greedy_now}


# when: hours each job waits at home --------------------------------------------------------------


def _waits(scenario: Scenario, name: str) -> Ints:
    """`[J]` steps that each job waits by the rule."""
    out = np.zeros(len(scenario.jobs), dtype=np.int64)
    usual = class_means(scenario)
    for zone, mine in _by_zone(scenario):
        forecast, actual = scenario.forecast[zone], scenario.actual(zone)
        slack = np.minimum(scenario.slack_h[mine].astype(np.int64), forecast.shape[1] - 1)
        out[mine] = waited(RULES[name], scenario.jobs.take(mine), slack, usual[mine], forecast, actual)
    return np.rint(out / scenario.step_h).astype(np.int64)


def class_means(scenario: Scenario) -> Floats:
    """`[J]` the mean run time of the jobs with the same slack: what those rules are told, in hindsight."""
    which = np.unique(scenario.slack_h, return_inverse=True)[1]
    out: Floats = (np.bincount(which, weights=scenario.jobs.hours) / np.bincount(which))[which]
    return out


def _by_zone(scenario: Scenario) -> list[tuple[str, NDArray[np.intp]]]:
    zones = np.array([scenario.clusters[home].zone for home in scenario.home])
    return [(str(zone), np.flatnonzero(zones == zone)) for zone in np.unique(zones)]


def _pausing(scenario: Scenario, rule: Callable[[Jobs, Ints, Singles, Floats], Paused]) -> Outcome:
    grams, later = np.zeros(len(scenario.jobs)), np.zeros(len(scenario.jobs))
    for zone, mine in _by_zone(scenario):
        slack = scenario.slack_h[mine].astype(np.int64)
        done = rule(scenario.jobs.take(mine), slack, scenario.forecast[zone], scenario.actual(zone))
        grams[mine], later[mine] = done.grams * scenario.pue[scenario.home[mine]] * scenario.unit_kw, done.later_h
    return paused(scenario, grams, later)


PAUSES: Mapping[str, Callable[[Jobs, Ints, Singles, Floats], Paused]] = {
    "wait-awhile": wait_awhile,
    "ecovisor": ecovisor,
}


# room ----------------------------------------------------------------------------------------------------------------


def _queued(scenario: Scenario, due: Ints, ranking: Ranking | None) -> Outcome:
    """Jobs that are to start from `due` `[J]` steps on, where there is room: by `ranking`, or at home without one."""
    queue, end = _Queue(scenario, ranking), int(scenario.hours / scenario.step_h)
    order = np.argsort(due, kind="stable").tolist()
    at = 0
    while (tick := min(int(due[order[at]]) if at < len(order) else end, queue.next_end(end))) < end:
        queue.free_until(tick)
        while at < len(order) and due[order[at]] <= tick:
            queue.waiting.append(order[at])
            at += 1
        queue.start(tick)
    return started(scenario, queue.cluster, queue.start_h)


class _Queue:
    """Who waits for room and who runs."""

    def __init__(self, scenario: Scenario, ranking: Ranking | None) -> None:
        self._of, self._ranking = scenario, ranking
        self._free = scenario.units.tolist()
        self._units, self._held = scenario.jobs.units.tolist(), scenario.held.tolist()
        self._home = scenario.home.tolist()
        self._running: list[tuple[int, int, float]] = []
        self.waiting: list[int] = []
        self.cluster = np.full(len(scenario.jobs), NOWHERE)
        self.start_h = np.full(len(scenario.jobs), np.nan)

    def next_end(self, otherwise: int) -> int:
        """The step at which the next job ends."""
        return self._running[0][0] if self._running else otherwise

    def free_until(self, tick: int) -> None:
        """End what ends by then."""
        while self._running and self._running[0][0] <= tick:
            _, cluster, units = heapq.heappop(self._running)
            self._free[cluster] += units

    def start(self, tick: int) -> None:
        """Start whoever finds room."""
        ranked = self._ranking(tick) if self._ranking else None
        left = []
        for job in self.waiting:
            units = self._units[job]
            wanted = ranked if ranked is not None else [self._home[job]]
            cluster = next((c for c in wanted if self._free[c] >= units - EPSILON), None)
            if cluster is None:
                left.append(job)
                continue
            self._free[cluster] -= units
            heapq.heappush(self._running, (tick + self._held[job], cluster, units))
            self.cluster[job], self.start_h[job] = cluster, tick * self._of.step_h
        self.waiting = left
