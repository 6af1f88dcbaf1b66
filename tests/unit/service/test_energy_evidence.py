"""What a receipt says of the evidence behind its energy: gaps, altered files, floods, forgeries, independent meters."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_sched.domain.cluster import LocalHead
from carbon_sched.domain.energy import QUALITY, EnergySpan, IndependentCover, Reporter, SourceClass
from carbon_sched.meter_keys import SigningKey
from carbon_sched.service.remarks import WINDOWS
from carbon_sched.service.shelf import FILES_A_MINUTE
from carbon_sched_runtime import wire
from carbon_sched_runtime.window_file import WindowRecord, format_window, windows_name
from tests.fakes.world import BOOT, MACHINE, READER, START, World, a_cluster

WH = 3_600_000_000
METER = "11111111"


@pytest.fixture
def key(tmp_path):
    return SigningKey(tmp_path / "keys" / "meter.key")


@pytest.fixture
def world(tmp_path, key):
    world = World(tmp_path, [a_cluster("c", "DE", meter_keys=(str(key.public),))], {"DE": [(0, 100.0)]})
    yield world
    world.close()


def begin(world):
    """A job that runs on the cluster since now."""
    job = world.submit(name="train")
    world.settle()
    attempt = world.attempts(job)[-1]
    world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
    world.clusters["c"].run(attempt.attempt_id)
    world.settle()
    return job, attempt


def finish(world, job, attempt, **closed):
    """It ends, and everything that can be waited for is waited for."""
    world.record(attempt, {"event": "ended", "exit_code": 0}, {"event": "closed", "exit_code": 0, **closed})
    world.clusters["c"].end(attempt.attempt_id, "SUCCEEDED", 0)
    world.settle()
    for _ in range(3):
        world.clock.pass_s(61)
        world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert receipt["final"]
    assert world.statements.verify().ok
    return receipt


def put_signed(world, key, owners, start=START, end=START + timedelta(seconds=10), seq=0):
    """What the machine's own meter wrote; returns its file name."""
    segment = world.made_segment(start, end, owners, seq, reader=METER)
    world.clusters["c"].files[str(segment.name)] = key.sign(wire.format_segment(segment))
    return str(segment.name)


def test_notes_of_a_segment_reach_the_receipt_of_whom_they_concern(world):
    job, attempt = begin(world)
    me = attempt.attempt_id
    notes = (
        wire.Note(1, "unmetered-head", f"{me}: 1500 ms before the first reading of this boot are not metered"),
        wire.Note(
            1, "unmetered-head", "cs-another000-a1: 700 ms before the first reading of this boot are not metered"
        ),
        wire.Note(1, "power-unknown", "rm -rf / [bold]", "gpu:a"),
        wire.Note(1, "reset", "the counter went backwards", "gpu:a"),
        wire.Note(1, "reset", "the counter went backwards", "gpu:a"),
        wire.Note(1, "clock-step", "the wall clock moved by 9 ms"),
    )
    world.segment(attempt, START, START + timedelta(seconds=10), {me: WH}, notes=notes)
    receipt = finish(world, job, attempt, segments=1)

    assert receipt["missing"] == [
        "the first 1.5 s, before the machine's first reading since boot",
        "energy of gpu:a for a time, which could not be read [power-unknown]",
    ]
    assert any("counter of gpu:a" in note and "[reset] (2 times)" in note for note in receipt["notes"])
    assert any("clock was set" in note for note in receipt["notes"])
    assert not any("rm -rf" in text for text in receipt["missing"] + receipt["notes"])


