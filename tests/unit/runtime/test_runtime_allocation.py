"""Which GPUs the raylet gave to whom: read off the dashboard's answer, told to the reader, and held by nobody else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from carbon_sched_runtime import allocation
from carbon_sched_runtime.allocation import AllocationWatch, Raylet, own_raylet, slots_by_pid
from carbon_sched_runtime.counters import Reading
from carbon_sched_runtime.machine import HELD_FOR_S, Claim, Held, Machine
from carbon_sched_runtime.nvml import GpuProcesses
from carbon_sched_runtime.reader import Reader
from carbon_sched_runtime.wire import parse_segment
from tests.fakes.metering import SECOND_NS, UTC_US, FakeProc, FakeSources, gpu

A, B = "cs-aaaaaaaaaa-a1", "cs-bbbbbbbbbb-a1"
NODE = "b5d00a4491da6a11388ad4b73c3a975f0caa0fdb608a5ef1085006ae"
GROUP = "Cdcc1F63C22794F76B0361F72Caf01000000"


def held(**slots: float) -> dict[str, object]:
    return {"resourceSlots": [{"slot": slot[1:], "allocation": part} for slot, part in slots.items()]}


def summary(*workers: tuple[int, dict[str, object]], node: str = NODE) -> dict[str, object]:
    """As Ray 2.60 answers, shortened to what is read."""
    stats = [{"pid": pid, "jobId": "01000000", "usedResources": used} for pid, used in workers]
    return {
        "data": {"summary": [{"raylet": {"nodeId": "other"}}, {"raylet": {"nodeId": node, "coreWorkersStats": stats}}]}
    }


def test_slots_are_read_off_the_dashboards_answer():
    answer = summary(
        (11, {"GPU": held(s0=0.5), "CPU": held(s0=1.0)}),
        (
            12,
            {
                f"GPUGroup{GROUP}": held(s2=1.0),
                f"GPUGroup0{GROUP}": held(s2=1.0),
                f"bundleGroup{GROUP}": held(s0=0.001),
            },
        ),
        (13, {"CPU": held(s0=1.0)}),
        (14, {}),
    )

    assert slots_by_pid(answer, NODE) == {11: {0: 500_000}, 12: {2: 1_000_000}}
    assert slots_by_pid(answer, "a node that is not there") == {}


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"data": {"summary": [1]}}, summary((1, {"GPU": 3})), summary((1, {"GPU": held(sx=1)})),
     {"data": {"summary": [{"raylet": {"nodeId": NODE, "coreWorkersStats": 7}}]}}],
)  # fmt: skip
def test_another_shape_is_said_to_be_one(answer):
    with pytest.raises(ValueError, match="another shape"):
        slots_by_pid(answer, NODE)


def test_the_raylets_own_command_line_says_where_to_ask(tmp_path, monkeypatch):
    proc = FakeProc(tmp_path)
    for pid, parent in ((1, 0), (77, 1), (78, 77), (79, 78), (80, 1)):
        proc.process(pid, parent=parent, env={"CUDA_VISIBLE_DEVICES": "5,7"} if pid == 77 else {})
        (tmp_path / str(pid) / "cmdline").write_bytes(b"python\0job.py\0")
    worker = "--python_worker_command=python default_worker.py --webui=10.0.0.1:8265 --cluster-id=1"
    (tmp_path / "77" / "cmdline").write_bytes(f"raylet\0{worker}\0--node_id={NODE}\0".encode())
    (tmp_path / "78" / "cmdline").write_bytes(b"python default_worker.py\0--webui=10.0.0.1:8265\0")
    for pid, expected in ((79, Raylet(NODE, "10.0.0.1:8265", "5,7")), (80, None), (81, None)):
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        assert own_raylet(str(tmp_path)) == expected


class Place:
    """Four GPUs, A and B on the machine with two each, and a reader."""

    def __init__(self, folder: Path) -> None:
        self.machine, self.proc = Machine(str(folder / "machine")), FakeProc(folder / "proc")
        self.proc.process(1, parent=0, env={})
        self.sources = FakeSources(
            str(self.proc.root), {d.id: d for d in map(gpu, ("gpu:a", "gpu:b", "gpu:c", "gpu:d"))}
        )
        self.sources.readings = {name: Reading(7_000_000) for name in self.sources.devices}
        self.come(A, 100)
        self.come(B, 200)
        self.reader = Reader(self.machine, self.sources)

    def come(self, attempt: str, pid: int, gpus: float = 2) -> None:
        self.proc.process(pid, started=1, env={"CARBON_SCHED_ATTEMPT": attempt})
        self.machine.write_claim(Claim(attempt, pid, 1, os.geteuid(), SECOND_NS, None, 0, int(gpus * 1e6)))

    def holds(self, attempt: str, slots: dict[int, int], visible: str | None = None) -> None:
        self.machine.write_held(Held(attempt, visible, tuple(slots.items())), NODE)
        now = (UTC_US + self.sources.mono_ns // 1000) / 1e6
        path = f"{self.machine.root}/claims/{attempt}.{NODE[:12]}.held"
        os.utime(path, (now, now))

    def second(self) -> None:
        """Every GPU uses 100 J."""
        grown = dict.fromkeys(("gpu_a", "gpu_b", "gpu_c", "gpu_d"), 100_000_000)
        self.sources.advance(1, **grown)
        self.reader.tick()

    def rows(self) -> dict[tuple[str, str, str], int]:
        self.reader.tick(seal=True)
        segments = [parse_segment(Path(path).read_bytes(), name) for name, path in self.machine.published(0)]
        rows: dict[tuple[str, str, str], int] = {}
        for row in (row for segment in segments for row in segment.rows):
            key = (row.device, row.owner, row.rule + "".join(f" {flag}" for flag in row.flags))
            rows[key] = rows.get(key, 0) + row.energy_uj // 1_000_000
        return rows

    def notes(self) -> list[str]:
        segments = [parse_segment(Path(path).read_bytes(), name) for name, path in self.machine.published(0)]
        return [
            f"{note.kind} {note.device}: {note.text}"
            for segment in segments
            for note in segment.notes
            if note.kind == "squatter"
        ]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_gpus_that_nobody_uses_are_paid_by_whom_the_raylet_gave_them(place):
    place.holds(A, {0: 1_000_000, 1: 500_000})
    place.holds(B, {0: 1_000_000}, visible="3")
    place.second()

    rows = place.rows()
    assert rows["gpu:a", A, "gpu-raylet"] == 100
    assert rows["gpu:b", A, "gpu-raylet"] == 50
    assert rows["gpu:d", B, "gpu-raylet"] == 100, "slot 0 of a raylet that was confined to GPU 3"
    assert {owner for device, owner, _ in rows if device == "gpu:c"} <= {A, B, "idle"}


def test_what_was_last_heard_a_while_ago_is_not_believed(place):
    place.holds(A, {0: 1_000_000})
    place.sources.mono_ns += int((HELD_FOR_S + 1) * SECOND_NS)
    place.second()

    assert {rule.split()[0] for _, _, rule in place.rows()} == {"gpu-allocation"}


def test_who_uses_what_another_holds_pays_and_is_reported_once(place):
    place.sources.mono_ns += 100 * SECOND_NS
    place.holds(A, {0: 1_000_000})
    place.holds(B, {1: 1_000_000})
    place.sources.clients["gpu:a"] = GpuProcesses((100, 200), {100: 50, 200: 50})
    place.sources.clients["gpu:b"] = GpuProcesses((999,))
    for _ in range(3):
        place.second()

    rows = place.rows()
    assert any(owner == B and "squatter" in rule for device, owner, rule in rows if device == "gpu:a")
    assert any(owner == "unattributed" and "squatter" in rule for device, owner, rule in rows if device == "gpu:b")
    assert not any("squatter" in rule for _, owner, rule in rows if owner == A)
    assert sorted(place.notes()) == [
        f"squatter gpu:a: {B} uses what {A} holds", f"squatter gpu:b: unattributed uses what {B} holds",
    ]  # fmt: skip


def test_an_attempt_that_was_given_no_gpu_and_uses_one_is_a_squatter(place):
    place.come("cs-cccccccccc-a1", 300, gpus=0)
    place.sources.mono_ns += 100 * SECOND_NS
    place.sources.clients["gpu:c"] = GpuProcesses((300,))
    place.second()
    place.second()

    assert ("gpu:c", "cs-cccccccccc-a1", "gpu-pids squatter") in place.rows()
    assert "squatter gpu:c: cs-cccccccccc-a1 uses what it does not hold" in place.notes()


def test_energy_of_processes_that_outlive_their_attempt_is_marked(place):
    place.proc.process(101, started=2, env={"CARBON_SCHED_ATTEMPT": A})
    place.sources.clients["gpu:a"] = GpuProcesses((101,))
    place.second()
    place.proc.end(100)
    place.second()
    place.second()
    place.second()

    rows = place.rows()
    assert rows["gpu:a", A, "gpu-pids leftover"] == 200


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"slots": 1}', '{"slots": [[0]]}', '{"slots": [[0, -1]]}', '{"slots": [[0, true]]}',
     '{"slots": [], "visible": 1}', json.dumps({"slots": [[0, 1]] * 300})],
)  # fmt: skip
def test_a_file_that_says_nothing_of_the_kind_is_passed_over(place, content):
    Path(f"{place.machine.root}/claims/{A}.{NODE[:12]}.held").write_text(content, encoding="utf-8")
    Path(f"{place.machine.root}/claims/idle.held").write_text('{"slots": []}', encoding="utf-8")

    assert place.machine.held(0.0) == []


def test_the_watch_tells_what_the_attempts_own_processes_hold(place, monkeypatch):
    monkeypatch.setattr(allocation, "ask", lambda _: summary((100, {"GPU": held(s0=0.5)}), (200, {"GPU": held(s1=1)})))
    table = allocation.ProcessTable
    monkeypatch.setattr(allocation, "ProcessTable", lambda: table(proc=str(place.proc.root), place=None))
    watch = AllocationWatch(place.machine, A, Raylet(NODE, "127.0.0.1:8265", "1,0"))

    watch.look()
    assert place.machine.held(0.0) == [Held(A, "1,0", ((0, 500_000),))]
    watch.stop()
    assert place.machine.held(0.0) == []
