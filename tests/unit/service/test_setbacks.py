"""What goes wrong with one cluster, one job or the clock, and what it must not do to the others."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.cluster import Cluster, ClusterStatus, LocalHead, Pue
from carbon_sched.domain.errors import ClusterUnclear
from carbon_sched.domain.job import JobState
from carbon_sched.service import fleet, follow
from carbon_sched.service.awake import Awake
from carbon_sched.service.lanes import Lanes
from tests.fakes.clock import StoppedClock
from tests.fakes.world import START, World, a_cluster

CLEAN_AND_DIRTY = {"SE-SE3": [(0, 50.0)], "DE": [(0, 400.0)]}
CLUSTERS = [a_cluster("dirty", "DE", 1.2, home=True), a_cluster("clean", "SE-SE3", 1.1)]
SPAWNED = ({"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
ENDED = ({"event": "ended", "exit_code": 0}, {"event": "closed", "exit_code": 0, "segments": 0})


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, CLUSTERS, CLEAN_AND_DIRTY)
    yield world
    world.close()


def running(world, **request):
    """A job that runs, its attempt, and the cluster it is on."""
    job = world.submit(**request)
    world.settle()
    attempt = world.attempts(job)[-1]
    cluster = world.clusters[attempt.cluster]
    world.record(attempt, *SPAWNED)
    cluster.run(attempt.attempt_id)
    world.settle()
    assert world.job(job).state is JobState.RUNNING
    return job, attempt, cluster


# one cluster hangs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["submit", "jobs", "list_files"])
def test_a_cluster_that_hangs_delays_no_other(tmp_path, monkeypatch, method):
    world = World(tmp_path, CLUSTERS, CLEAN_AND_DIRTY, patience_s=0.05)
    release = threading.Event()
    hanging = world.clusters["clean"]
    answer = getattr(hanging, method)
    monkeypatch.setattr(hanging, method, lambda *args, **more: release.wait() and answer(*args, **more))
    there, here = world.submit(clusters=["clean"]), world.submit(clusters=["dirty"])

    def turn():
        world.decide.step()
        for loop in (world.dispatch, world.follow, world.collect):
            loop.step()
            with loop._lanes._changed:
                assert loop._lanes._changed.wait_for(lambda loop=loop: loop._lanes._busy <= {"clean"}, 60)

    for cluster in world.fleet.all():
        world.fleet.poll(cluster)
    turn()
    attempt = world.attempts(here)[0]
    world.record(attempt, *SPAWNED, *ENDED)
    world.clusters["dirty"].end(attempt.attempt_id, "SUCCEEDED", 0)
    turn()
    assert world.job(here).state is JobState.SUCCEEDED
    assert not world.job(there).state.final
    release.set()
    for name in ("dispatch", "follow", "collect"):
        assert getattr(world, name)._lanes.drain(60) == []
    world.clock.pass_s(5)
    turn()
    assert world.job(there).state is JobState.STARTING
    assert len(hanging.submissions) == 1
    world.close()


def test_what_a_hanging_cluster_must_wait_for_comes_again_once_it_is_free(tmp_path, monkeypatch):
    world = World(tmp_path, CLUSTERS, CLEAN_AND_DIRTY, patience_s=0.05)
    release = threading.Event()
    hanging, submit = world.clusters["clean"], world.clusters["clean"].submit
    monkeypatch.setattr(hanging, "submit", lambda submission: release.wait() and submit(submission))
    for cluster in world.fleet.all():
        world.fleet.poll(cluster)
    first = world.submit(clusters=["clean"])
    world.decide.step()
    world.dispatch.step()
    second = world.submit(clusters=["clean"])
    world.decide.step()
    world.dispatch.step()
    release.set()
    assert world.dispatch._lanes.drain(60) == []
    world.dispatch.step()
    world.clock.pass_s(5)  # it was given back, not left to its lease
    world.dispatch.step()
    assert world.dispatch._lanes.drain(60) == []
    assert {world.job(job).state for job in (first, second)} == {JobState.STARTING}
    world.close()


# one job meets a bug ---------------------------------------------------------------------------------------------


def fails_for(method, victim):
    def failing(*arguments, **more):
        if any(getattr(argument, "attempt_id", None) == victim for argument in arguments):
            raise ZeroDivisionError("a bug")
        return method(*arguments, **more)

    return failing


def test_a_bug_before_the_post_fails_that_job_and_no_other(world, monkeypatch):
    jobs = [world.submit(clusters=["clean"]) for _ in range(3)]
    victim = f"cs-{jobs[1].job_id}-a1"
    monkeypatch.setattr(world.dispatch, "_prepare", fails_for(world.dispatch._prepare, victim))
    world.settle()
    assert [world.job(job).state for job in jobs] == [JobState.STARTING, JobState.FAILED, JobState.STARTING]
    assert "a bug in carbon-sched (ZeroDivisionError: a bug)" in world.job(jobs[1]).reason


def test_a_bug_after_the_post_is_no_end_and_no_second_post(world, monkeypatch):
    jobs = [world.submit(clusters=["clean"]) for _ in range(2)]
    accepted = world.dispatch._accepted
    monkeypatch.setattr(world.dispatch, "_accepted", fails_for(accepted, f"cs-{jobs[0].job_id}-a1"))
    world.settle()
    assert [world.job(job).state for job in jobs] == [JobState.DISPATCHING, JobState.STARTING]
    monkeypatch.setattr(world.dispatch, "_accepted", accepted)
    world.clock.pass_s(10)
    world.settle()
    assert world.job(jobs[0]).state is JobState.STARTING
    assert len(world.clusters["clean"].submissions) == 2


@pytest.mark.parametrize(("loop", "method"), [("follow", "_follow_attempt"), ("collect", "_collect")])
def test_a_bug_in_following_or_collecting_one_job_stops_no_other(world, monkeypatch, loop, method):
    jobs = [world.submit(clusters=["clean"]) for _ in range(2)]
    worker = getattr(world, loop)
    monkeypatch.setattr(worker, method, fails_for(getattr(worker, method), f"cs-{jobs[0].job_id}-a1"))
    world.settle()
    for job in jobs:
        world.record(world.attempts(job)[0], *SPAWNED, *ENDED)
        world.clusters["clean"].end(world.attempts(job)[0].attempt_id, "SUCCEEDED", 0)
    world.settle()
    assert world.job(jobs[1]).state is JobState.SUCCEEDED
    world.clock.pass_s(61)
    world.settle()
    assert world.statements.receipt(jobs[1].job_id)["final"]
    assert not world.statements.receipt(jobs[0].job_id)["final"]


def test_a_bug_in_planning_is_told_to_all_who_wait_until_a_plan_is_made(world, monkeypatch):
    job = world.submit()
    plan = world.decide._planner.plan
    monkeypatch.setattr(world.decide._planner, "plan", lambda *_, **__: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            world.decide.step()
    told = world.job(job)
    assert (told.state, told.cause) == (JobState.QUEUED, Cause.NO_PLAN)
    assert "no plan can be made: a bug (ZeroDivisionError: division by zero)" in told.reason
    assert "carbon-sched server logs" in told.reason
    assert told.version == job.version + 1, "told once"
    monkeypatch.setattr(world.decide._planner, "plan", plan)
    world.settle()
    assert world.job(job).state is JobState.STARTING


@pytest.mark.parametrize(
    ("address", "problem"), [("http://127.0.0.1:1", fleet.STARTING), ("", "Ray is not installed here")]
)
def test_a_local_head_that_starts_is_no_trouble_and_one_that_cannot_says_why(tmp_path, monkeypatch, address, problem):
    here = Cluster("here", "DE", Pue(1_200_000, "2026", "a test"), local=LocalHead())
    world = World(tmp_path, [here], CLEAN_AND_DIRTY)
    said = ClusterStatus("here", START, address, problem="Ray is not installed here")
    monkeypatch.setattr(world.clusters["here"], "status", lambda: said)
    assert world.fleet.poll(here) == said
    assert world.fleet.status("here").problem == problem
    world.close()


def test_a_first_plan_waits_for_no_cluster_that_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "FIRST_ANSWER_S", 0.05)
    world = World(tmp_path, CLUSTERS, CLEAN_AND_DIRTY)
    world.fleet._lanes = Lanes("poll", 0.05)
    release = threading.Event()
    hanging, status = world.clusters["clean"], world.clusters["clean"].status
    monkeypatch.setattr(hanging, "status", lambda: release.wait() and status())
    world.fleet.poll(CLUSTERS[0])
    job = world.submit()
    world.decide.step()
    assert world.attempts(job)[0].cluster == "dirty"
    release.set()
    assert world.fleet._lanes.drain(60) == []
    assert world.fleet.status("clean").usable
    world.close()


# the machine sleeps ----------------------------------------------------------------------------------------------


def delayed(tmp_path, **flexibility):
    """A job that waits for a cleaner hour, and its world."""
    world = World(tmp_path, [a_cluster("only", "DE")], {"DE": [(0, 400.0), (3600, 50.0)]})
    job = world.submit(duration_s=60, **flexibility)
    world.settle()
    assert world.job(job).not_before == START + timedelta(hours=1)
    return world, job


@pytest.mark.parametrize(("slept_h", "flexibility"), [(1.5, {"max_delay_s": 7200}), (9, {"max_delay_s": 7200})])
def test_a_job_whose_start_was_slept_through_starts_at_once(tmp_path, slept_h, flexibility):
    world, job = delayed(tmp_path, **flexibility)
    world.clock.at += timedelta(hours=slept_h)
    world.settle()
    assert world.job(job).state is JobState.STARTING
    world.close()


def test_a_job_whose_deadline_was_slept_through_is_refused_with_that_reason(tmp_path):
    world, job = delayed(tmp_path, deadline="2026-03-01T14:00:00Z")
    world.clock.at += timedelta(hours=3)
    world.settle()
    assert world.job(job).state is JobState.REFUSED
    assert "cannot end by 2026-03-01T14:00:00Z" in world.job(job).reason
    world.close()


def test_a_submission_whose_fence_was_slept_through_is_made_again(world):
    job = world.submit()
    world.settle()
    world.clock.at += timedelta(hours=3)
    world.settle()
    assert [attempt.outcome for attempt in world.attempts(job)] == ["expired", ""]
    assert world.job(job).state is JobState.STARTING


@pytest.mark.parametrize(
    ("wall_s", "ticks_s", "jumps"), [(1, 1, 0), (60, 60, 0), (3600, 1, 1), (-3600, 1, 1), (4, 0, 0)]
)
def test_a_clock_that_jumps_is_noticed_once(wall_s, ticks_s, jumps):
    clock, seen = StoppedClock(), []
    awake = Awake(clock, lambda: seen.append(1))
    awake.look()
    clock.at += timedelta(seconds=wall_s)
    clock.ticks += ticks_s
    awake.look()
    clock.pass_s(1)
    awake.look()
    assert len(seen) == jumps


# what Ray tells late, or never -----------------------------------------------------------------------------------


def test_a_job_too_quick_to_be_seen_running_has_its_energy(world):
    job = world.submit()
    world.settle()
    attempt, start = world.attempts(job)[0], world.clock.now()
    world.record(attempt, *SPAWNED)
    world.clock.pass_s(1)
    world.segment(attempt, start, world.clock.now(), {attempt.attempt_id: 3_600_000})
    world.record(attempt, *ENDED)
    world.clusters["clean"].end(attempt.attempt_id, "SUCCEEDED", 0)
    world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert (receipt["final"], receipt["missing"]) == (True, [])
    assert receipt["energy_kwh"] == pytest.approx(1e-6)


def test_a_receipt_waits_for_nothing_that_cannot_come(world):
    """The wrapper itself says what it could not meter, and that it is done."""
    job, attempt, clean = running(world)
    world.record(attempt, {"event": "fault", "reason": "metering broke"}, *ENDED)
    clean.end(attempt.attempt_id, "SUCCEEDED", 0)
    world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert receipt["final"]
    assert any("metering broke" in text for text in receipt["missing"])


def test_a_wrapper_that_came_too_late_after_ray_said_running_leads_to_a_new_attempt(world):
    job = world.submit()
    world.settle()
    first = world.attempts(job)[0]
    world.clusters["clean"].run(first.attempt_id)
    world.settle()
    assert world.job(job).state is JobState.RUNNING
    world.record(first, {"event": "refused", "reason": "fence", "exit_code": 75})
    world.clusters["clean"].end(first.attempt_id, "FAILED", 75)
    world.settle()
    assert [attempt.outcome for attempt in world.attempts(job)] == ["expired", ""]
    assert world.job(job).state is JobState.STARTING


def test_an_answer_from_before_the_fence_expires_nothing_however_late_it_is_read(world, monkeypatch):
    """The machine sleeps between question and answer; meanwhile the job was started in time."""
    job = world.submit()
    world.settle()
    cluster, jobs = world.clusters["clean"], world.clusters["clean"].jobs

    def asleep():
        answer = jobs()
        world.clock.pass_s(3600)
        return answer

    monkeypatch.setattr(cluster, "jobs", asleep)
    world.follow.step()
    assert [attempt.outcome for attempt in world.attempts(job)] == [""]


def test_a_head_that_was_restarted_amid_the_submission_is_not_given_the_job_again(world):
    clean = world.clusters["clean"]
    clean.failures_after["submit"] = [ClusterUnclear("answer lost")]
    job = world.submit()
    world.settle()
    clean.restart("session-2")
    world.clock.pass_s(5)
    world.settle()
    assert world.job(job).state is JobState.LOST
    assert "may have run there" in world.job(job).reason
    assert len(clean.submissions) == 1


def test_one_failed_question_after_a_long_sleep_gives_nothing_up(world):
    clean = world.clusters["clean"]
    clean.failures_after["submit"] = [ClusterUnclear("answer lost")]
    job = world.submit()
    world.settle()
    clean.failures["job"] = [ClusterUnclear("the network is not up yet")]
    world.clock.at += follow.FIND_WITHIN  # asleep: only the wall clock goes on
    world.clock.ticks += 5
    world.settle()
    assert world.job(job).state is JobState.DISPATCHING
    world.clock.pass_s(5)
    world.settle()
    assert world.job(job).state is JobState.STARTING


def test_a_stop_amid_an_unclear_submission_waits_until_it_can_run_nothing_any_more(world):
    clean = world.clusters["clean"]
    clean.failures["submit"] = [ClusterUnclear("timeout")]
    job = world.submit()
    world.settle()
    world.accept.stop(job.job_id)
    world.clock.pass_s(5)
    world.settle()
    assert world.job(job).state is JobState.STOPPING, "the request may still be on its way"
    world.clock.pass_s(331)
    world.settle()
    assert world.job(job).state is JobState.STOPPED
    assert clean.submissions == []


# lost and found --------------------------------------------------------------------------------------------------


def silent_for_an_hour(world, cluster):
    cluster.up = False
    world.settle()
    world.clock.pass_s(follow.SILENCE_S + 1)
    world.settle()


def test_a_running_job_whose_cluster_is_silent_for_an_hour_is_lost_and_found_when_it_answers(world):
    job, _attempt, clean = running(world)
    clean.up = False
    world.settle()
    world.clock.pass_s(follow.SILENCE_S / 2)
    world.settle()
    assert world.job(job).state is JobState.RUNNING
    world.clock.pass_s(follow.SILENCE_S / 2 + 1)
    world.settle()
    assert world.job(job).state is JobState.LOST
    assert "has not answered for 60 minutes" in world.job(job).reason
    clean.up = True
    world.clock.pass_s(follow.FIND_EVERY_S + 1)
    world.settle()
    found = world.attempts(job)[0]
    assert (world.job(job).state, found.open, found.number) == (JobState.RUNNING, True, 1)
    assert found.started_at is not None
    world.run_to_end(job)
    assert world.job(job).state is JobState.SUCCEEDED
    receipt = world.statements.receipt(job.job_id)
    assert (receipt["final"], receipt["missing"]) == (True, []), "it is not missing any more"
    assert receipt["energy_kwh"] > 0
    assert world.statements.verify().ok
    assert len(clean.submissions) == 1


def test_a_lost_job_that_ended_meanwhile_is_booked_with_all_its_energy(world):
    job, attempt, clean = running(world)
    start = world.clock.now()
    silent_for_an_hour(world, clean)
    world.clock.pass_s(700)
    world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert (receipt["final"], receipt["energy_kwh"]) == (True, 0)
    world.segment(attempt, start, world.clock.now(), {attempt.attempt_id: 3_600_000})
    world.record(attempt, *ENDED)
    clean.end(attempt.attempt_id, "SUCCEEDED", 0)
    clean.up = True
    world.clock.pass_s(follow.FIND_EVERY_S + 1)
    world.settle()
    assert world.job(job).state is JobState.SUCCEEDED
    receipt = world.statements.receipt(job.job_id)
    assert (receipt["final"], receipt["missing"]) == (True, [])
    assert receipt["energy_kwh"] == pytest.approx(1e-6)


def test_a_submission_given_up_in_silence_is_found(world):
    clean = world.clusters["clean"]
    clean.failures_after["submit"] = [ClusterUnclear("answer lost")]
    job = world.submit()
    world.settle()
    clean.up = False
    for _ in range(20):
        world.clock.pass_s(60)
        world.settle()
    assert world.job(job).state is JobState.LOST
    clean.up = True
    attempt = world.attempts(job)[0]
    world.record(attempt, *SPAWNED, *ENDED)
    clean.end(attempt.attempt_id, "SUCCEEDED", 0)
    world.clock.pass_s(follow.FIND_EVERY_S + 1)
    world.settle()
    assert world.job(job).state is JobState.SUCCEEDED


def test_a_lost_job_that_was_never_run_is_told_and_not_run_again(world):
    job, clean = world.submit(), world.clusters["clean"]
    world.settle()
    attempt = world.attempts(job)[0]
    silent_for_an_hour(world, clean)
    world.record(attempt, {"event": "refused", "reason": "fence", "exit_code": 75})
    clean.end(attempt.attempt_id, "FAILED", 75)
    clean.up = True
    world.clock.pass_s(follow.FIND_EVERY_S + 1)
    world.settle()
    assert world.job(job).state is JobState.FAILED
    assert "nothing was run" in world.job(job).reason
    assert len(world.attempts(job)) == 1


def test_a_lost_job_is_looked_for_during_a_day_only(world):
    job, _attempt, clean = running(world)
    silent_for_an_hour(world, clean)
    world.clock.pass_s(follow.FIND_WITHIN.total_seconds() + 1)
    clean.up = True
    world.settle()
    assert world.job(job).state is JobState.LOST


def test_what_a_restarted_head_forgot_is_settled_at_once(world):
    job, attempt, clean = running(world)
    start = world.clock.now()
    world.clock.pass_s(31)
    world.segment(attempt, start, world.clock.now(), {attempt.attempt_id: 3_600_000})
    world.settle()
    clean.restart("session-2")
    clean.failures["list_files"] = [ClusterUnclear("no such node")] * 4
    world.settle()
    assert world.job(job).state is JobState.LOST
    receipt = world.statements.receipt(job.job_id)
    assert receipt["final"], "nothing is waited for that cannot come"
    assert receipt["energy_kwh"] == pytest.approx(1e-6), "what was collected is kept"
    assert any("restarted" in text for text in receipt["missing"])


# figures ---------------------------------------------------------------------------------------------------------


def test_a_cluster_described_anew_while_a_job_runs_changes_no_figure_of_it(world):
    job, _attempt, _clean = running(world)
    world.fleet.put(replace(CLUSTERS[1], pue=Pue(1_500_000, "2026", "another")))
    world.run_to_end(job, energy_uj=3_600_000_000)
    receipt = world.statements.receipt(job.job_id)
    assert (receipt["zone"], receipt["co2e_ug"]) == ("SE-SE3", 55_000)  # 0.001 kWh x 1.1 x 50 g/kWh
    best = next(one for one in receipt["references"] if one["cluster"] == "clean")
    assert best["saved_g"] == pytest.approx(0), "the same place as a reference is the same place"


def test_a_cluster_removed_before_the_journal_was_read_leaves_the_energy_known_so_far(world):
    job, attempt, clean = running(world)
    start = world.clock.now()
    world.clock.pass_s(31)
    world.segment(attempt, start, world.clock.now(), {attempt.attempt_id: 3_600_000_000})
    world.settle()
    clean.end(attempt.attempt_id, "SUCCEEDED", 0)
    world.follow.step()
    world.fleet.remove("clean")
    world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert (receipt["final"], receipt["co2e_ug"]) == (True, 55_000)
    assert any("was removed" in text for text in receipt["missing"])


def test_a_log_that_finds_no_room_leaves_no_half_file_and_is_kept_later(world, tmp_path, monkeypatch):
    job, attempt, clean = running(world)
    clean.files[f"job-driver-{attempt.attempt_id}.log"] = b"hello\n"

    def full(self, *arguments):
        self.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_bytes", full)
        world.record(attempt, *ENDED)
        clean.end(attempt.attempt_id, "SUCCEEDED", 0)
        world.settle()
    assert list((tmp_path / "logs").iterdir()) == []
    world.settle()
    assert (tmp_path / "logs" / f"{attempt.attempt_id}.log").read_bytes() == b"hello\n"
    assert world.statements.receipt(job.job_id)["final"]
