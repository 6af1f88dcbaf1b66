from datetime import datetime, timezone

import pytest

from carbon_sched.domain.errors import Conflict
from carbon_sched.domain.job import FINAL_STATES, TRANSITIONS, Job, JobEvent, JobSpec, JobState

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


def job(state: JobState) -> Job:
    return Job("0123456789", JobSpec("python x.py", "x"), state, NOW)


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("event", JobEvent)
def test_every_pair_outside_the_table_is_refused(state, event):
    if (state, event) in TRANSITIONS:
        assert job(state).moved(event, at=NOW).state is TRANSITIONS[(state, event)]
    else:
        with pytest.raises(Conflict, match=state.value):
            job(state).moved(event, at=NOW)


def test_only_lost_jobs_may_change_after_their_end():
    assert {state for state, _ in TRANSITIONS if state in FINAL_STATES} == {JobState.LOST}


@pytest.mark.parametrize("state", set(JobState) - FINAL_STATES)
def test_every_live_state_can_reach_an_end(state):
    reached, grown = {state}, True
    while grown:
        following = {to for (source, _), to in TRANSITIONS.items() if source in reached}
        grown = not following <= reached
        reached |= following
    assert reached & FINAL_STATES


def test_an_end_has_its_time_and_exit_code_and_coming_back_from_lost_clears_them():
    lost = job(JobState.RUNNING).moved(JobEvent.LOST, at=NOW, reason="cluster gone")
    assert (lost.finished_at, lost.exit_code) == (NOW, None)
    assert lost.moved(JobEvent.STARTED, at=NOW).finished_at is None
    done = job(JobState.RUNNING).moved(JobEvent.FAILED, at=NOW, exit_code=3)
    assert (done.exit_code, done.version) == (3, 1)
