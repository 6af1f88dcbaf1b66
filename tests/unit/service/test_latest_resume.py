"""The latest resume is proven: whatever the grid does, a suspended run no longer than believed ends in time."""

from __future__ import annotations

from datetime import timedelta

import hypothesis.strategies as st
from hypothesis import example, given, settings

from carbon_sched.domain.job import Flexibility, Job, JobSpec, JobState
from carbon_sched.planning.snapshot import Belief
from carbon_sched.planning.suspend import State
from carbon_sched.planning.windows import Interruptible, window
from carbon_sched.policy.presets import preset
from carbon_sched.service.economics import Cost
from carbon_sched.service.shares import Shares
from carbon_sched.service.waiting import waiting_job
from carbon_sched.service.windows import Progress
from tests.fakes.planning import NOW, cluster, snapshot

HOUR = 3600.0
CONFIDENCE = 0.95


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.sampled_from([1.0, 50.0, 400.0, 900.0]), min_size=60, max_size=60),
    st.lists(st.floats(0.2, 12.0), min_size=1, max_size=4, unique=True),
    st.floats(0.1, 1.0),
    st.floats(0.0, 20.0),
    st.floats(0.0, 0.5),
)
@example(
    [50.0, 50.0, *(max(1.0, 900.0 - 40 * hour) for hour in range(58))], [4.0], 1.0, 8.0, 0.1
)  # later is always cleaner
def test_a_run_within_its_belief_ends_by_the_deadline(grams, hours, share, slack_h, restart_h):
    """`share` of the longest run is what it takes; every resume takes all that its cost may be."""
    longest_s = max(hours) * HOUR
    belief = Belief(tuple(sorted(h * HOUR for h in hours)), (1 / len(hours),) * len(hours), 100.0, 100.0, "test",
                    upper=((CONFIDENCE, longest_s),))  # fmt: skip
    deadline = NOW + timedelta(seconds=longest_s + slack_h * HOUR)
    flexibility = Flexibility(deadline=deadline, interruptible=True)
    job = Job("j", JobSpec("python j.py", "j", flexibility=flexibility), JobState.QUEUED, NOW)
    here, cost = cluster("here", grams), Cost(restart_h * HOUR, 0.0, 1)
    now, done, needed_s = NOW, Progress(cost), share * longest_s
    while done.done_s < needed_s:
        left = waiting_job(job, belief, preset("balanced"), [here], now, Shares({}, {}), done)
        runs_on = "here" if done.state is State.RUNNING else None
        restart_s = cost.upper_s(0.9)
        found = window(Interruptible(left, done.state, restart_s, runs_on), snapshot([here], [left], now=now))
        until = found.until if found.run else min(found.until, max(left.latest_start, now))
        if found.run or until <= now:
            begin = now + timedelta(seconds=restart_s if done.state is State.PAUSED else 0.0)
            until = max(until, begin + timedelta(seconds=1))
            worked_s = min((until - begin).total_seconds(), needed_s - done.done_s)
            now = begin + timedelta(seconds=worked_s) if done.done_s + worked_s >= needed_s else until
            done = Progress(cost, done.done_s + worked_s, done.pauses, "here", runs_since=begin)
        else:
            paused = done.state is State.RUNNING
            now, done = until, Progress(cost, done.done_s, done.pauses + paused, done.cluster)
    assert now <= deadline + timedelta(seconds=1)
