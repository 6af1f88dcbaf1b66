"""Segments that nodes deliver: at least once, in any order, from nodes that are gone when somebody looks for them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carbon_sched.domain.errors import Conflict, InvalidInput, NotAllowed, TooLarge, TooMany
from carbon_sched.meter_keys import SigningKey
from carbon_sched.service.shelf import FILES_A_MINUTE
from carbon_sched_runtime import wire
from tests.fakes.world import READER, START, World, a_cluster

if TYPE_CHECKING:
    import random

WH = 3_600_000_000


@pytest.fixture
def key(tmp_path):
    return SigningKey(tmp_path / "keys" / "meter.key")


@pytest.fixture
def world(tmp_path, key):
    (tmp_path / "store").mkdir()
    sinks = {"push_to": "https://us.example:8443", "journal_store": str(tmp_path / "store")}
    cluster = a_cluster("c", "DE", meter_keys=(str(key.public),), **sinks)
    world = World(tmp_path, [cluster], {"DE": [(0, 100.0)]})
    yield world
    world.close()


def begin(world):
    job = world.submit(name="train")
    world.settle()
    attempt = world.attempts(job)[-1]
    world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
    world.clusters["c"].run(attempt.attempt_id)
    world.settle()
    return job, attempt


def finish(world, job, attempt, **closed):
    world.record(attempt, {"event": "ended", "exit_code": 0}, {"event": "closed", "exit_code": 0, **closed})
    world.clusters["c"].end(attempt.attempt_id, "SUCCEEDED", 0)
    for _ in range(4):
        world.settle()
        world.clock.pass_s(61)
    world.settle()
    assert world.statements.verify().ok
    return world.statements.receipt(job.job_id)


def segment(world, attempt, seq: int, energy_uj: int = WH, **more) -> tuple[str, bytes]:
    start = START + timedelta(seconds=30 * seq)
    owners = {attempt.attempt_id: energy_uj, "idle": 7}
    made = world.made_segment(start, start + timedelta(seconds=30), owners, seq, **more)
    return str(made.name), wire.format_segment(made)


def push(world, attempt, name: str, data: bytes, token: str | None = None) -> None:
    pusher = world.receive.attempt(attempt.attempt_id, token or world.push_token(attempt))
    world.receive.segment(pusher, name, iter([data[:100], data[100:]]))


def leave(folder, attempt, name: str, data: bytes) -> None:
    (folder / "store" / attempt.attempt_id).mkdir(exist_ok=True)
    (folder / "store" / attempt.attempt_id / name).write_bytes(data)


def test_a_job_is_told_where_to_deliver_and_nothing_that_opens_more(world, tmp_path):
    _, attempt = begin(world)
    told = world.clusters["c"].submissions[-1].runtime_env["env_vars"]
    assert told["CARBON_SCHED_PUSH"] == "https://us.example:8443"
    assert told["CARBON_SCHED_PUSH_TOKEN"] == world.push_token(attempt)
    assert told["CARBON_SCHED_STORE"] == str(tmp_path / "store")
    _, other = begin(world)
    for wrong in ("x", "", world.push_token(other)):
        with pytest.raises(NotAllowed):
            world.receive.attempt(attempt.attempt_id, wrong)


def test_what_a_node_pushed_before_it_vanished_is_booked_with_its_remarks(world):
    job, attempt = begin(world)
    reset = wire.Note(1, "reset", "the counter went backwards", "gpu:a")
    for seq in range(3):
        push(world, attempt, *segment(world, attempt, seq, notes=(reset,)))
    receipt = finish(world, job, attempt, segments=3, journal=f"{READER}:0-2")

    assert receipt["energy_kwh"] == pytest.approx(0.003)
    assert receipt["missing"] == []
    assert any("[reset]" in note for note in receipt["notes"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 2 * WH), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_redelivered_shuffled_and_dropped_segments_total_exactly(tmp_path_factory, energies, rng: random.Random):
    """Each is delivered one to five times, in any order, 30 % of deliveries are lost, by push, by pull and by the
    journal store; what comes one way may have come another way before."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "store").mkdir()
    cluster = a_cluster("c", "DE", push_to="https://us.example", journal_store=str(folder / "store"))
    world = World(folder, [cluster], {"DE": [(0, 100.0)]})
    job, attempt = begin(world)
    made = [segment(world, attempt, seq, energy) for seq, energy in enumerate(energies)]
    deliveries = [one for one in made for _ in range(rng.randint(1, 5))]
    rng.shuffle(deliveries)
    for name, data in deliveries:
        if rng.random() < 0.3:
            continue
        way = rng.randrange(3)
        if way == 0:
            push(world, attempt, name, data)
        elif way == 1:
            world.clusters["c"].files[name] = data
        else:
            leave(folder, attempt, name, data)
        if rng.random() < 0.2:
            world.settle()
    for name, data in made:
        push(world, attempt, name, data) if rng.random() < 0.5 else leave(folder, attempt, name, data)
    receipt = finish(world, job, attempt, segments=len(made), journal=f"{READER}:0-{len(made) - 1}")
    with world.store.transaction(write=False) as tx:
        spans = tx.spans([attempt.attempt_id])
    world.close()
    assert sum(span.energy_uj for span in spans) == sum(energies)
    assert receipt["missing"] == []


