"""What a follower of a job's log reads, over one attempt and over several."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.errors import ClusterUnreachable, NotFound
from tests.fakes.world import World, a_cluster


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, [a_cluster("only", "DE", home=True)], {"DE": [(0, 400.0)]})
    yield world
    world.close()


def write(world, job, number, text):
    world.clusters["only"].files[f"job-driver-cs-{job.job_id}-a{number}.log"] = text
    world.clock.pass_s(1)  # or it was read a moment ago


def tried_twice(world):
    """A job whose first attempt wrote something and was not started in time; the second one is at the cluster."""
    job = world.submit()
    world.settle()
    write(world, job, 1, "too late ☕".encode())
    world.clock.at += timedelta(hours=3)
    world.settle()
    assert [attempt.outcome for attempt in world.attempts(job)] == ["expired", ""]
    return job


def test_before_any_attempt_there_is_nothing_and_it_is_not_the_end(world):
    job = world.submit()
    assert world.logs.read(job.job_id, 0, 0) == {"attempt": 0, "text": "", "next_offset": 0, "final": False}


def test_behind_the_end_of_one_attempt_the_next_one_begins(world):
    job = tried_twice(world)
    first = world.logs.read(job.job_id, 0, 0, attempt=0)
    assert (first["attempt"], first["text"]) == (1, "too late ☕")
    write(world, job, 2, b"it runs\n")
    second = world.logs.read(job.job_id, first["next_offset"], 0, attempt=1)
    assert second == {"attempt": 2, "text": "it runs\n", "next_offset": 8, "final": False}
    assert world.logs.read(job.job_id, 8, 0, attempt=2)["text"] == ""


def test_whoever_names_no_attempt_reads_the_newest(world):
    job = tried_twice(world)
    write(world, job, 2, b"it runs\n")
    assert world.logs.read(job.job_id, 3, 0) == {"attempt": 2, "text": "runs\n", "next_offset": 8, "final": False}


def test_the_end_is_the_end_of_the_last_attempt(world):
    job = tried_twice(world)
    write(world, job, 2, b"done, without a newline")
    world.run_to_end(job)
    chunk = world.logs.read(job.job_id, 0, 0, attempt=1)
    assert not chunk["final"]
    chunk = world.logs.read(job.job_id, chunk["next_offset"], 0, attempt=1)
    assert (chunk["attempt"], chunk["text"], chunk["final"]) == (2, "done, without a newline", True)


def test_a_character_cut_off_at_the_end_of_an_attempt_does_not_hold_up_the_next(world):
    job = tried_twice(world)
    write(world, job, 1, "☕".encode()[:2])
    chunk = world.logs.read(job.job_id, 0, 0, attempt=1)
    assert (chunk["text"], chunk["next_offset"]) == ("\ufffd", 2)
    write(world, job, 2, b"it runs\n")
    assert world.logs.read(job.job_id, 2, 0, attempt=1)["text"] == "it runs\n"


def test_a_cluster_that_does_not_answer_is_no_news(world):
    job = tried_twice(world)
    world.clusters["only"].failures["logs"] = [ClusterUnreachable("gone")]
    assert world.logs.read(job.job_id, 0, 0)["text"] == ""


def test_an_attempt_that_never_was(world):
    job = tried_twice(world)
    with pytest.raises(NotFound, match="no attempt 3; it has had 2"):
        world.logs.read(job.job_id, 0, 0, attempt=3)
