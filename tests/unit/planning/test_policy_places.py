"""What a policy says of places and hours, job by job."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

from carbon_sched.domain.decision import Verdict
from carbon_sched.planning.plan import plan
from carbon_sched.policy.settings import QuietHours
from tests.fakes.planning import NOW, cluster, job, snapshot

UTC = ZoneInfo("UTC")


def decided(clusters, *jobs, **more):
    return {d.job_id: d for d in plan(snapshot(clusters, jobs, **more), None).decisions}


def test_jobs_of_one_shape_are_kept_apart_by_their_policies():
    clusters = [cluster("clean", (50.0,)), cluster("dirty", (500.0,))]
    barred = {
        "denied": replace(job("denied"), denied=frozenset({"clean"})),
        "allowed": replace(job("allowed"), allowed=frozenset({"dirty"})),
        "free": job("free"),
    }
    found = decided(clusters, *barred.values())
    assert [found[name].cluster for name in ("denied", "allowed", "free")] == ["dirty", "dirty", "clean"]


def test_no_start_is_planned_into_quiet_hours():
    """The cheapest hours are quiet: the last start before them still runs in them for the most."""
    one = cluster("only", (100.0, 10.0, 10.0, 50.0, 100.0, 100.0))
    quiet = (QuietHours(13 * 60, 15 * 60, UTC),)
    found = decided([one], job("free", wait_h=5.0), replace(job("quiet", wait_h=5.0), quiet=quiet))
    assert found["free"].start == NOW + timedelta(hours=1)
    assert found["quiet"].start == NOW + timedelta(minutes=59)


def test_a_job_without_patience_that_meets_quiet_hours_is_not_started_within_them():
    quiet = (QuietHours(11 * 60, 15 * 60, UTC),)
    waits = replace(job("a", earliest_h=3.0), quiet=quiet)
    found = decided([cluster("only", (100.0,) * 6)], waits)["a"]
    assert (found.verdict, found.start) == (Verdict.DELAY, NOW + timedelta(hours=3))


def test_a_preferred_cluster_is_left_only_for_the_minimum_gain():
    clusters = [cluster("ours", (100.0,)), cluster("theirs", (97.0,))]
    near = replace(job("near"), preferred=frozenset({"ours"}), min_gain=0.05)
    far = replace(job("far"), preferred=frozenset({"ours"}), min_gain=0.02)
    found = decided(clusters, near, far, job("indifferent"))
    assert [found[name].cluster for name in ("near", "far", "indifferent")] == ["ours", "theirs", "theirs"]


def test_a_policys_home_is_what_savings_are_told_against_and_left_only_for_the_minimum_gain():
    clusters = [cluster("ours", (200.0,)), cluster("near", (100.0,)), cluster("far", (97.0,))]
    theirs = replace(job("theirs"), home="near", min_gain=0.05)
    found = decided(clusters, theirs, replace(job("default"), min_gain=0.05), home="ours")
    assert [found[name].cluster for name in ("theirs", "default")] == ["near", "far"]
    told = {name: dict(decision.references)["run-now-home"] for name, decision in found.items()}
    assert told["default"] == 2 * told["theirs"]
