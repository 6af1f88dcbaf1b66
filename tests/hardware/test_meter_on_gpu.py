"""The meter on a real NVIDIA GPU. Opt-in:

    HARDWARE_TESTS=1 pytest tests/hardware -s
    HARDWARE_TESTS=figures.json pytest tests/hardware      also writes what was measured there

Use a machine that does nothing else. Bounds are those that ENERGY-ATTRIBUTION.md and the goals of metering state; every
figure is printed beside the GPU's and the driver's name, so that it can be committed.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from carbon_sched_runtime.nvml import QUANTUM_NS, Nvml
from carbon_sched_runtime.seat import PERIOD_S
from carbon_sched_runtime.sources import Sources
from tests.fakes.wrapped import RUNTIME, A, B, Workplace

OPT_IN = os.environ.get("HARDWARE_TESTS", "")
STUB = bool(os.environ.get("NVML_STUB_SCRIPT"))
LOAD = Path(__file__).with_name("gpu_load.py")
PERIODS_S = (0.02, 0.1, 0.5, 1.0, 5.0)

pytestmark = [
    pytest.mark.skipif(not OPT_IN, reason="needs a real NVIDIA GPU: set HARDWARE_TESTS=1"),
    pytest.mark.timeout(600),
]


class Gpu:
    """The first GPU, read as our sources read it, and the figures found on it."""

    def __init__(self, nvml: Nvml) -> None:
        self.nvml, self.id = nvml, nvml.order[0]
        self.device = nvml.devices[self.id]
        driver = nvml._nvml.nvmlSystemGetDriverVersion()
        self.figures: dict[str, object] = {"gpu": self.device.name, "driver": driver}

    def reading(self):
        return self.nvml.read()[self.id]

    def tell(self, name: str, value: object) -> None:
        self.figures[name] = value
        print(f"\n{self.figures['gpu']}, driver {self.figures['driver']}: {name} {value}")

    def watch(self, seconds: float, every_s: float = 0.02) -> tuple[float, float]:
        """Joules by the counter and by instant power (trapezoid) over about so long."""
        first, joules, last_at = self.reading(), 0.0, time.monotonic()
        last = first
        end = last_at + seconds
        while last_at < end:
            time.sleep(every_s)
            now, at = self.reading(), time.monotonic()
            joules += (last.power_mw + now.power_mw) / 2000 * (at - last_at)
            last, last_at = now, at
        return (last.counter_uj - first.counter_uj) / 1e6, joules


@pytest.fixture(scope="module")
def gpu():
    nvml = Nvml()
    if not nvml.devices:
        pytest.skip(f"no GPU can be read: {nvml.absent}")
    found = Gpu(nvml)
    if not found.device.counts:
        pytest.skip(f"{found.device.name} has no energy counter")
    yield found
    if OPT_IN.endswith(".json"):
        Path(OPT_IN).write_text(json.dumps(found.figures, indent=2) + "\n", encoding="utf-8")
    nvml.close()


@pytest.fixture
def load():
    """Start loads; whatever still runs at the end is stopped."""
    if not (STUB or any(importlib.util.find_spec(name) for name in ("torch", "cupy"))):
        pytest.skip("a load needs torch or cupy")
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(LOAD), *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait()
        process.stdout.close()


@pytest.fixture
def place(tmp_path):
    workplace = Workplace(tmp_path)
    yield workplace
    workplace.close()


@pytest.fixture
def metered(place):
    """The same with a machine meter that was there before the job, as it is meant to be."""
    environment = {
        **os.environ, "PYTHONPATH": str(RUNTIME), "CARBON_SCHED_MACHINE_DIR": str(place.folder / "machine"),
        "CARBON_SCHED_POWERCAP": str(place.folder / "powercap"),
    }  # fmt: skip
    command = [sys.executable, "-m", "carbon_sched_runtime.meter"]
    meter = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    place.processes.append(meter)
    assert b"metering" in meter.stderr.readline()
    return place


def burning(*arguments: object) -> str:
    """The load as the entrypoint of a job."""
    return "exec " + shlex.join([sys.executable, str(LOAD), *map(str, arguments)])


# What the driver gives ---------------------------------------------------------------------------------------------


def test_reading_everything_takes_little_of_a_period(gpu):
    sources = Sources()

    def milliseconds(call) -> list[float]:
        taken = []
        for _ in range(200):
            begin = time.perf_counter()
            call()
            taken.append(1000 * (time.perf_counter() - begin))
        return taken

    calls = {
        "one GPU: counter and power": gpu.reading,
        "one GPU: processes": lambda: sources.gpu_processes(gpu.id),
        "the whole machine": sources.sample,
    }
    for name, call in calls.items():
        taken = sorted(milliseconds(call))
        gpu.tell(f"call latency, {name}, ms (median, p99)", [round(taken[100], 3), round(taken[197], 3)])
    assert statistics.median(milliseconds(sources.sample)) < 1000 * PERIOD_S / 10
    sources.close()


def test_the_counter_moves_at_least_every_quantum_that_the_error_bars_assume(gpu, load):
    load("--seconds", 8)
    moves, value, end = [], gpu.reading().counter_uj, time.monotonic() + 5
    while time.monotonic() < end:
        now = gpu.reading().counter_uj
        if now != value:
            moves.append(time.monotonic())
            value = now
    periods = sorted(1000 * (b - a) for a, b in itertools.pairwise(moves))
    gpu.tell("counter period, ms (median, longest)", [round(statistics.median(periods), 1), round(periods[-1], 1)])
    assert statistics.median(periods) <= 1.2 * QUANTUM_NS / 1e6


def test_counter_and_power_agree_on_a_steady_load(gpu, load):
    load("--seconds", 25)
    time.sleep(2)
    counted, integrated = gpu.watch(20)
    gpu.tell("steady load: counter / integrated power", round(counted / integrated, 4))
    assert counted / integrated == pytest.approx(1, abs=0.1)


def test_square_waves_show_how_much_the_sensor_misses(gpu, load):
    """A sensor that looks a part of the time agrees with itself, but not with the mean of full and rest."""
    idle, _ = gpu.watch(5)
    process = load("--seconds", 12)
    time.sleep(2)
    full, _ = gpu.watch(5)
    process.wait()
    for period in PERIODS_S:
        process = load("--seconds", 14, "--period", period)
        time.sleep(2)
        counted, integrated = gpu.watch(10, every_s=0.007)
        process.wait()
        expected = idle + full  # 5 s of each
        gpu.tell(
            f"square wave of {period} s: counter / integrated, counter / mean of full and rest",
            [round(counted / integrated, 3), round(counted / expected, 3)],
        )
        assert 1.8 * idle < counted < 2.2 * full
    assert counted / integrated == pytest.approx(1, abs=0.1)  # of the slowest


# What we make of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "bound"), [(10, 0.01), (60, 0.002)])
def test_our_joules_are_the_counters(gpu, metered, load, seconds, bound):
    """The job's, against the counter read around it: with a meter that is there before, nothing is left out."""
    place = metered
    before = gpu.reading().counter_uj
    process = place.start(burning("--seconds", seconds), A, CARBON_SCHED_GPUS="1")
    process.communicate(timeout=seconds + 120)
    after = gpu.reading().counter_uj

    rows = [r for segment in place.segments() for r in segment.rows if (r.device, r.owner) == (gpu.id, A)]
    ours = sum(row.energy_uj for row in rows)
    spans = [s for segment in place.segments() for s in segment.spans if s.device == gpu.id and s.integral_uj]
    ratios = [(span.last_uj - span.first_uj) / span.integral_uj for span in spans]
    gpu.tell(f"{seconds} s: our joules / counter around the job", round(ours / (after - before), 5))
    gpu.tell(f"{seconds} s: counter / power per span", [round(ratio, 3) for ratio in ratios])
    assert {row.source for row in rows} == {"counter"}
    assert ours == pytest.approx(after - before, rel=bound)


