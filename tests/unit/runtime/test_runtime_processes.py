"""Whose process is it, and how much CPU time did an attempt use: on a process tree made of files."""

from __future__ import annotations

import pytest

from carbon_sched_runtime.processes import ProcessTable, busy_ticks, millionths
from tests.fakes.metering import SECOND_NS, FakeProc

A, B = "cs-aaaaaaaaaa-a1", "cs-bbbbbbbbbb-a1"
STAMP_A = {"PATH": "/bin", "CARBON_SCHED_ATTEMPT": A, "CARBON_SCHED_CPUS": "1.5", "CARBON_SCHED_GPUS": "0.5"}
STAMP_B = {"CARBON_SCHED_ATTEMPT": B}


@pytest.fixture
def proc(tmp_path):
    tree = FakeProc(tmp_path / "proc")
    tree.process(1, parent=0, env={})
    tree.process(50, env={"NAME": "raylet"})
    return tree


@pytest.fixture
def table(proc):
    table = ProcessTable(proc=str(proc.root))
    table.scan([], 10 * SECOND_NS)
    return table


def scan(table: ProcessTable, second: int, roots=()):
    return table.scan(roots, second * SECOND_NS).used_ticks


def test_workers_of_the_raylet_belong_to_the_attempt_of_their_stamp(proc, table):
    proc.process(60, parent=50, started=1001, ticks=7, env=STAMP_A)
    proc.process(61, parent=50, started=1001, ticks=3, env=STAMP_B)

    assert scan(table, 11) == {A: 7, B: 3}
    assert table.owner_of(60) == (A, 10_010_000_000)
    assert table.owner_of(50) == (None, 1_000_000_000)
    assert table.owner_of(999) is None


def test_descendants_that_dropped_the_stamp_belong_to_their_parents_attempt(proc, table):
    proc.process(60, parent=50, started=1001, env=STAMP_A)
    proc.process(61, parent=60, started=1002, ticks=5, env={})
    proc.process(62, parent=61, started=1003, ticks=4)  # its environment cannot be read

    assert scan(table, 11) == {A: 9}


def test_a_stamp_goes_before_the_parents_attempt(proc, table):
    proc.process(60, parent=50, started=1001, env=STAMP_A)
    proc.process(61, parent=60, started=1002, ticks=5, env=STAMP_B)

    assert scan(table, 11) == {A: 0, B: 5}


def test_a_stamp_inside_another_value_is_none(proc, table):
    proc.process(
        60, parent=50, started=1001, ticks=9, env={"X": f"CARBON_SCHED_ATTEMPT={A}", "CARBON_SCHED_ATTEMPT": "../x"}
    )

    assert scan(table, 11) == {}


def test_who_was_told_of_another_meeting_place_is_metered_there(proc, table):
    proc.process(60, parent=50, started=1001, ticks=9, env={**STAMP_A, "CARBON_SCHED_MACHINE_DIR": "/elsewhere"})
    assert scan(table, 11) == {}

    there = ProcessTable(proc=str(proc.root), place="/elsewhere")
    assert there.owner_of(60) == (A, 10_010_000_000)


@pytest.mark.parametrize("name", ["idle", "unattributed"])
def test_no_process_can_call_itself_idle(proc, table, name):
    proc.process(60, parent=50, started=1001, ticks=9, env={"CARBON_SCHED_ATTEMPT": name})

    assert scan(table, 11) == {}


def test_time_is_counted_from_scan_to_scan(proc, table):
    proc.process(60, parent=50, started=1001, ticks=7, env=STAMP_A)
    scan(table, 11)
    proc.process(60, parent=50, started=1001, ticks=57)

    assert scan(table, 12) == {A: 50}
    assert scan(table, 13) == {A: 0}


def test_a_process_that_was_there_before_us_brings_no_past_with_it(proc):
    proc.process(60, parent=50, started=100, ticks=5000, env=STAMP_A)
    table = ProcessTable(proc=str(proc.root))
    table.scan([], 10 * SECOND_NS)
    proc.process(60, parent=50, started=100, ticks=5010)

    assert scan(table, 11) == {A: 10}


def test_time_of_a_child_that_was_waited_for_is_not_counted_twice(proc, table):
    proc.process(60, parent=50, started=1001, ticks=10, env=STAMP_A)
    proc.process(61, parent=60, started=1001, ticks=40)
    scan(table, 11)
    proc.end(61)
    proc.process(60, parent=50, started=1001, ticks=10 + 45)  # the kernel added the child's 45 to its parent

    assert scan(table, 12) == {A: 5}


