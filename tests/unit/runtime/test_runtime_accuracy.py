"""The reader against the C stub of NVML, a counter of 100 ms steps read once a second: how far off a job's joules are.

The bounds are those of the issue "Energy per Ray job that adds up to the hardware counters".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carbon_sched_runtime.machine import Claim, Machine
from carbon_sched_runtime.reader import Reader
from carbon_sched_runtime.wire import parse_segment
from tests.fakes.metering import FakeProc
from tests.fakes.nvml import START, StubAtAnHour, loaded_nvml, nvml_library, stubbed_nvml

if TYPE_CHECKING:
    import random

__all__ = ["loaded_nvml", "nvml_library", "stubbed_nvml"]

A, B = "cs-aaaaaaaaaa-a1", "cs-bbbbbbbbbb-a1"
PIDS = {A: 100, B: 200}
REST_W = 70
SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=6)


class StubbedMachine(StubAtAnHour):
    """As `Sources` to a reader: one GPU of the stub, whose processes the scripted driver lists."""

    def __init__(self, stub, folder: Path, jitter: random.Random, *flags: str) -> None:
        super().__init__(stub, *flags)
        self.watts = [(START, REST_W)]
        self.jitter = jitter
        self.proc = str(folder / "proc")
        self.threads, self.busy_ticks, self.baselines_mw = 4, 0, {}
        self.tree = FakeProc(folder / "proc")
        self.tree.process(1, parent=0, env={})
        self.machine = Machine(str(folder / "machine"))
        self.at_rest = flags
        self.reader = Reader(self.machine, self)

    def gpu_processes(self, device: str):
        return self.nvml.processes(device)

    def describe(self) -> str:
        return "the stub"

    def close(self) -> None:
        pass

    def loads(self, watts: float, clients: str) -> None:
        """From now on: what the GPU draws, and who is on it with how much SM utilisation."""
        self.watts.append((self.now, watts))
        self.flags = (*self.at_rest, f"at {START} 0 pids {clients}")

    def come(self, attempt: str) -> None:
        pid, ticks = PIDS[attempt], int(self.now * 100)
        self.tree.process(pid, started=ticks, env={"CARBON_SCHED_ATTEMPT": attempt})
        self.machine.write_claim(Claim(attempt, pid, ticks, os.geteuid(), int(self.now * 1e9), None, 0, 1_000_000))

    def leave(self, attempt: str) -> None:
        """As a wrapper does: say when it went, and wait for the row."""
        (claim,) = [one for one in self.machine.claims() if one.attempt == attempt]
        self.machine.write_claim(Claim(**{**claim.__dict__, "end_ns": int(self.now * 1e9)}))
        self.reader.tick(seal=True)
        self.machine.remove_claim(attempt)
        self.tree.end(PIDS[attempt])

    def run(self, seconds: float) -> None:
        """Let time pass; the reader looks once a second, +/- 10 % as it does."""
        end = self.now + seconds
        while (step := 0.9 + 0.2 * self.jitter.random()) < end - self.now:
            self.now += step
            self.reader.tick()
        self.now = end

    def joules(self, owner: str) -> float:
        segments = [parse_segment(Path(path).read_bytes(), name) for name, path in self.machine.published(0)]
        return sum(row.energy_uj for segment in segments for row in segment.rows if row.owner == owner) / 1e6


@pytest.mark.parametrize(("seconds", "percent"), [(10, 1.0), (60, 0.2)])
@SETTINGS
@given(st.randoms(use_true_random=False), st.floats(0, 0.1))
def test_a_job_alone_on_a_gpu_is_right_to_a_step_of_the_counter(
    loaded_nvml, tmp_path_factory, seconds, percent, rng, phase
):
    """At steady power, from its claim to its last row, at any phase of the counter."""
    place = StubbedMachine(loaded_nvml, tmp_path_factory.mktemp("machine"), rng)
    place.loads(300, "-")
    place.run(3 + phase)
    place.reader.tick()
    place.come(A)
    place.loads(300, f"{PIDS[A]}:80")
    place.run(seconds)
    place.leave(A)

    assert place.joules(A) == pytest.approx(300 * seconds, rel=percent / 100)


@SETTINGS
@given(
    st.randoms(use_true_random=False),
    st.lists(st.tuples(st.floats(0.02, 5), st.floats(REST_W, 650)), min_size=1, max_size=20),
)
def test_a_load_that_changes_is_right_to_a_step_of_the_counter(loaded_nvml, tmp_path_factory, rng, loads):
    place = StubbedMachine(loaded_nvml, tmp_path_factory.mktemp("machine"), rng)
    place.run(2)
    place.reader.tick()
    begun = place.now
    place.come(A)
    for lasting, watts in loads:
        place.loads(round(watts, 3), f"{PIDS[A]}:80")
        place.run(lasting)
    place.leave(A)

    step_j = 0.1 * 650
    assert abs(place.joules(A) - place.true_j(begun, place.now)) <= step_j + 0.002


@SETTINGS
@given(st.randoms(use_true_random=False), st.integers(5, 50), st.integers(5, 50), st.floats(0.9, 1.1))
def test_two_jobs_on_one_gpu_are_split_within_10_percent_of_their_solo_runs(
    loaded_nvml, tmp_path_factory, rng, use_a, use_b, dearer
):
    """What each uses above the GPU's rest, against a run alone; a percent of SM costs one job up to 1/5 more than the
    other. The rest itself is paid once, by both together, and not once by each as in two solo runs."""

    def run(jobs: dict[str, int], watts_per_percent: dict[str, float]) -> dict[str, float]:
        place = StubbedMachine(loaded_nvml, tmp_path_factory.mktemp("machine"), rng)
        place.run(3)
        place.reader.tick()
        for attempt in jobs:
            place.come(attempt)
        drawn = REST_W + sum(use * watts_per_percent[attempt] for attempt, use in jobs.items())
        place.loads(drawn, ",".join(f"{PIDS[attempt]}:{use}" for attempt, use in jobs.items()))
        place.run(10)
        place.reader.tick()
        for attempt in jobs:
            place.leave(attempt)
        return {attempt: place.joules(attempt) - REST_W * 10 / len(jobs) for attempt in jobs}

    uses, costs = {A: use_a, B: use_b}, {A: 5.0, B: 5.0 * dearer}
    alone = {attempt: run({attempt: use}, costs)[attempt] for attempt, use in uses.items()}
    together = run(uses, costs)
    step_j = 0.1 * (REST_W + sum(use * costs[attempt] for attempt, use in uses.items()))
    for attempt in (A, B):
        assert abs(together[attempt] - alone[attempt]) <= 0.10 * alone[attempt] + step_j
