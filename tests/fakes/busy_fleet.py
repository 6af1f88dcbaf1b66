"""A fleet in the middle of its work behind the real application: jobs that ended, run and wait, in five zones.

Everything but the clusters, the grid and the clock is the real thing; the curves and watts are made up.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from carbon_sched.domain.time import to_epoch
from carbon_sched_runtime import wire
from carbon_sched_runtime.window_file import WindowRecord, format_window, windows_name
from tests.fakes.served import Served
from tests.fakes.world import BOOT, MACHINE, READER, a_cluster

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from carbon_sched.domain.intensity import Outlook, Reading
    from carbon_sched.domain.job import Attempt, Job

ZONES = {"FR": (45, 12), "SE-SE3": (28, 5), "DE": (340, 130), "PL": (610, 70), "US-CAL-CISO": (240, 110)}
"""Mean g/kWh, and how far the hour of the day moves it."""
CLUSTERS = (
    ("stockholm", "SE-SE3", 1.1),
    ("lyon", "FR", 1.18),
    ("frankfurt", "DE", 1.32),
    ("krakow", "PL", 1.45),
    ("berkeley", "US-CAL-CISO", 1.2),
)
WORK = (
    ("atlas-7b", "pretraining", ""),
    ("atlas-7b", "finetuning", "sft"),
    ("atlas-7b", "evaluation", ""),
    ("atlas-7b", "inference-batch", ""),
    ("birch-1b", "pretraining", ""),
    ("birch-1b", "inference-batch", ""),
)
TEAMS = (("nlp", "assistant"), ("vision", "maps"), ("speech", "captions"))
ALLOWED = (
    ["frankfurt", "berkeley"],
    ["lyon", "krakow"],
    ["stockholm", "frankfurt"],
    ["berkeley", "krakow"],
    ["krakow"],
)
POLICY = """\
apiVersion: carbon-sched/v1
name: everybody
team: '*'
extends: balanced
budgets:
- {name: fleet-month, of: {}, every: month, co2e_kg: 9, over: warn}
- {name: nlp-quarter, of: {team: nlp}, every: quarter, co2e_kg: 20, over: hold}
- {name: vision-energy, of: {team: vision}, every: month, energy_kwh: 12, over: approve}
"""
LOG = "epoch {n}: loss {loss:.3f}, 41 200 tokens/s\n"


def day_curve(mean: float, swing: float, phase: float) -> list[tuple[float, float]]:
    """From two days before to eight after, by the hour: clean about noon, dirty in the evening."""
    return [
        (
            3600.0 * hour,
            max(5.0, mean - swing * math.sin((hour + 6 + phase) / 12 * math.pi) + swing / 5 * math.sin(1.7 * hour)),
        )
        for hour in range(-48, 192)
    ]


def banded(outlook: Outlook, now: datetime) -> Outlook:
    """With a band that widens into the future."""
    return replace(outlook, readings=tuple(_banded(reading, now) for reading in outlook.readings))


def _banded(reading: Reading, now: datetime) -> Reading:
    if reading.start <= now:
        return reading
    half = min(0.35, 0.06 + (reading.start - now).total_seconds() / 86_400 * 0.12)
    mg = reading.intensity_mg_per_kwh
    return replace(reading, low_mg_per_kwh=round(mg * (1 - half)), high_mg_per_kwh=round(mg * (1 + half)))


class BusyFleet(Served):
    """Five clusters in five zones with a past of `ended` jobs, and some that run and wait."""

    def __init__(self, folder: Path, ended: int = 30) -> None:
        grid = {zone: day_curve(mean, swing, number) for number, (zone, (mean, swing)) in enumerate(ZONES.items())}
        clusters = [a_cluster(name, zone, pue, home=name == "frankfurt") for name, zone, pue in CLUSTERS]
        super().__init__(folder, clusters, grid)
        plain = self.world.grid.outlooks
        self.world.grid.outlooks = lambda zones, now, until: {  # type: ignore[method-assign]
            zone: banded(outlook, now) for zone, outlook in plain(zones, now, until).items()
        }
        self.seq = 0
        try:
            self.fill(ended)
        except BaseException:
            self.close()
            raise

    def fill(self, ended: int) -> None:
        """A past, a present and a future."""
        self.world.policies.apply(POLICY.replace("9, over", "6, over"), by="ada", reason="budgets of the year")
        self.world.policies.apply(POLICY, by="ada", reason="more room for pre-training")
        for number in range(ended):
            self.end(number)
        self.running = [self.start(number) for number in range(5)]
        self.waiting = [self.wait(number) for number in range(8)]
        self.world.settle()

    def submit(self, name: str, number: int, **request) -> Job:
        team, project = TEAMS[number % len(TEAMS)]
        return self.world.submit(name=name, team=team, project=project, resources={"entrypoint_num_cpus": 2}, **request)

    def end(self, number: int) -> Job:
        """A job from its submission to its receipt."""
        model, phase, stage = WORK[number % len(WORK)]
        job = self.submit(
            f"{model}-{stage or phase}-{number}", number, phase=phase, stage=stage, model=model, duration_s=1800,
            power_w=1400.0, clusters=ALLOWED[number % len(ALLOWED)], metadata={"git.sha": f"{number:07x}"},
        )  # fmt: skip
        attempt = self.started(job)
        start = self.world.clock.now()
        for step in range(4):
            self.work(attempt, 240.0 + 30 * (number % 5), 500 + 150 * ((number + step) % 4), step)
        self.count(attempt, start, self.world.clock.now(), requests=1000.0 + 40 * number)
        code = int(number % 11 == 10)
        for event in ({"event": "ended", "exit_code": code}, {"event": "closed", "exit_code": code, "segments": 4}):
            self.world.record(attempt, event)
        self.world.clusters[attempt.cluster].end(attempt.attempt_id, "FAILED" if code else "SUCCEEDED", code)
        self.world.settle()
        return job

    def start(self, number: int) -> Job:
        """A job that runs, with its first minutes metered."""
        job = self.submit(
            f"atlas-7b-eval-{number}", number, phase="evaluation", model="atlas-7b", duration_s=7200, power_w=1500.0,
            clusters=ALLOWED[number % len(ALLOWED)],
        )  # fmt: skip
        attempt = self.started(job)
        self.work(attempt, 240.0, 620 + 40 * number, 0)
        self.world.settle()
        return job

    def wait(self, number: int) -> Job:
        """A job that may wait for hours."""
        return self.submit(
            f"birch-1b-sweep-{number}", number, phase="finetuning", stage="sft", model="birch-1b", power_w=2200.0,
            duration_s=3600.0 * (1 + number % 3), max_delay_s=3600.0 * (8 + 2 * number),
            clusters=["frankfurt", "berkeley"],
        )  # fmt: skip

    def started(self, job: Job) -> Attempt:
        """The job's attempt, seen running by its cluster and its wrapper."""
        self.world.settle()
        attempt = self.world.attempts(job)[-1]
        self.world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
        cluster = self.world.clusters[attempt.cluster]
        cluster.run(attempt.attempt_id)
        cluster.used = {"CPU": 2.0}
        self.world.settle()
        return attempt

    def work(self, attempt: Attempt, seconds: float, watts: float, step: int) -> None:
        """Time passes in which a GPU and a CPU are metered and a line is written."""
        start = self.world.clock.now()
        self.world.clock.pass_s(seconds)
        energy = {"gpu:GPU-0": round(seconds * watts * 1e6), "cpu:package-0": round(seconds * watts * 0.22e6)}
        self.meter(attempt, start, energy)
        log = f"job-driver-{attempt.attempt_id}.log"
        files = self.world.clusters[attempt.cluster].files
        files[log] = files.get(log, b"") + LOG.format(n=step, loss=2.1 / (step + 1)).encode()

    def meter(self, attempt: Attempt, start: datetime, energy_uj: dict[str, int]) -> None:
        """One segment of the attempt's machine, all of it the attempt's own."""
        t0, t1 = (round(to_epoch(at) * 1e6) for at in (start, self.world.clock.now()))
        devices = {name: wire.Device(name, name[:3], name, "package") for name in energy_uj}
        rows = tuple(
            wire.Row(name, 0, wire.COUNTER, attempt.attempt_id, t0, t1, uj, "alone", 50_000)
            for name, uj in energy_uj.items()
        )
        spans = tuple(
            wire.Span(name, 0, wire.COUNTER, t0, t1, 0, uj, round(0.97 * uj) if name.startswith("gpu") else None)
            for name, uj in energy_uj.items()
        )
        identity = (MACHINE, BOOT, READER, self.seq, t0, t1, 0, (t1 - t0) * 1000, 0)
        self.seq += 1
        segment = wire.Segment(*identity, devices, spans, rows)
        self.world.clusters[attempt.cluster].files[str(segment.name)] = wire.format_segment(segment)

    def count(self, attempt: Attempt, start: datetime, end: datetime, **units: float) -> None:
        """What the job's own code says that it did in a window."""
        t0, t1 = (round(to_epoch(at) * 1e6) for at in (start, end))
        amounts = tuple((name, round(value * 1e6)) for name, value in units.items())
        record = WindowRecord(
            f"{self.seq:08x}", attempt.attempt_id, "serving", t0, t1, t0, t1, MACHINE, BOOT, 7, None, None, None, None,
            None, None, units=amounts,
        )  # fmt: skip
        self.world.clusters[attempt.cluster].files[windows_name(attempt.attempt_id)] = format_window(record)