def test_two_jobs_on_one_gpu_are_split_as_they_would_be_alone(gpu, place, load):
    """Shares against those of solo runs, the goal being 10 %; where pids are not the driver's, by allocation."""
    if not Sources().joins_pids:
        pytest.skip("in another pid namespace than the driver: a GPU's processes cannot be told apart")
    loads = {A: ("--seconds", 20), B: ("--seconds", 20, "--period", 0.2, "--duty", 0.4)}
    alone = {}
    for attempt, arguments in loads.items():
        process = load(*arguments)
        alone[attempt], _ = gpu.watch(15)
        process.wait()
    idle, _ = gpu.watch(15)
    for attempt, arguments in loads.items():
        place.start(burning(*arguments), attempt, CARBON_SCHED_GPUS="0.5")
    assert [process.wait(120) for process in place.processes] == [0, 0]

    both = {attempt: place.total_uj(gpu.id, attempt) for attempt in loads}
    active = {attempt: joules - idle / 2 for attempt, joules in alone.items()}
    expected = active[A] / sum(active.values())
    share = both[A] / sum(both.values())
    rules = {row.rule for segment in place.segments() for row in segment.rows if row.device == gpu.id}
    gpu.tell("two jobs: share of the first, by solo runs, by us, rules", [expected, share, sorted(rules)])
    assert all(both.values())
    assert share == pytest.approx(expected, abs=0.1)


def test_a_metered_job_is_not_slower(gpu, place, load):
    """The goal is 0.1 %; the bound here is what the noise of five runs lets one say."""
    steps, plain, metered = 4000, [], []
    for _ in range(5):
        process = load("--steps", steps)
        plain.append(float(process.stdout.read().split()[-1]))
        _, out, _ = place.run(burning("--steps", steps), f"{A[:-1]}{len(metered) + 2}")
        metered.append(float(out.split()[-1]))
    slower = statistics.median(metered) / statistics.median(plain) - 1
    noise = (max(plain) - min(plain)) / min(plain)
    gpu.tell("slowdown by metering, spread of plain runs", [round(slower, 5), round(noise, 5)])
    assert slower < max(0.01, noise)
