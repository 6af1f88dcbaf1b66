"""Jobs that are submitted again and again: once for each moment, in nights when clocks change, and over kill -9."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest

from carbon_sched.domain.access import Principal, Role
from carbon_sched.domain.errors import InvalidInput, NotFound
from carbon_sched.ports import JobFilter
from carbon_sched.service.cron import last_due, next_due
from tests.fakes.fuse import Fuse, Killed
from tests.fakes.world import World, a_cluster

GRID = {"SE-SE3": [(0.0, 50.0)]}
NIGHTLY = "30 2 * * *"


def utc(*parts):
    return datetime(*parts, tzinfo=timezone.utc)


def a_world(folder, **more):
    return World(folder, [a_cluster("clean", "SE-SE3", home=True)], GRID, **more)


@pytest.fixture
def world(tmp_path):
    world = a_world(tmp_path)
    yield world
    world.close()


def add(world, cron="*/10 * * * *", zone="UTC", **request):
    return world.schedules.add(
        {"entrypoint": "true", "name": "nightly", **request}, cron=cron, zone=zone, submitter="ada"
    )


def jobs(world):
    """Due moments of the jobs that were submitted, oldest first."""
    with world.store.transaction(write=False) as tx:
        found = tx.jobs(JobFilter(name="nightly"), limit=100)
    return [job.spec.metadata["schedule-due"] for job in reversed(found)]


def due_moments(cron, zone, first, count):
    moments = [next_due(cron, zone, first)]
    while len(moments) < count:
        moments.append(next_due(cron, zone, moments[-1]))
    return moments


# when ----------------------------------------------------------------------------------------------------------------


def test_a_fixed_time_is_due_once_in_the_night_when_its_hour_is_left_out():
    spring = due_moments(NIGHTLY, "Europe/Berlin", utc(2026, 3, 28, 0), 3)
    assert spring == [utc(2026, 3, 28, 1, 30), utc(2026, 3, 29, 1, 0), utc(2026, 3, 30, 0, 30)]


def test_a_fixed_time_is_due_once_in_the_night_when_its_hour_comes_twice():
    autumn = due_moments(NIGHTLY, "Europe/Berlin", utc(2026, 10, 24, 12), 2)
    assert autumn == [utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)]


@pytest.mark.parametrize("start", [utc(2026, 3, 28, 23), utc(2026, 10, 24, 23)], ids=["spring", "autumn"])
def test_every_hour_is_every_real_hour_in_both_nights(start):
    moments = due_moments("0 * * * *", "Europe/Berlin", start, 8)
    assert {later - earlier for earlier, later in pairwise(moments)} == {timedelta(hours=1)}


def test_of_missed_moments_the_last_is_due():
    first = utc(2026, 1, 1, 3)
    due = last_due("0 3 * * *", "UTC", first, utc(2026, 1, 4, 12))
    assert due == (utc(2026, 1, 4, 3), utc(2026, 1, 5, 3))
    assert last_due("0 3 * * *", "UTC", first, first) == (first, utc(2026, 1, 2, 3))


@pytest.mark.parametrize(
    ("cron", "zone", "problem"),
    [
        ("* * * * * *", "UTC", "5 fields"),
        ("61 * * * *", "UTC", "bad minute"),
        ("0 0 30 2 *", "UTC", "cron"),
        ("", "UTC", "5 fields"),
        ("0 3 * * *", "Mars/Olympus", "time zone"),
        ("0 3 * * *", "../../etc/passwd", "time zone"),
    ],
)
def test_what_is_no_schedule_is_refused_and_nothing_is_kept(world, cron, zone, problem):
    with pytest.raises(InvalidInput, match=problem):
        add(world, cron, zone)
    assert world.schedules.running() == []


@pytest.mark.parametrize("field", ["earliest", "deadline"])
def test_a_moment_in_the_request_is_refused(world, field):
    with pytest.raises(InvalidInput, match="does not go with a schedule"):
        add(world, **{field: "2099-01-01T00:00:00Z"})


# running -------------------------------------------------------------------------------------------------------------


def test_each_moment_brings_one_job_however_often_it_is_looked_at(world):
    schedule = add(world)
    world.schedules.step()
    assert jobs(world) == []
    for _ in range(3):
        world.clock.pass_s(600)
        for _ in range(3):
            world.schedules.step()
    assert len(jobs(world)) == len(set(jobs(world))) == 3
    with world.store.transaction(write=False) as tx:
        job = tx.job(world.schedules.running()[0].last_job)
    assert (job.spec.submitter, job.spec.metadata["schedule"]) == ("ada", schedule.schedule_id)


def test_after_a_long_sleep_only_the_last_missed_moment_is_submitted(world):
    add(world)
    world.clock.pass_s(3600)
    world.schedules.step()
    world.schedules.step()
    assert len(jobs(world)) == 1
    (schedule,) = world.schedules.running()
    assert world.clock.now() < schedule.next_at <= world.clock.now() + timedelta(minutes=10)


def test_a_stopped_schedule_submits_no_more(world):
    schedule = add(world)
    stopped = world.schedules.stop(schedule.schedule_id)
    assert world.schedules.stop(schedule.schedule_id) == stopped
    world.clock.pass_s(3600)
    world.schedules.step()
    assert (world.schedules.running(), jobs(world)) == ([], [])
    with pytest.raises(NotFound):
        world.schedules.stop("nothing")


def test_a_moment_whose_job_is_refused_is_told_and_the_next_one_is_tried(world):
    add(world, clusters=["clean"])
    cluster = world.fleet.get("clean")
    world.fleet.remove("clean")
    world.fleet.put(a_cluster("other", "SE-SE3"))
    world.clock.pass_s(600)
    world.schedules.step()
    assert "clean" in world.schedules.running()[0].problem
    world.fleet.put(cluster)
    world.clock.pass_s(600)
    world.schedules.step()
    assert (len(jobs(world)), world.schedules.running()[0].problem) == (1, "")


def test_who_may_submit_no_more_has_their_schedules_bring_no_jobs_until_they_may_again(world):
    access, told = world.access(), []

    def give(role, teams, days=30):
        by = Principal("owner", Role.ADMIN, None)
        return access.give(by, name="ada", role=role, teams=teams, lifetime_s=days * 86_400)[0].token_id

    def after_ten_minutes():
        world.clock.pass_s(600)
        world.schedules.step()
        told.append((len(jobs(world)), world.schedules.running()[0].problem.partition(": ")[2]))

    add(world, team="ml")
    after_ten_minutes()  # no token was ever given to this name: the server's own user under an earlier name
    first = give(Role.SUBMITTER, frozenset({"ml"}))
    after_ten_minutes()
    second = give(Role.OPERATOR, None)
    access.revoke(first)
    after_ten_minutes()  # a token that was exchanged for another one stops nothing
    access.revoke(second)
    give(Role.VIEWER, None)
    give(Role.SUBMITTER, frozenset({"another"}))
    after_ten_minutes()
    give(Role.SUBMITTER, frozenset({"ml"}), days=1)
    after_ten_minutes()
    world.clock.pass_s(86_400)
    after_ten_minutes()
    why = "ada has no valid token that may submit for team 'ml'; an admin can give one"
    assert told == [(1, ""), (2, ""), (3, ""), (3, why), (4, ""), (4, why)]


def test_a_schedule_of_the_servers_own_user_needs_no_token(world):
    access = world.access()
    access.revoke(access.give(Principal("owner", Role.ADMIN, None), name="owner", role=Role.VIEWER, teams=None,
                              lifetime_s=60)[0].token_id)  # fmt: skip
    world.schedules.add({"entrypoint": "true", "name": "nightly"}, cron="* * * * *", zone="UTC", submitter="owner")
    world.clock.pass_s(60)
    world.schedules.step()
    assert len(jobs(world)) == 1


def test_kill_at_any_commit_of_a_moment_leaves_one_job_of_it(tmp_path):
    moment, survived = 0, False
    while not survived:
        moment += 1
        folder = tmp_path / str(moment)
        folder.mkdir()
        before = a_world(folder)
        add(before)
        before.clock.pass_s(600)
        fuse = Fuse()
        killed = a_world(folder, before=before, fuse=fuse)
        fuse.at = len(fuse.moments) + moment
        try:
            killed.schedules.step()
            survived = True
        except Killed:
            pass
        after = a_world(folder, before=before)
        after.schedules.step()
        assert len(jobs(after)) == 1
        before.close()
        after.close()
    assert moment > 4  # before and after the job's commit and the schedule's