def test_what_a_node_left_in_the_store_before_it_vanished_is_booked(world, tmp_path):
    job, attempt = begin(world)
    world.clusters["c"].replace_node()
    for seq in range(3):
        leave(tmp_path, attempt, *segment(world, attempt, seq))
    for _ in range(12):
        world.settle()
        world.clock.pass_s(61)
    receipt = world.statements.receipt(job.job_id)
    assert receipt["energy_kwh"] == pytest.approx(0.003)
    assert any("the node that it ran on left" in line for line in receipt["missing"])


def test_a_segment_that_came_three_ways_does_not_stand_for_one_that_came_by_none(world, tmp_path):
    job, attempt = begin(world)
    name, data = segment(world, attempt, 0)
    world.clusters["c"].files[name] = data
    push(world, attempt, name, data)
    leave(tmp_path, attempt, name, data)
    receipt = finish(world, job, attempt, segments=2, journal="...")
    assert receipt["missing"] == ["1 of 2 energy segments that the wrapper announced"]
    assert receipt["energy_kwh"] == pytest.approx(0.001)


def test_what_a_hostile_job_leaves_in_the_store_is_refused_by_name_and_nothing_else_suffers(world, tmp_path):
    job, attempt = begin(world)
    name, data = segment(world, attempt, 0)
    leave(tmp_path, attempt, name, data)
    leave(tmp_path, attempt, segment(world, attempt, 1)[0], data)
    leave(tmp_path, attempt, segment(world, attempt, 2)[0], b"x" * (wire.SEGMENT_LIMIT + 1))
    folder = tmp_path / "store" / attempt.attempt_id
    (folder / "notes.txt").write_text("not ours")
    (tmp_path / "elsewhere.seg").write_bytes(segment(world, attempt, 3)[1])
    (folder / segment(world, attempt, 3)[0]).symlink_to(tmp_path / "elsewhere.seg")
    receipt = finish(world, job, attempt, segments=1, journal=f"{READER}:0-0")
    assert receipt["energy_kwh"] == pytest.approx(0.001)
    assert sorted(line.partition(": ")[2] for line in receipt["missing"]) == [
        "no plain file of a segment's size",
        "the content belongs to another file name",
    ]


def test_a_store_that_cannot_be_read_is_said_and_what_was_pulled_is_booked(world, tmp_path):
    (tmp_path / "store").rmdir()
    job, attempt = begin(world)
    name, data = segment(world, attempt, 0)
    world.clusters["c"].files[name] = data
    receipt = finish(world, job, attempt, segments=1, reason="segments that did not reach the journal store: 1")
    assert receipt["energy_kwh"] == pytest.approx(0.001)
    assert [line for line in receipt["missing"] if "Mount it here" in line]
    assert [note for note in receipt["notes"] if note.startswith("1 energy segments did not reach the journal store")]


def test_other_content_under_a_known_name_is_a_conflict_and_changes_nothing(world):
    job, attempt = begin(world)
    name, data = segment(world, attempt, 0)
    push(world, attempt, name, data)
    with pytest.raises(Conflict, match="other content"):
        push(world, attempt, name, segment(world, attempt, 0, 5 * WH)[1])
    assert finish(world, job, attempt, segments=1)["energy_kwh"] == pytest.approx(0.001)


def test_what_is_none_of_ours_is_refused_in_words(world, key):
    _, attempt = begin(world)
    name, data = segment(world, attempt, 0)
    signed = key.sign(data)
    with pytest.raises(InvalidInput, match="torn"):
        push(world, attempt, name, data[:-1])
    with pytest.raises(InvalidInput, match="another file name"):
        push(world, attempt, segment(world, attempt, 1)[0], data)
    with pytest.raises(InvalidInput, match="altered or forged"):
        push(world, attempt, name, signed[:-20] + b"A" * 17 + signed[-3:])
    with pytest.raises(TooLarge):
        push(world, attempt, name, b"x" * (wire.SEGMENT_LIMIT + 1))
    with pytest.raises(InvalidInput, match="has not come"):
        push(world, attempt, *segment(world, attempt, 9_000))


def test_a_flood_is_turned_away_and_goes_on_a_minute_later(world):
    _, attempt = begin(world)
    name, data = segment(world, attempt, 0)
    for _ in range(FILES_A_MINUTE):
        push(world, attempt, name, data)
    with pytest.raises(TooMany):
        push(world, attempt, name, data)
    world.clock.pass_s(61)
    push(world, attempt, name, data)