@pytest.mark.parametrize(
    ("integral_uj", "seconds", "said"),
    [
        (WH, 30, False),
        (WH * 12 // 10, 30, True),
        (WH * 8 // 10, 30, True),
        (WH * 8 // 10, 10, False),
        (None, 30, False),
    ],
)
def test_a_counter_that_disagrees_with_power_is_booked_and_said(world, integral_uj, seconds, said):
    job, attempt = begin(world)
    made = world.made_segment(START, START + timedelta(seconds=seconds), {attempt.attempt_id: WH})
    made = replace(made, spans=tuple(replace(span, integral_uj=integral_uj) for span in made.spans))
    world.clusters["c"].files[str(made.name)] = wire.format_segment(made)
    receipt = finish(world, job, attempt, segments=1)

    assert receipt["energy_kwh"] == pytest.approx(0.001)
    assert any("differ by over 10 %" in note for note in receipt["notes"]) is said


def test_what_the_wrapper_says_at_the_end_reaches_the_receipt(world):
    job, attempt = begin(world)
    world.segment(attempt, START, START + timedelta(seconds=10), {attempt.attempt_id: WH})
    said = (
        "2 processes outlive the entrypoint; journal files were altered or removed, and put back: 3; OSError: disk full"
    )
    receipt = finish(world, job, attempt, segments=1, reason=said)

    assert receipt["missing"] == ["the wrapper says: OSError: disk full"]
    assert "2 processes of the job outlived its entrypoint" in receipt["notes"]
    assert any(note.startswith("3 energy segments were altered or removed") for note in receipt["notes"])


@pytest.mark.parametrize(
    ("segments", "journal", "lacking"),
    [
        (1, f"{READER}:0-0", None),
        (1, None, None),
        (3, f"{READER}:0-2", "2 of 3"),
        (3, None, "2 of 3"),
        (2, f"{READER}:0-0,deadbeef:4-4", "1 of 2"),
        (1_000_000, "deadbeef:0-999999", "1000000 of 1000000"),
        (500, f"{READER}:0-0,...", "499 of 500"),
    ],
)
def test_segments_that_were_announced_and_are_not_there_are_missing(world, segments, journal, lacking):
    job, attempt = begin(world)
    world.segment(attempt, START, START + timedelta(seconds=10), {attempt.attempt_id: WH})
    receipt = finish(world, job, attempt, segments=segments, journal=journal)

    expected = [f"{lacking} energy segments that the wrapper announced"] if lacking else []
    assert receipt["missing"] == expected


def test_a_hole_in_a_readers_numbers_is_missing(world):
    job, attempt = begin(world)
    for seq in (4, 7):
        at = START + timedelta(seconds=seq)
        world.segment(attempt, at, at + timedelta(seconds=1), {attempt.attempt_id: WH}, seq)
    receipt = finish(world, job, attempt, segments=2)

    assert receipt["missing"] == ["2 energy segments between those that were found"]


def test_each_segment_of_a_node_is_fetched_once_whoever_ran_there(world):
    for number in range(3):
        job, attempt = begin(world)
        at = world.clock.now()
        world.segment(attempt, at, at + timedelta(seconds=1), {attempt.attempt_id: WH}, number)
        assert finish(world, job, attempt, segments=number + 1)["missing"] == []

    reads = [name for name in world.clusters["c"].reads if name.endswith(".seg")]
    assert len(reads) == len(set(reads)) == 3


def test_a_server_that_starts_anew_does_not_fetch_what_was_stored_before_the_attempt(world, tmp_path):
    job, attempt = begin(world)
    world.segment(attempt, START, START + timedelta(seconds=1), {attempt.attempt_id: WH})
    finish(world, job, attempt, segments=1)
    world.collect._pull._racks.clear()
    world.clusters["c"].reads.clear()
    job, attempt = begin(world)
    at = world.clock.now()
    world.segment(attempt, at, at + timedelta(seconds=1), {attempt.attempt_id: WH}, 1)

    assert finish(world, job, attempt, segments=2)["missing"] == []
    assert sum(name.endswith(".seg") for name in world.clusters["c"].reads) == 1


def test_a_flood_of_files_is_read_at_a_limited_rate_and_starves_nobody(world, key):
    job, attempt = begin(world)
    me, files = attempt.attempt_id, world.clusters["c"].files
    for number in range(2000):
        files[f"carbon-sched-{MACHINE}-01234567-00000000-{number:06d}.seg"] = b"flood"
    put_signed(world, key, {me: WH})
    world.clusters["c"].reads.clear()
    world.clock.pass_s(31)
    world.settle()
    reads = [name for name in world.clusters["c"].reads if name.endswith(".seg")]
    assert len(reads) == FILES_A_MINUTE
    receipt = finish(world, job, attempt, segments=1)

    assert receipt["energy_kwh"] == pytest.approx(0.001)
    assert any("were not read" in text for text in receipt["missing"])
    assert len(receipt["missing"]) <= 21


@pytest.mark.parametrize("where", ["record", "segment"])
def test_files_larger_than_ours_are_not_read_and_said(world, where):
    job, attempt = begin(world)
    me, files = attempt.attempt_id, world.clusters["c"].files
    name = world.segment(attempt, START, START + timedelta(seconds=1), {me: WH})
    world.record(attempt, {"event": "ended", "exit_code": 0}, {"event": "closed", "exit_code": 0, "segments": 1})
    files[wire.record_name(me) if where == "record" else name] += b"x" * 100_000
    receipt = finish(world, job, attempt, segments=1)

    assert any("larger than" in text for text in receipt["missing"])


def test_gpus_that_were_asked_for_and_not_metered_are_missing(world):
    world.clusters["c"].resources["GPU"] = 1.0
    job = world.submit(resources={"gpus": 1.0})
    world.settle()
    world.run_to_end(job)
    world.clock.pass_s(61)
    world.settle()

    assert (
        "GPUs were asked for, and no GPU energy was recorded for it" in world.statements.receipt(job.job_id)["missing"]
    )


def test_a_segment_of_a_time_to_come_is_refused(world):
    job, attempt = begin(world)
    world.segment(attempt, START, START + timedelta(days=1), {attempt.attempt_id: WH})
    receipt = finish(world, job, attempt, segments=0)

    assert receipt["energy_kwh"] == 0
    assert any("has not come" in text for text in receipt["missing"])


# Independent meters ------------------------------------------------------------------------------------------------


def reporters(receipt):
    return {device["reporter"]: device["energy_j"] for device in receipt["devices"]}


def test_what_a_registered_meter_signed_is_independent(world, key):
    job, attempt = begin(world)
    put_signed(world, key, {attempt.attempt_id: WH, wire.IDLE: 7})
    receipt = finish(world, job, attempt, segments=1)

    assert reporters(receipt) == {"independent": 3600}
    assert receipt["missing"] == []
    assert not any("independent meter" in note for note in receipt["notes"])


@pytest.mark.parametrize("forged_first", [True, False])
@pytest.mark.parametrize("same_name", [True, False])
def test_what_a_job_reports_of_a_watched_time_is_never_booked(world, key, forged_first, same_name):
    job, attempt = begin(world)
    me, files = attempt.attempt_id, world.clusters["c"].files
    end = START + timedelta(seconds=10)

    def forge():
        reader = METER if same_name else READER
        segment = world.made_segment(START + timedelta(seconds=9), end, {me: 9 * WH, wire.IDLE: 5}, 0, reader=reader)
        files[str(segment.name)] = wire.format_segment(segment)

    def pull():
        world.clock.pass_s(31)
        world.settle()

    for forging in (forged_first, not forged_first):
        forge() if forging else put_signed(world, key, {me: WH, wire.IDLE: 7})
        pull()
    if same_name and forged_first:
        world.collect._pull._racks.clear()  # the name was read once; the next server finds the real one there
        pull()
    receipt = finish(world, job, attempt, segments=1)

    assert reporters(receipt)["independent"] == 3600
    assert receipt["energy_kwh"] == pytest.approx(0.001)
    report = world.statements.ask(lambda book: book.machine_energy_uj)
    assert report == {(MACHINE, wire.IDLE): 7}
    if not (same_name and not forged_first):
        assert any("evidence only" in note for note in receipt["notes"])


def test_a_signed_segment_that_was_written_over_for_a_while_counts_in_the_end(world, key):
    job, attempt = begin(world)
    me, files = attempt.attempt_id, world.clusters["c"].files
    middle, end = START + timedelta(seconds=5), START + timedelta(seconds=10)
    put_signed(world, key, {me: WH}, START, middle, 0)
    name = put_signed(world, key, {me: WH}, middle, end, 1)
    signed = files[name]
    files[name] = wire.format_segment(world.made_segment(middle, end, {me: 1}, 1, reader=METER))
    world.clock.pass_s(31)
    world.settle()
    files[name] = signed  # as the wrapper does at the job's end
    receipt = finish(world, job, attempt, segments=2)

    assert reporters(receipt) == {"independent": 7200}
    assert receipt["missing"] == []


def test_a_signed_segment_that_was_altered_is_refused_and_reported(world, key):
    job, attempt = begin(world)
    me, files = attempt.attempt_id, world.clusters["c"].files
    name = put_signed(world, key, {me: WH})
    stolen = files[name][files[name].rindex(b"sig ") :]
    files[name] = (
        wire.format_segment(world.made_segment(START, START + timedelta(seconds=10), {me: 1}, 0, reader=METER)) + stolen
    )
    receipt = finish(world, job, attempt, segments=0)

    assert receipt["energy_kwh"] == 0
    assert any("altered or forged" in text for text in receipt["missing"])


def test_a_key_that_nobody_vouches_for_makes_nothing_independent(world, tmp_path):
    job, attempt = begin(world)
    stranger = SigningKey(tmp_path / "stranger.key")
    put_signed(world, stranger, {attempt.attempt_id: WH})
    receipt = finish(world, job, attempt, segments=1)

    assert reporters(receipt) == {"self-reported": 3600}
    assert any(stranger.public.key_id in note for note in receipt["notes"])


TIMES = st.tuples(st.integers(0, 40), st.integers(1, 10)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(covered=st.lists(TIMES, max_size=8), asked=TIMES)
def test_the_cover_is_the_union_of_what_was_watched(covered, asked):
    def at(second):
        return START + timedelta(seconds=second)

    cover = IndependentCover()
    for first, last in covered:
        cover.add("m", ["cpu"], at(first), at(last))
    span = EnergySpan(
        "a", "c", "m", "cpu:x", "cpu", at(asked[0]), at(asked[1]), 1, SourceClass.COUNTER, Reporter.SELF_REPORTED,
        "package", "alone", 0, "0" * 64,
    )  # fmt: skip

    seconds = {second for first, last in covered for second in range(first, last)}
    assert cover.supersedes(span) == bool(seconds & set(range(*asked)))


def test_what_was_stored_before_its_key_was_registered_is_not_booked_a_second_time(world, tmp_path):
    job, attempt = begin(world)
    late = SigningKey(tmp_path / "late.key")
    put_signed(world, late, {attempt.attempt_id: WH, wire.IDLE: 7})
    world.clock.pass_s(31)
    world.settle()
    world.fleet.put(a_cluster("c", "DE", meter_keys=(str(late.public),)))
    world.collect._pull._racks.clear()
    receipt = finish(world, job, attempt, segments=1)

    assert reporters(receipt) == {"self-reported": 3600}
    assert world.statements.ask(lambda book: book.machine_energy_uj) == {(MACHINE, wire.IDLE): 7}


# Those who use what they do not hold, and those who stay ------------------------------------------------------------


def test_a_squatter_is_named_to_both_sides(world):
    job, attempt = begin(world)
    me = attempt.attempt_id
    notes = (
        wire.Note(1, "squatter", f"cs-another000-a1 uses what {me} holds", "gpu:a"),
        wire.Note(1, "squatter", f"{me} uses what cs-another000-a1 holds", "gpu:b"),
        wire.Note(1, "squatter", "rm -rf / uses what [bold] holds", "gpu:c"),
    )
    at = START + timedelta(seconds=10)
    world.segment(attempt, START, at, {me: WH}, notes=notes, flags=("squatter",))
    receipt = finish(world, job, attempt, segments=1)

    about = [note for note in receipt["notes"] if "squatter" in note or "not allocated" in note]
    assert len(about) == 2
    assert about[0].startswith("3600 J were used on GPUs that were not allocated to the job")
    assert about[1].startswith("gpu:a, which this job held, was used by processes of another job")


def test_energy_of_what_outlives_a_job_is_added_with_its_intensity_and_said(world):
    """A detached actor goes on after the job was booked; the wrapper of the next job there brings its rows."""
    job, attempt = begin(world)
    at = START + timedelta(seconds=10)
    world.segment(attempt, START, at, {attempt.attempt_id: WH})
    assert finish(world, job, attempt, segments=1)["energy_kwh"] == pytest.approx(0.001)

    _, later = begin(world)
    late = START + timedelta(seconds=600)
    world.segment(later, late, late + timedelta(seconds=30), {attempt.attempt_id: 2 * WH}, 1, flags=("leftover",))
    for _ in range(4):
        world.clock.pass_s(61)
        world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert receipt["energy_kwh"] == pytest.approx(0.003)
    assert receipt["co2e_g"] == pytest.approx(0.3 * receipt["pue"])
    assert any(note.startswith("7200 J were used by processes that outlived the job") for note in receipt["notes"])
    assert not any("no known intensity" in note for note in receipt["notes"])
    assert world.statements.verify().ok


def test_what_a_killed_wrapper_left_is_added_by_the_next_job_and_until_then_the_receipt_is_not_final(world):
    job, attempt = begin(world)
    world.clock.pass_s(31)
    world.clusters["c"].end(attempt.attempt_id, "FAILED", -9)
    for _ in range(3):
        world.settle()
        world.clock.pass_s(61)
    before = world.statements.receipt(job.job_id)
    assert before["final"]
    assert "no energy was recorded" in before["missing"]

    _, later = begin(world)
    world.segment(later, START, START + timedelta(seconds=10), {attempt.attempt_id: WH}, 1)
    world.clock.pass_s(31)
    world.settle()
    assert not world.statements.receipt(job.job_id)["final"], "its energy is known, and its intensity not yet"
    for _ in range(3):
        world.clock.pass_s(61)
        world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert receipt["final"]
    assert receipt["co2e_g"] == pytest.approx(0.1 * receipt["pue"])
    assert "no energy was recorded" not in receipt["missing"]
    assert any("no final record" in text for text in receipt["missing"])


def on(world, cluster):
    job = world.submit(name="train", clusters=[cluster])
    world.settle()
    (attempt,) = world.attempts(job)
    world.clusters[cluster].run(attempt.attempt_id)
    world.settle()
    return job, attempt


@pytest.mark.parametrize("local", [LocalHead(), None])
def test_what_a_killed_head_left_is_booked_through_another_of_this_machine_and_through_no_stranger(tmp_path, local):
    world = World(tmp_path, [a_cluster(name, "DE", local=local) for name in ("dies", "lives")], {"DE": [(0, 100.0)]})
    _, killed = on(world, "dies")
    _, later = on(world, "lives")
    rows = {killed.attempt_id: WH, later.attempt_id: 2 * WH, "idle": 7}
    name = world.segment(later, START, START + timedelta(seconds=10), rows)
    world.clusters["dies"].end(killed.attempt_id, "FAILED", -9)
    world.clock.pass_s(31)
    world.settle()
    assert rows_of(world, "dies") == ([(killed.attempt_id, WH)] if local else [])

    world.clusters["dies"].files[name] = world.clusters["lives"].files[name]
    for _ in range(3):
        world.clock.pass_s(61)
        world.settle()
    assert rows_of(world, "dies") == [(killed.attempt_id, WH)], "once, however it came"
    assert rows_of(world, "lives") == [(later.attempt_id, 2 * WH), ("idle", 7)]
    world.close()


def test_of_a_local_head_that_was_killed_what_its_disk_holds_is_booked_without_waiting_for_more(tmp_path):
    world = World(tmp_path, [a_cluster("dies", "DE", local=LocalHead())], {"DE": [(0, 100.0)]})
    job, killed = on(world, "dies")
    world.segment(killed, START, START + timedelta(seconds=10), {killed.attempt_id: WH})
    cluster = world.clusters["dies"]
    files = dict(cluster.files)
    cluster.restart("session-2")
    cluster.files.update(files)  # as `LocalClient` finds them
    world.settle()
    world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert (receipt["state"], receipt["final"]) == ("lost", True)
    assert receipt["energy_kwh"] == pytest.approx(0.001)
    assert "the wrapper left no record" in receipt["missing"]
    world.close()


def rows_of(world, cluster):
    """Owners and energy of what was recorded on a cluster."""
    with world.store.transaction(write=False) as tx:
        bodies = [json.loads(entry.payload)["body"] for entry in tx.entries()]
    spans = [span for body in bodies if body.get("cluster") == cluster for span in body.get("spans", [])]
    return [(span["owner"], span["energy_uj"]) for span in spans]


def booked(world, attempt) -> int:
    """How often it was."""
    with world.store.transaction(write=False) as tx:
        facts = [json.loads(entry.payload) for entry in tx.entries()]
    bodies = [fact["body"] for fact in facts if fact["kind"] == "attempt-collected"]
    return sum(body["attempt"] == attempt.attempt_id for body in bodies)


def leave_late_energy(world, attempt, later, seq):
    """30 s of what outlives an attempt, in a segment that ends now."""
    now = world.clock.now()
    owners = {attempt.attempt_id: WH}
    world.segment(later, now - timedelta(seconds=30), now, owners, seq, flags=("leftover",))


def test_what_ray_still_ends_of_a_job_is_booked_a_moment_later(world):
    _, later = begin(world)
    job, attempt = begin(world)
    world.run_to_end(job)
    assert world.statements.receipt(job.job_id)["final"]
    world.clock.pass_s(1)
    leave_late_energy(world, attempt, later, 1)
    world.clusters["c"].end(later.attempt_id, "SUCCEEDED", 0)
    world.settle()
    assert not world.statements.receipt(job.job_id)["final"]
    world.clock.pass_s(2)
    world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert (receipt["final"], receipt["energy_kwh"]) == (True, pytest.approx(0.002))
    assert world.clock.now() - world.job(job).finished_at < timedelta(seconds=4)


def test_of_a_process_that_stays_each_hour_is_booked_not_each_segment(world):
    _, later = begin(world)
    job, attempt = begin(world)
    world.run_to_end(job)
    for seq in range(1, 125):
        world.clock.pass_s(30)
        leave_late_energy(world, attempt, later, seq)
        world.collect.step()
    assert booked(world, attempt) == 1 + 1, "at its end, and once for the first hour"


# Windows -------------------------------------------------------------------------------------------------------------


def window(attempt: str, number: int, start_s: float, end_s: float, **units: float) -> WindowRecord:
    t0, t1 = (round((START.timestamp() + at) * 1e6) for at in (start_s, end_s))
    amounts = tuple((name, round(amount * 1e6)) for name, amount in units.items())
    return WindowRecord(
        f"{number:08x}", attempt, f"epoch-{number}", t0, t1, t0, t1, MACHINE, BOOT, 7, None, 10**12, None, None, None,
        None, units=amounts,
    )  # fmt: skip


def test_windows_of_user_code_are_stretches_of_the_attempt_with_its_own_energy_and_carbon(world):
    """10 s, 3600 J of the attempt and as many of another's: the window of 5 s has half of the attempt's, whatever it
    measured itself on whole devices."""
    job, attempt = begin(world)
    me = attempt.attempt_id
    world.segment(attempt, START, START + timedelta(seconds=10), {me: WH, "idle": WH})
    lines = [window(me, 1, 0, 5, tokens=900), window(me, 2, 5, 10), window("cs-another000-a1", 3, 0, 5)]
    data = b"".join(map(format_window, lines)) + b"torn"
    world.clusters["c"].files[windows_name(me)] = data
    receipt = finish(world, job, attempt, segments=1)

    first, second = receipt["windows"]
    assert (first["name"], first["energy_j"], first["j_per_unit"]) == ("epoch-1", 1800.0, {"tokens": 2.0})
    assert (second["name"], second["energy_j"], second["j_per_unit"]) == ("epoch-2", 1800.0, {})
    assert first["co2e_g"] + second["co2e_g"] == pytest.approx(receipt["co2e_g"], abs=2e-6)
    assert receipt["energy_kwh"] == pytest.approx(0.001)


def test_what_the_code_reports_is_kept_however_many_windows_there_are(world):
    job, attempt = begin(world)
    me = attempt.attempt_id
    world.segment(attempt, START, START + timedelta(seconds=10), {me: WH})
    told = [replace(window(me, WINDOWS + 1 + n, 6 + n, 7 + n), name=QUALITY, units=(("loss", 2 - n),)) for n in (0, 1)]
    data = b"".join(format_window(one) for one in [*(window(me, n, 0, 5) for n in range(WINDOWS)), *told])
    world.clusters["c"].files[windows_name(me)] = data
    receipt = finish(world, job, attempt, segments=1)

    assert receipt["quality"] == {"loss": 1e-6}
    assert len(receipt["windows"]) == WINDOWS - 2


def test_work_and_quality_of_windows_too_short_for_two_looks_count(world):
    """A report of quality takes less than the millisecond in which two looks at the counters are one."""
    job, attempt = begin(world)
    me = attempt.attempt_id
    world.segment(attempt, START, START + timedelta(seconds=10), {me: WH})
    told = replace(window(me, 1, 5, 5), name=QUALITY, units=(("loss", 2_000_000),))
    data = b"".join(map(format_window, (told, window(me, 2, 5, 5, tokens=3))))
    world.clusters["c"].files[windows_name(me)] = data
    receipt = finish(world, job, attempt, segments=1)

    assert receipt["quality"] == {"loss": 2.0}
    assert receipt["windows"][0]["units"] == {"tokens": 3.0}


def test_windows_without_end_are_listed_so_far_and_the_rest_counted(world):
    job, attempt = begin(world)
    me = attempt.attempt_id
    world.segment(attempt, START, START + timedelta(seconds=10), {me: WH})
    data = b"".join(format_window(window(me, number, 0, 5)) for number in range(WINDOWS + 7))
    world.clusters["c"].files[windows_name(me)] = data
    receipt = finish(world, job, attempt, segments=1)

    assert len(receipt["windows"]) == WINDOWS
    assert "7 more windows of the job's code are not listed" in receipt["notes"]


# A server that was away ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "segments"), [pytest.param(5, 260, id="5"), pytest.param(50, 720, id="50", marks=pytest.mark.slow)]
)
def test_all_energy_arrives_when_the_server_was_away_for_six_hours(world, jobs, segments):
    """All jobs on one node, where more segments lie than the 240 that are read in a minute."""
    runs = [begin(world) for _ in range(jobs)]
    owners = [attempt.attempt_id for _, attempt in runs]
    for seq in range(segments):
        at = START + timedelta(seconds=30 * seq)
        joules = dict.fromkeys(owners[seq % 5 :: 5], 1000 + seq)
        world.segment(runs[0][1], at, at + timedelta(seconds=30), {**joules, "idle": 1}, seq)
    world.clock.pass_s(6 * 3600)
    for _, attempt in runs:
        world.record(attempt, {"event": "ended", "exit_code": 0}, {"event": "closed", "exit_code": 0})
        world.clusters["c"].end(attempt.attempt_id, "SUCCEEDED", 0)
    for _ in range(6):
        world.settle()
        world.clock.pass_s(61)

    with world.store.transaction(write=False) as tx:
        found = {owner: sum(span.energy_uj for span in tx.spans([owner])) for owner in owners}
    expected = [sum(1000 + seq for seq in range(first, segments, 5)) for first in range(5)]
    assert found == {owner: expected[number % 5] for number, owner in enumerate(owners)}
    assert all(world.statements.receipt(job.job_id)["final"] for job, _ in runs)
