"""A change of policies tried on the organisation's own past before it is applied: the last weeks' jobs, replayed."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import Conflict, InvalidInput
from carbon_sched.domain.policy_version import Trial
from carbon_sched.domain.units import PPM, UG_PER_G
from carbon_sched.service.decide import HORIZON
from carbon_sched.simulate import history
from carbon_sched.simulate.outcome import started
from carbon_sched.simulate.replay import replay

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.ports import Clock, Store
    from carbon_sched.service.outlooks import Outlooks
    from carbon_sched.service.policies import Policies, PolicySet
    from carbon_sched.service.statements import Statements
    from carbon_sched.simulate.history import Ran
    from carbon_sched.simulate.scenario import Scenario

NICENESS = 5
WITHOUT = "Apply it without --require-backtest, or try it with `carbon-sched policy backtest` on recorded traces"


@dataclass(frozen=True)
class Trials:
    """Tries policy files on what the store remembers."""

    store: Store
    policies: Policies
    statements: Statements
    outlooks: Outlooks
    clock: Clock

    def of(self, content: str, margin_ppm: int) -> Trial:
        """What this file would have changed.

        Raises InvalidFile and Conflict as applying does, and Conflict where there is nothing to try it on.
        """
        if not 0 <= margin_ppm <= PPM:
            raise InvalidInput("backtest_margin_ppm", margin_ppm, "is no share", f"Give 0 to {PPM}: millionths")
        before, after = self.policies.compared(content)
        now = self.clock.now()
        ran, left_out = history.finished(self.store, self.statements, now)
        tried = [one for one in ran if _over(one, (before, after), now)]
        if not tried:
            raise Conflict(f"no job of the last {history.WINDOW.days} days ran, was metered and is over. {WITHOUT}")
        with self.store.transaction(write=False) as tx:
            clusters = tx.clusters()
        scenario = history.scenario(tried, clusters, self.outlooks, now)
        (before_ug, before_late), (after_ug, after_late) = _elsewhere(scenario, (before, after))
        return Trial(
            since=tried[0].submitted_at,
            until=now,
            jobs=len(tried),
            left_out=left_out + len(ran) - len(tried),
            before_ug=before_ug,
            after_ug=after_ug,
            before_late=before_late,
            after_late=after_late,
            margin_ppm=margin_ppm,
            after_version=before.version,
        )


def _over(one: Ran, policies: tuple[PolicySet, ...], now: datetime) -> bool:
    """Whether the longest delay that any of the policies grants the job ends by now, and so within the data."""
    declared = one.spec.flexibility
    waits = [] if declared.max_delay_s is None else [declared.max_delay_s]
    if declared.deadline is not None:
        waits.append((declared.deadline - one.submitted_at).total_seconds())
    granted = [known.settings(one.spec) for known in policies]
    longest = max(settings.delay_s(min(waits, default=None), one.hours * 3600) for settings in granted)
    return one.submitted_at + min(timedelta(seconds=longest), HORIZON) <= now


def _elsewhere(scenario: Scenario, policies: tuple[PolicySet, ...]) -> list[tuple[int, int]]:
    """Micrograms and late jobs under each, found in a process of its own so that no answer of the API is delayed."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=os.nice, initargs=(NICENESS,)) as child:
        return list(child.map(partial(_replayed, scenario), policies))


def _replayed(scenario: Scenario, policies: PolicySet) -> tuple[int, int]:
    done = replay(scenario, policies)
    outcome = started(scenario, done.cluster, done.start_h)
    return round(float(outcome.grams.sum()) * UG_PER_G), int(outcome.late.sum())