def test_time_of_grandchildren_that_ended_with_their_parent_is_not_counted_twice(proc, table):
    proc.process(60, parent=50, started=1001, ticks=10, env=STAMP_A)
    proc.process(61, parent=60, started=1001, ticks=20)
    proc.process(62, parent=61, started=1001, ticks=30)
    scan(table, 11)
    proc.end(61)
    proc.end(62)
    proc.process(60, parent=50, started=1001, ticks=10 + 20 + 30 + 4)

    assert scan(table, 12) == {A: 4}


def test_a_worker_of_the_raylet_that_ends_takes_its_time_with_it(proc, table):
    proc.process(60, parent=50, started=1001, ticks=10, env=STAMP_A)
    proc.process(61, parent=50, started=1001, ticks=40, env=STAMP_A)
    scan(table, 11)
    proc.end(61)
    proc.process(60, parent=50, started=1001, ticks=12)

    assert scan(table, 12) == {A: 2}


def test_a_process_that_just_ended_is_still_known(proc, table):
    proc.process(60, parent=50, started=1001, env=STAMP_A)
    scan(table, 11)
    proc.end(60)
    scan(table, 12)

    assert table.owner_of(60) == (A, 10_010_000_000)
    for second in range(13, 23):
        scan(table, second)
    assert table.owner_of(60) is None


def test_a_reused_process_number_is_another_process(proc, table):
    proc.process(60, parent=50, started=1001, ticks=10, env=STAMP_A)
    scan(table, 11)
    proc.end(60)
    proc.process(60, parent=50, started=1150, ticks=3, env=STAMP_B)

    assert scan(table, 12) == {B: 3}


def test_a_process_seen_between_fork_and_exec_is_looked_at_again(proc, table):
    proc.process(60, parent=50, started=1001, ticks=1, env={"NAME": "raylet"})
    assert scan(table, 11) == {}
    proc.process(60, parent=50, started=1001, ticks=4, env=STAMP_A)
    assert scan(table, 12) == {}, "what it used before we knew whose it is belongs to nobody"
    proc.process(60, parent=50, started=1001, ticks=9)

    assert scan(table, 13) == {A: 5}


def test_settled_processes_of_nobody_are_looked_at_in_turn_only(proc):
    for pid in range(100, 400):
        proc.process(pid, env={})
    table = ProcessTable(proc=str(proc.root))
    for second in range(10, 16):
        table.scan([], second * SECOND_NS)
    looked: list[int] = []
    table._look = looked.append  # type: ignore[method-assign,func-returns-value]

    table.scan([], 16 * SECOND_NS)

    assert len(looked) == 16


def test_every_process_gets_its_turn(proc):
    for pid in range(100, 140):
        proc.process(pid, env={})
    table = ProcessTable(proc=str(proc.root))
    for second in range(10, 15):
        table.scan([], second * SECOND_NS)
    proc.process(139, env=STAMP_A)  # it changed without a new start time: exec keeps it
    for second in range(15, 19):
        table.scan([], second * SECOND_NS)

    assert table.owner_of(139) == (A, SECOND_NS)


def test_the_wrappers_of_claims_own_their_processes_whatever_the_environment_says(proc, table):
    proc.process(60, parent=50, started=1001, ticks=2)
    proc.process(61, parent=60, started=1001, ticks=5)

    assert scan(table, 11, [(60, 1001, A)]) == {A: 7}


def test_a_claim_with_another_start_time_owns_nothing(proc, table):
    proc.process(60, parent=50, started=1001, ticks=2)

    assert scan(table, 11, [(60, 999, A)]) == {}


def test_the_next_reader_goes_on_counting(proc, table):
    proc.process(60, parent=50, started=1001, ticks=7, env=STAMP_A)
    scan(table, 11)
    heir = ProcessTable(proc=str(proc.root))
    heir.load(table.to_json(), 1100)
    proc.process(60, parent=50, started=1001, ticks=27)

    assert scan(heir, 12) == {A: 20}


def test_a_stamped_environment_says_what_was_allocated(proc, table):
    proc.process(60, parent=50, started=1001, env=STAMP_A)
    scan(table, 11)

    assert table.allocations[A].cpus == 1_500_000
    assert table.allocations[A].gpus == 500_000


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2", 2_000_000), ("0.5", 500_000), (None, 0), ("", 0), ("-1", 0), ("nan", 0), ("inf", 0), ("1e9", 0), ("two", 0)],
)
def test_amounts(text, amount):
    assert millionths(text) == amount


def test_busy_time_leaves_out_idle_waiting_and_stolen_time():
    assert busy_ticks(b"cpu  100 20 30 4000 500 6 7 80 0 0\ncpu0 1 2 3\n") == 163
    with pytest.raises(ValueError, match="not /proc/stat"):
        busy_ticks(b"intr 1 2 3")
