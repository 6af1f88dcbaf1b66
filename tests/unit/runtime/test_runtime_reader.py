"""The reader on fake counters: killed at every write, the sum of all segments stays the counter difference."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched_runtime.counters import Reading
from carbon_sched_runtime.machine import Claim, Machine
from carbon_sched_runtime.nvml import GpuProcesses
from carbon_sched_runtime.reader import Reader
from carbon_sched_runtime.wire import append_signature, parse_segment
from tests.fakes.metering import SECOND_NS, FakeProc, FakeSources, cpu, gpu

A, B = "cs-aaaaaaaaaa-a1", "cs-bbbbbbbbbb-a1"


class KilledError(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


class Bench:
    """A machine folder, a process tree and sources that outlive every reader made on them."""

    def __init__(self, folder) -> None:
        self.proc = FakeProc(folder / "proc")
        self.proc.process(1, parent=0, env={})
        self.sources = FakeSources(str(self.proc.root), {d.id: d for d in (gpu("gpu:a"), cpu())})
        for device in self.sources.devices:
            self.sources.readings[device] = Reading(7_000_000)
        self.machine = Machine(str(folder / "machine"))

    def join(self, attempt: str, pid: int, *, cpus: int = 1, gpus: int = 0, started: int | None = None) -> None:
        ticks = started if started is not None else self.sources.mono_ns * 100 // SECOND_NS
        self.proc.process(pid, started=ticks, env={"CARBON_SCHED_ATTEMPT": attempt})
        self.machine.write_claim(
            Claim(attempt, pid, ticks, os.geteuid(), self.sources.mono_ns, None, cpus * 1_000_000, gpus * 1_000_000)
        )

    def claim_ends(self, attempt: str) -> None:
        (claim,) = [c for c in self.machine.claims() if c.attempt == attempt]
        self.machine.write_claim(Claim(**{**claim.__dict__, "end_ns": self.sources.mono_ns}))

    def leave(self, attempt: str, pid: int) -> None:
        self.claim_ends(attempt)
        self.proc.end(pid)

    def segments(self):
        published = sorted(self.machine.published(0))
        return [parse_segment(Path(path).read_bytes(), name) for name, path in published]

    def total(self, device: str, owner: str | None = None) -> int:
        rows = [row for segment in self.segments() for row in segment.rows]
        return sum(row.energy_uj for row in rows if row.device == device and owner in (None, row.owner))


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_an_attempt_alone_gets_what_the_counter_moved(bench):
    bench.join(A, 100, gpus=1)
    bench.sources.clients["gpu:a"] = GpuProcesses((100,))
    reader = Reader(bench.machine, bench.sources)
    for _ in range(4):
        bench.sources.advance(1, gpu_a=300_000_000)
        reader.tick()
    bench.leave(A, 100)
    bench.sources.clients["gpu:a"] = GpuProcesses()
    reader.end()

    assert bench.total("gpu:a", A) == 1_200_000_000
    assert bench.total("gpu:a") == 1_200_000_000


def test_an_ending_attempt_pays_up_to_the_row_its_wrapper_waits_for(bench):
    bench.join(A, 100, gpus=1)
    reader = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=100_000_000)
    reader.tick()
    bench.sources.advance(0.5)
    bench.claim_ends(A)
    bench.sources.advance(0.5, gpu_a=100_000_000)
    reader.tick()
    bench.sources.advance(1, gpu_a=70_000_000)
    reader.end()

    assert bench.total("gpu:a", A) == 200_000_000
    assert bench.total("gpu:a", "idle") == 70_000_000


def test_the_book_is_sealed_every_30_seconds(bench):
    reader = Reader(bench.machine, bench.sources)
    for _ in range(65):
        bench.sources.advance(1, gpu_a=70_000_000)
        reader.tick()

    segments = bench.segments()
    assert [segment.seq for segment in segments] == [0, 1]
    assert all(29 <= (s.end_mono_ns - s.start_mono_ns) / SECOND_NS <= 31 for s in segments)
    assert segments[0].end_mono_ns == segments[1].start_mono_ns


def test_a_clean_end_hands_over_without_a_mark_and_the_hole_is_idle(bench):
    reader = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=70_000_000)
    reader.end()
    bench.sources.advance(7200, gpu_a=504_000_000_000, cpu_package_0=20_000_000_000)
    heir = Reader(bench.machine, bench.sources)
    heir.end()

    assert bench.total("gpu:a") == bench.total("gpu:a", "idle") == 504_070_000_000
    flags = {row.flags for segment in bench.segments() for row in segment.rows}
    assert flags == {(), ("gap",)}


def test_a_wrapper_that_was_killed_is_noticed_and_its_claim_removed(bench):
    bench.join(A, 100, gpus=1)
    reader = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=300_000_000)
    reader.tick()
    bench.proc.end(100)
    bench.sources.advance(1, gpu_a=300_000_000)
    reader.tick()
    assert bench.machine.claims() == []
    bench.sources.advance(1, gpu_a=70_000_000)
    reader.end()

    assert bench.total("gpu:a", A) == 600_000_000
    assert bench.total("gpu:a", "idle") == 70_000_000


def test_workers_without_a_claim_hold_what_their_environment_says(bench):
    bench.proc.process(
        100, started=1, env={"CARBON_SCHED_ATTEMPT": A, "CARBON_SCHED_GPUS": "1", "CARBON_SCHED_CPUS": "4"}
    )
    reader = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=300_000_000)
    reader.end()

    assert bench.total("gpu:a", A) == 300_000_000


def test_processes_that_outlive_their_attempt_pay_for_use_but_hold_nothing(bench):
    bench.proc.process(101, started=1, env={"CARBON_SCHED_ATTEMPT": A, "CARBON_SCHED_GPUS": "1"})
    bench.join(A, 100, gpus=1)
    reader = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=300_000_000)
    reader.tick()
    bench.leave(A, 100)
    reader.tick()
    bench.machine.remove_claim(A)
    bench.sources.advance(1, gpu_a=70_000_000)
    reader.tick()
    bench.sources.clients["gpu:a"] = GpuProcesses((101,))
    bench.sources.advance(2, gpu_a=80_000_000)
    reader.tick()
    bench.sources.advance(1, gpu_a=90_000_000)
    reader.end()

    assert bench.total("gpu:a", A) == 300_000_000 + 40_000_000 + 90_000_000
    assert bench.total("gpu:a", "idle") == 70_000_000 + 40_000_000


def test_a_first_reader_says_what_it_could_not_meter(bench):
    bench.join(A, 100)
    bench.sources.advance(0.25)
    Reader(bench.machine, bench.sources).end()
    bench.sources.advance(1)
    Reader(bench.machine, bench.sources).end()

    (note,) = [n for segment in bench.segments() for n in segment.notes if n.kind == "unmetered-head"]
    assert note.text == f"{A}: 250 ms before the first reading of this boot are not metered"


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"[[", b"null", b"\xff", b'{"v":1,"accounts":{}}', "future", "other-boot", "later", "types"],
)
def test_a_damaged_checkpoint_starts_new_accounts(bench, damage):
    reader = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=70_000_000)
    reader.end()
    state = json.loads(bench.machine.checkpoints()[0][0])
    if damage == "future":
        state["v"] = 2
    if damage == "other-boot":
        state["boot"] = "00000000-0000-0000-0000-000000000000"
    if damage == "later":
        state["accounts"]["mono_ns"] = 2**60
    if damage == "types":
        state["accounts"]["tracks"]["gpu:a"] = ["x"]
    bench.machine.write_checkpoint(damage if isinstance(damage, bytes) else json.dumps(state).encode())
    bench.sources.advance(100, gpu_a=7_000_000_000)
    Reader(bench.machine, bench.sources).end()

    assert bench.total("gpu:a") == 70_000_000, "what the lost checkpoint would have covered is not invented"


def test_a_full_disk_loses_nothing(bench, monkeypatch):
    reader = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=70_000_000)
    write = bench.machine.write_checkpoint
    monkeypatch.setattr(bench.machine, "write_checkpoint", lambda _data: (_ for _ in ()).throw(OSError(28, "full")))
    for _ in range(3):
        bench.sources.advance(1, gpu_a=70_000_000)
        with pytest.raises(OSError):
            reader.tick(seal=True)
    assert bench.segments() == []
    monkeypatch.setattr(bench.machine, "write_checkpoint", write)
    reader.end()

    assert bench.total("gpu:a") == 280_000_000


def test_a_segment_that_could_not_be_published_is_published_later(bench, monkeypatch):
    reader = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=70_000_000)
    publish = bench.machine.publish
    monkeypatch.setattr(bench.machine, "publish", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError):
        reader.tick(seal=True)
    monkeypatch.setattr(bench.machine, "publish", publish)
    bench.sources.advance(1, gpu_a=70_000_000)
    reader.end()

    assert bench.total("gpu:a") == 140_000_000


def test_a_signing_meter_signs_what_it_publishes(bench):
    signature = b"sig ed25519 meter-1 " + b"A" * 86 + b"==\n"
    reader = Reader(bench.machine, bench.sources, sign=lambda data: data + signature)
    bench.sources.advance(1, gpu_a=70_000_000)
    reader.end()

    assert {segment.signature.key_id for segment in bench.segments()} == {"meter-1"}


@pytest.mark.parametrize("write", range(12))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_write_no_joule_is_lost_or_booked_twice(bench, monkeypatch, write, moment):
    bench.join(A, 100, gpus=1)
    bench.sources.clients["gpu:a"] = GpuProcesses((100,))
    kill_around_write(bench.machine, monkeypatch, write, moment)
    try:
        reader = Reader(bench.machine, bench.sources)
        start = bench.sources.readings["gpu:a"].counter_uj
        for number in range(6):
            bench.sources.advance(1, gpu_a=300_000_001)
            reader.tick(seal=number % 2 == 1)
    except KilledError:
        pass
    monkeypatch.undo()
    first = [s.name for s in bench.segments()]
    bench.sources.advance(1, gpu_a=300_000_001)
    heir = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=300_000_001)
    heir.end()

    booked = bench.total("gpu:a")
    if write or moment == "after":
        assert booked == bench.sources.readings["gpu:a"].counter_uj - 7_000_000
    else:
        assert booked == 300_000_001, "killed before its first checkpoint: the accounts begin with the next reader"
        assert first == []
    assert start == 7_000_000 if write > 1 else True
    uncertain = [r for s in bench.segments() for r in s.rows if "uncertain-owner" in r.flags and r.owner == A]
    assert sum(row.end_us - row.start_us for row in uncertain if row.device == "gpu:a") <= 2_100_000


def kill_around_write(machine: Machine, monkeypatch, number: int, moment: str) -> None:
    """Make the n-th write to the meeting place the last thing that happens."""
    count = 0

    def around(method):
        def call(*arguments):
            nonlocal count
            count += 1
            if count - 1 == number and moment == "before":
                raise KilledError
            method(*arguments)
            if count - 1 == number:
                raise KilledError

        return call

    monkeypatch.setattr(machine, "write_checkpoint", around(machine.write_checkpoint))
    monkeypatch.setattr(machine, "publish", around(machine.publish))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["tick", "tick", "tick", "seal", "kill", "end", "kill-in-seal"]),
        st.integers(0, 700_000_000), st.sampled_from([0.5, 1.0, 1.1, 30.0, 600.0]),
        st.sampled_from([(), (100,), (101,), (100, 101), (999,)]),
    ),
    max_size=14,
)  # fmt: skip


@given(STEPS)
@settings(max_examples=40, deadline=None)
def test_any_life_of_readers_books_the_counter_difference(tmp_path_factory, steps):
    bench = Bench(tmp_path_factory.mktemp("bench"))
    bench.join(A, 100, gpus=1)
    bench.join(B, 101)
    reader = Reader(bench.machine, bench.sources)
    for what, grown, seconds, pids in steps:
        bench.sources.advance(seconds, gpu_a=int(grown * seconds), cpu_package_0=int(grown * seconds) // 4)
        bench.sources.clients["gpu:a"] = GpuProcesses(pids)
        if what in ("tick", "seal"):
            reader.tick(seal=what == "seal")
            continue
        if what == "end":
            reader.end()
        if what == "kill-in-seal":
            with pytest.MonkeyPatch.context() as patch:
                kill_around_write(bench.machine, patch, 0, "after")
                with pytest.raises(KilledError):
                    reader.tick(seal=True)
        reader = Reader(bench.machine, bench.sources)
    reader.end()

    assert bench.total("gpu:a") == bench.sources.readings["gpu:a"].counter_uj - 7_000_000
    names = [str(segment.name) for segment in bench.segments()]
    assert len(names) == len(set(names))


# A reader that signs ----------------------------------------------------------------------------------------------


def sign(data: bytes) -> bytes:
    return append_signature(data, "key", "A" * 86 + "==")


def signed_and_not(bench) -> tuple[int, int]:
    """Microjoules of the GPU in signed and in unsigned segments."""
    sums = [0, 0]
    for segment in bench.segments():
        sums[segment.signature is None] += sum(row.energy_uj for row in segment.rows if row.device == "gpu:a")
    return sums[0], sums[1]


def another_user(bench, monkeypatch) -> None:
    """From now on what is in the meters' folder is another user's."""
    monkeypatch.setattr(type(bench.machine), "checkpoints", lambda self: [(d, False) for d, _ in CHECKPOINTS(self)])


CHECKPOINTS = Machine.checkpoints


def test_a_meter_that_comes_back_signs_what_it_had_booked_and_the_hole(bench):
    first = Reader(bench.machine, bench.sources, sign)
    bench.sources.advance(1, gpu_a=100_000_000)
    first.tick()
    bench.sources.advance(60, gpu_a=50_000_000)
    Reader(bench.machine, bench.sources, sign).end()

    assert signed_and_not(bench) == (150_000_000, 0)


def test_what_another_user_booked_is_published_unsigned_and_nothing_is_lost(bench, monkeypatch):
    wrapper = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=100_000_000)
    wrapper.tick()
    bench.sources.advance(1, gpu_a=50_000_000)
    another_user(bench, monkeypatch)
    meter = Reader(bench.machine, bench.sources, sign)
    bench.sources.advance(1, gpu_a=7_000_000)
    monkeypatch.undo()
    meter.end()

    assert meter.hand_over_trouble == ""
    assert signed_and_not(bench) == (7_000_000, 150_000_000)


def test_a_wrapper_of_the_same_user_does_not_get_its_rows_signed(bench):
    wrapper = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=100_000_000)
    wrapper.tick()
    bench.sources.advance(1, gpu_a=7_000_000)
    Reader(bench.machine, bench.sources, sign).end()

    assert signed_and_not(bench) == (0, 107_000_000)


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s["accounts"]["book"]["rows"].append(["gpu:a", 0, "counter", "evil", "r", [], 0, 10**15, 10**15]),
        lambda s: s["accounts"]["book"].update(spans=[["gpu:x\n", 0, "odd", 0, 1, 2, 3, 4, 5, ["!"]]]),
        lambda s: s["accounts"].update(offset_us="soon"),
        lambda s: s.update(processes=[["many"]]),
        lambda s: s.update(sealing=[["../../evil", "x"]]),
        lambda s: s.update(busy=[]),
        lambda s: s.update(turn=10**30),
    ],
)
def test_a_checkpoint_that_somebody_made_up_neither_stops_the_meter_nor_is_signed(bench, monkeypatch, edit):
    wrapper = Reader(bench.machine, bench.sources)
    bench.sources.advance(1, gpu_a=100_000_000)
    wrapper.tick()
    state = json.loads(bench.machine.checkpoints()[0][0])
    edit(state)
    bench.machine.write_checkpoint(json.dumps(state).encode())
    another_user(bench, monkeypatch)
    meter = Reader(bench.machine, bench.sources, sign)
    bench.sources.advance(1, gpu_a=7_000_000)
    monkeypatch.undo()
    meter.end()

    assert signed_and_not(bench)[0] == 7_000_000
    signed = [s for s in bench.segments() if s.signature]
    assert {row.owner for s in signed for row in s.rows} <= {"idle", "unattributed"}


def test_a_segment_that_the_meter_published_is_not_replaced_by_anothers_checkpoint(bench, monkeypatch):
    meter = Reader(bench.machine, bench.sources, sign)
    bench.sources.advance(1, gpu_a=100_000_000)
    meter.tick(seal=True)
    (name, path) = next(iter(bench.machine.published(0)))
    ours = Path(path).read_bytes()
    state = json.loads(bench.machine.checkpoints()[0][0])
    unsigned = ours[: ours.rindex(b"sig ")].decode()
    state["sealing"] = [[name, unsigned]]
    bench.machine.write_checkpoint(json.dumps(state).encode())
    another_user(bench, monkeypatch)
    Reader(bench.machine, bench.sources, sign)

    assert Path(path).read_bytes() == ours
