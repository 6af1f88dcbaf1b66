"""The accounts over many ticks: conservation whatever happens to counters, owners and readers (B5 rows 12, 13, 27)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched_runtime import book as books
from carbon_sched_runtime.accounts import TICK_NS, Accounts, GpuScene, Sample, Scene, Stay
from carbon_sched_runtime.attribution import WHOLE
from carbon_sched_runtime.counters import Reading
from carbon_sched_runtime.wire import SEGMENT_LIMIT, Note, Segment, format_segment, parse_segment
from tests.fakes.metering import SECOND_NS, UTC_US, cpu, gpu

A, B = "cs-aaaaaaaaaa-a1", "cs-bbbbbbbbbb-a1"
READER = books.Reader("0123456789ab", "35a06fda-5b96-4342-98ee-a3b3e860a622", "00c0ffee", 1000)
DEVICES = {d.id: d for d in (gpu("gpu:a"), gpu("gpu:b", counts=False, quantum_ns=0), cpu())}
START_NS = 1000 * SECOND_NS
NOBODY = Scene((), {}, 0, {})


class Play:
    """Accounts fed by hand: one GPU counter, one GPU with power only, one CPU counter that wraps."""

    def __init__(self, devices=DEVICES) -> None:
        self.devices = devices
        self.mono_ns = START_NS
        self.raw = dict.fromkeys(devices, 5_000_000)
        self.accounts = Accounts.new(4, self.sample())
        self.accounts.take(self.devices, self.sample(), NOBODY)

    def sample(self, power_mw: int | None = 300_000, errors: dict[str, str] | None = None) -> Sample:
        readings = {
            name: Reading(self.raw[name] if device.counts else None, power_mw if device.kind == "gpu" else None)
            for name, device in self.devices.items()
        }
        readings.update({name: Reading(error=text) for name, text in (errors or {}).items()})
        return Sample(self.mono_ns, UTC_US + self.mono_ns // 1000, readings)

    def step(self, seconds: float = 1.0, scene: Scene = NOBODY, errors=None, **grown: int) -> None:
        self.mono_ns += int(seconds * SECOND_NS)
        for name, device in self.devices.items():
            amount = grown.get(name[-1], 100_000_000)
            self.raw[name] = (self.raw[name] + amount) % (device.wrap_uj or 2**80)
        self.accounts.take(self.devices, self.sample(errors=errors), scene)

    def restart(self, *, clean: bool = False) -> None:
        """Another reader goes on from the checkpoint."""
        self.accounts = Accounts.from_json(json.loads(json.dumps(self.accounts.to_json())))
        self.accounts.taken_over = not clean

    def rows(self, device: str) -> dict[str, int]:
        total: dict[str, int] = {}
        for row in self.accounts.book.rows:
            if row.device == device:
                total[row.owner] = total.get(row.owner, 0) + row.energy_uj
        return total

    def seal(self) -> list[Segment]:
        return [
            parse_segment(format_segment(segment))
            for segment in books.seal(self.accounts.book, READER, 0, self.accounts.offset_us, self.devices)
        ]


def scene(*stays: Stay, used=None, busy=0, a=None, b=None, known=True) -> Scene:
    gpus = {"gpu:a": GpuScene(a or {}, {}, known), "gpu:b": GpuScene(b or {}, {}, known)}
    return Scene(stays, used or {}, busy, gpus)


ON_A = Stay(A, START_NS, gpus=WHOLE, cpus=WHOLE)


def test_a_gpu_with_one_user_books_every_microjoule_to_it():
    play = Play()
    for _ in range(5):
        play.step(a=300_000_000, scene=scene(ON_A, a={A: START_NS}))

    assert play.rows("gpu:a") == {A: 5 * 300_000_000}, "the tick it came in too: it holds the GPU since it came"


def test_who_was_allocated_no_gpu_pays_for_half_of_the_tick_in_which_it_came_onto_one():
    play = Play()
    for _ in range(5):
        play.step(a=300_000_000, scene=scene(replace(ON_A, gpus=0), a={A: START_NS - 1_000_000_000}))

    assert play.rows("gpu:a") == {A: 5 * 300_000_000 - 150_000_000, "idle": 150_000_000}


def test_who_started_in_the_clock_tick_in_which_the_interval_began_pays_for_all_of_it():
    play = Play()
    play.step(a=300_000_000, scene=scene(replace(ON_A, gpus=0), a={A: START_NS - TICK_NS // 2}))

    assert play.rows("gpu:a") == {A: 300_000_000}


def test_time_with_nobody_is_idle_and_that_is_no_uncertainty():
    play = Play()
    play.step(3600, a=252_000_000_000)

    assert play.rows("gpu:a") == {"idle": 252_000_000_000}
    assert {row.flags for row in play.accounts.book.rows if row.device == "gpu:a"} == {("gap",)}


def test_a_hole_with_attempts_is_booked_and_marked_uncertain():
    play = Play()
    play.step(scene=scene(ON_A, a={A: START_NS}))
    play.step(8, scene=scene(ON_A, a={A: START_NS}), a=2_400_000_000)

    hole = [row for row in play.accounts.book.rows if row.device == "gpu:a"][-1]
    assert hole.energy_uj == 2_400_000_000
    assert hole.flags == ("gap", "uncertain-owner")
    segment = play.seal()[0]
    assert max(row.error_ppm for row in segment.rows) == 1_000_000


def test_idle_time_before_an_attempt_stays_certain_and_only_the_attempts_part_is_marked():
    play = Play()
    late = replace(ON_A, start_ns=START_NS + 99 * SECOND_NS)
    play.step(100, scene=scene(late, a={A: late.start_ns}), a=7_000_000_000)

    flags = {row.owner: (row.energy_uj, row.flags) for row in play.accounts.book.rows if row.device == "gpu:a"}
    assert flags == {A: (70_000_000, ("gap", "uncertain-owner")), "idle": (6_930_000_000, ("gap",))}


def test_a_reader_that_died_leaves_one_marked_interval():
    play = Play()
    play.step(scene=scene(ON_A, a={A: START_NS}))
    play.restart()
    play.step(scene=scene(ON_A, a={A: START_NS}))
    play.step(scene=scene(ON_A, a={A: START_NS}))

    flags = [row.flags for row in play.accounts.book.rows if (row.device, row.owner) == ("gpu:a", A)]
    assert flags == [(), ("takeover", "uncertain-owner"), ()]


def test_a_reader_that_left_in_good_order_leaves_no_mark():
    play = Play()
    play.step(scene=scene(ON_A, a={A: START_NS}))
    play.restart(clean=True)
    play.step(scene=scene(ON_A, a={A: START_NS}))

    assert all(row.flags == () for row in play.accounts.book.rows)


def test_rows_are_compact_and_cut_where_the_owners_change():
    play = Play()
    together = scene(ON_A, replace(ON_A, attempt=B), a={A: START_NS, B: START_NS})
    for _ in range(10):
        play.step(scene=scene(ON_A, a={A: START_NS}))
    for _ in range(10):
        play.step(scene=together)

    rows = [row for row in play.accounts.book.rows if row.device == "gpu:a" and row.owner != "idle"]
    assert [(row.owner, row.rule, (row.end_ns - row.start_ns) // SECOND_NS) for row in rows] == [
        (A, "gpu-pids", 10), (A, "gpu-pids+equal", 10), (B, "gpu-pids+equal", 10),
    ]  # fmt: skip


def test_an_ended_attempt_pays_up_to_its_end_and_not_beyond():
    play = Play()
    play.step(scene=scene(ON_A, a={A: START_NS}))
    ended = replace(ON_A, end_ns=START_NS + SECOND_NS + SECOND_NS // 4)
    play.step(scene=scene(ended), a=400_000_000)

    last = [row for row in play.accounts.book.rows if row.owner == A and row.device == "gpu:a"][-1]
    assert last.energy_uj == 100_000_000 + 100_000_000, "the first tick, a quarter of the second"
    assert last.end_ns == ended.end_ns, "its row ends where it ended"


def test_the_row_of_an_attempt_begins_when_it_came_not_when_somebody_last_looked():
    play = Play()
    late = replace(ON_A, start_ns=START_NS + SECOND_NS * 3 // 4)
    play.step(scene=scene(late, a={A: late.start_ns}))

    (row,) = [row for row in play.accounts.book.rows if row.owner == A and row.device == "gpu:a"]
    assert (row.start_ns, row.end_ns) == (late.start_ns, play.mono_ns)


def test_a_lost_gpu_is_noted_once_and_its_hole_marked():
    play = Play()
    play.step(scene=scene(ON_A, a={A: START_NS}))
    for _ in range(3):
        play.step(scene=scene(ON_A), errors={"gpu:a": "NVML: GPU is lost"})
    play.step(scene=scene(ON_A, a={A: START_NS}))

    assert [(note.kind, note.device) for note in play.accounts.book.notes] == [("unreadable", "gpu:a")]
    assert sum(play.rows("gpu:a").values()) == 5 * 100_000_000
    assert ("gap", "uncertain-owner") in {row.flags for row in play.accounts.book.rows if row.device == "gpu:a"}


@pytest.mark.parametrize(("before", "now", "learnt"), [({}, {}, True), ({}, {A: 0}, False), ({A: 0}, {}, False)])
def test_the_baseline_of_a_gpu_is_the_least_power_seen_with_nobody_on_it(before, now, learnt):
    play = Play()
    play.step(a=100_000_000, scene=scene(a=before))
    at_70_w = replace(play.sample(power_mw=70_000), mono_ns=play.mono_ns + SECOND_NS)
    play.accounts.take(play.devices, at_70_w, scene(a=now))

    assert (play.accounts.baselines_mw.get("gpu:a") == 70_000) is learnt


def test_what_rests_of_a_gpu_that_was_never_free_is_a_tenth_of_its_limit():
    play = Play()
    both = Scene((ON_A,), {}, 0, {"gpu:a": GpuScene({A: START_NS, B: START_NS}, {A: 75, B: 25})})
    play.accounts.gpu_users["gpu:a"] = [A, B]
    play.step(a=300_000_000, scene=both)

    assert play.devices["gpu:a"].limit_mw == 700_000
    assert play.rows("gpu:a") == {A: 70_000_000 + 172_500_000, B: 57_500_000}


def test_the_clock_is_followed_between_segments_and_noted():
    play = Play()
    moved = replace(play.sample(), utc_us=play.sample().utc_us - 3_600_000_000)

    play.accounts.check_clock(moved)

    assert play.accounts.book.notes[0].kind == "clock-step"
    assert play.accounts.offset_us == UTC_US - 3_600_000_000


def test_a_book_of_any_size_is_sealed_into_segments_that_fit_and_add_up():
    play = Play({"gpu:a": gpu("gpu:a")})
    owners = [f"cs-{'x' * 90}{n:03d}-a1" for n in range(400)]
    stays = tuple(Stay(owner, START_NS, gpus=1000) for owner in owners)
    play.step(a=500_000_003, scene=scene(*stays, a=dict.fromkeys(owners, 0)))
    play.step(a=500_000_001, scene=scene(*stays, a=dict.fromkeys(owners, 0)))
    for number in range(90):
        play.accounts.book.note(Note(UTC_US, "reset", "x" * 300 + str(number)))

    segments = play.seal()

    assert len(segments) > 3
    assert all(len(format_segment(segment)) <= SEGMENT_LIMIT for segment in segments)
    assert [segment.seq for segment in segments] == list(range(len(segments)))
    assert sum(row.energy_uj for segment in segments for row in segment.rows) == 1_000_000_004
    assert sum(len(segment.notes) for segment in segments) == 90


def test_notes_beyond_what_is_kept_are_counted():
    play = Play()
    for _ in range(250):
        play.accounts.book.note(Note(UTC_US, "reset", "again"))
    play.step()

    assert play.seal()[-1].notes[-1].text == "50 more notes were not kept"


def test_an_empty_book_makes_no_segment():
    assert Play().seal() == []


OWNERS = (A, B, "cs-cccccccccc-a2")
SCENES = st.builds(
    lambda stays, users, used, busy, known: Scene(
        tuple(stays), used, busy, {"gpu:a": GpuScene(users, used, known), "gpu:b": GpuScene({}, {}, known)}
    ),
    st.lists(
        st.builds(
            Stay, attempt=st.sampled_from(OWNERS), start_ns=st.integers(0, START_NS + 60 * SECOND_NS),
            end_ns=st.none() | st.integers(START_NS, START_NS + 90 * SECOND_NS),
            cpus=st.integers(0, 4 * WHOLE), gpus=st.integers(0, 2 * WHOLE),
            visible=st.none() | st.just(("gpu:a",)),
        ),
        max_size=3, unique_by=lambda stay: stay.attempt,
    ),
    st.dictionaries(st.sampled_from([*OWNERS, "unattributed"]), st.integers(0, START_NS + 60 * SECOND_NS), max_size=3),
    st.dictionaries(st.sampled_from(OWNERS), st.integers(0, 400), max_size=3),
    st.integers(0, 800), st.booleans(),
)  # fmt: skip
EVENTS = st.tuples(
    st.floats(0.001, 40, allow_nan=False),
    st.integers(0, 2_000_000_000),
    st.sampled_from(["", "", "", "", "reset", "lost", "restart", "restart-clean", "seal"]),
    SCENES,
)


@given(st.lists(EVENTS, min_size=1, max_size=25))
@settings(max_examples=150, deadline=None)
def test_rows_add_up_to_the_counters_whatever_happens(events):
    """Random ownership, resets, lost devices, gaps, restarts and seals: nothing is lost, nothing is counted twice."""
    play = Play()
    rows: dict[tuple[str, str], int] = {}
    truth = {"gpu:a": 0}
    for seconds, most, what, seen in events:
        grown = 0 if what == "reset" else most
        if what.startswith("restart"):
            play.restart(clean=what.endswith("clean"))
        if what == "reset":
            play.raw["gpu:a"] = 0
        epoch = play.accounts.tracks["gpu:a"].epoch
        before = play.accounts.tracks["gpu:a"].raw_uj
        play.step(seconds, seen, errors={"gpu:a": "lost"} if what == "lost" else None, a=grown)
        after = play.accounts.tracks["gpu:a"]
        if after.epoch == epoch and after.mono_ns == play.mono_ns and not after.stuck:
            truth["gpu:a"] += after.raw_uj - before
        if what == "seal":
            collect(play, rows)
    collect(play, rows)

    assert rows.get(("gpu:a", "counter"), 0) == truth["gpu:a"]
    assert rows.get(("gpu:b", "integrated"), 0) == play.accounts.tracks["gpu:b"].integrated_uj


def collect(play: Play, rows: dict[tuple[str, str], int]) -> None:
    for segment in play.seal():  # each is checked by parse_segment: its rows add up to its spans
        for row in segment.rows:
            key = (row.device, row.source)
            rows[key] = rows.get(key, 0) + row.energy_uj
    play.accounts.book = books.Book()
