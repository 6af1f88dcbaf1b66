"""Both planners decide alike; the one in a child process survives the child."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from carbon_sched.domain.decision import Verdict
from carbon_sched.domain.errors import Internal
from carbon_sched.service.planner import PIECE, ChildPlanner, OwnPlanner, is_news
from tests.fakes.planning import NOW, cluster, job, snapshot


@pytest.fixture
def child():
    planner = ChildPlanner()
    yield planner
    planner.close()
    assert planner._child is None or not planner._child.is_alive()


MANY = [job(f"j{number:04d}", wait_h=5, cpus=0) for number in range(PIECE + 5)]
"""More than one message holds; they wait for the clean hour."""
CLUSTERS = [cluster("de", [400, 400, 100, 400])]


def test_both_decide_alike(child):
    told = child.plan(snapshot(CLUSTERS, MANY), whole=True)
    assert told == OwnPlanner().plan(snapshot(CLUSTERS, MANY), whole=True)
    assert len(told.decisions) == len(MANY)
    assert {decision.verdict for decision in told.decisions} == {Verdict.DELAY}


@pytest.mark.parametrize("own", [True, False])
def test_outlines_are_explained_when_asked(child, own):
    planner = OwnPlanner() if own else child
    outlines = {one.job_id: one for one in planner.plan(snapshot(CLUSTERS, MANY), whole=True).decisions}
    assert not any(one.reason or one.candidates for one in outlines.values())
    whole = planner.explain(["j0007", "j0002"])
    assert [one.job_id for one in whole] == ["j0007", "j0002"]
    assert all("waits until" in one.reason and len(one.candidates) == len(CLUSTERS) for one in whole)
    assert not any(is_news(one, outlines[one.job_id]) for one in whole)


def test_a_plan_that_went_with_its_child_is_not_explained(child):
    child.plan(snapshot(CLUSTERS, MANY), whole=True)
    child._child.kill()
    child._child.join()
    with pytest.raises(Internal, match="KeyError"):
        child.explain(["j0001"])


def test_who_waits_is_told_again_when_the_grams_have_moved():
    planner = OwnPlanner()
    planner.plan(snapshot(CLUSTERS, MANY), whole=True)

    def told(clean):
        now = snapshot([cluster("de", [400, 400, clean, 400])], MANY)
        return len(planner.plan(now, whole=False).decisions)

    assert (told(104), told(108), told(109)) == (0, len(MANY), 0), "by five in a hundred since it was told last"


@pytest.mark.parametrize("own", [True, False])
def test_what_was_told_is_told_again_only_when_asked_for_the_whole(child, own):
    planner = OwnPlanner() if own else child
    planner.plan(snapshot(CLUSTERS, MANY), whole=True)
    new = [*MANY, job("new", wait_h=5, cpus=0)]
    assert [d.job_id for d in planner.plan(snapshot(CLUSTERS, new), whole=False).decisions] == ["new"]
    assert planner.plan(snapshot(CLUSTERS, new), whole=False).decisions == ()
    assert len(planner.plan(snapshot(CLUSTERS, new), whole=True).decisions) == len(new)


def test_who_is_told_the_same_a_minute_later_is_not_told_again():
    planner, crowd = OwnPlanner(), [job(f"j{number}", cpus=8) for number in range(4)]

    def told(now):
        return [decision.job_id for decision in planner.plan(snapshot(CLUSTERS, crowd, now=now), whole=False).decisions]

    assert told(NOW) == ["j0", "j1", "j2", "j3"]
    assert told(NOW + timedelta(minutes=1)) == ["j0", "j1"], "the first one may start, the second knows when"


@pytest.mark.parametrize("own", [True, False])
def test_a_new_planner_goes_on_from_what_the_last_one_left(child, own):
    # the state says that these jobs wait, for a start of its own choice; one of the two clean hours is as good
    clusters = [cluster("de", [400, 400, 100, 100])]
    left = OwnPlanner().plan(snapshot(clusters, MANY), whole=True).state
    at = NOW.timestamp() + 3 * 3600
    left = left | {"placed": {name: [*place[:2], at, place[3]] for name, place in left["placed"].items()}}
    planner = OwnPlanner() if own else child
    planner.remember(json.loads(json.dumps(left)))
    told = planner.plan(snapshot(clusters, MANY), whole=True)
    assert {decision.start.timestamp() for decision in told.decisions} == {at}
    fresh = OwnPlanner().plan(snapshot(clusters, MANY), whole=True)
    assert {decision.start.timestamp() for decision in fresh.decisions} == {at - 3600}


def test_what_another_version_kept_is_not_used():
    planner = OwnPlanner()
    planner.remember({"format": 99})
    assert planner.plan(snapshot(CLUSTERS, MANY), whole=True).decisions


def test_a_placement_is_told_until_the_job_is_gone():
    planner, now = OwnPlanner(), snapshot(CLUSTERS, [job("now")])
    for _ in range(2):
        assert [d.verdict for d in planner.plan(now, whole=False).decisions] == [Verdict.PLACE]


def test_a_preview_is_not_gone_on_from(child):
    assert child.preview(snapshot(CLUSTERS, MANY), "j0003").job_id == "j0003"
    assert len(child.plan(snapshot(CLUSTERS, MANY), whole=False).decisions) == len(MANY)


def test_a_child_that_is_killed_fails_one_plan_and_is_replaced(child):
    child.plan(snapshot(CLUSTERS, MANY[:1]), whole=True)
    child._child.kill()
    child._child.join()
    assert len(child.plan(snapshot(CLUSTERS, MANY), whole=False).decisions) == len(MANY), "it began anew"
    line = child._line
    line.send(("plan", None))  # no snapshot: the child falls over it
    line.send(())
    child._child.join(60)
    with pytest.raises(Internal, match="the next plan starts it again"):
        child._converse(line, "plan", (), snapshot(CLUSTERS, MANY))
    assert child.plan(snapshot(CLUSTERS, MANY[:1]), whole=False).decisions


def test_a_plan_that_fails_is_told_and_the_child_lives_on(child):
    with pytest.raises(Internal, match="the plan failed in the planning process"):
        child.plan(snapshot([], [object()]), whole=True)
    process = child._child
    assert child.plan(snapshot(CLUSTERS, MANY[:1]), whole=True).decisions
    assert child._child is process
