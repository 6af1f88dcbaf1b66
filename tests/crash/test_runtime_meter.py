"""kill -9 of the machine meter while it writes, again and again: the sum of all rows stays the counter difference."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from carbon_sched_runtime.machine import Claim, Machine, boot_clock_ns
from carbon_sched_runtime.wire import parse_segment
from tests.fakes.nvml import StubbedNvml, nvml_library, stubbed_nvml, uuid
from tests.fakes.wrapped import RUNTIME

ATTEMPT = "cs-aaaaaaaaaa-a1"

__all__ = ["nvml_library", "stubbed_nvml"]

# Fast enough that most kills hit a write: a row every 5 ms, a sealed segment every 20 ms.
METER = """
from carbon_sched_runtime import meter, reader
reader.SEAL_AFTER_NS = 20_000_000
machine_meter = meter.MachineMeter(folder="journal", period_s=0.005)
import signal
signal.signal(signal.SIGTERM, lambda *_: machine_meter.stop())
machine_meter.run()
"""


class Place:
    """A machine with one scripted GPU and a meter that is started and killed."""

    def __init__(self, folder: Path, stub: StubbedNvml) -> None:
        self.folder, self.stub = folder, stub
        self.metering_since: list[float] = []
        (folder / "journal").mkdir()
        stub.write("count 1", "quantum 0.001", f"origin {time.time() - 1000}", "at 0 0 watts 300")

    def claim_the_gpu(self) -> None:
        """This process is an attempt's, and was allocated the GPU."""
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        claim = Claim(ATTEMPT, os.getpid(), ticks, os.geteuid(), boot_clock_ns(), gpus=1_000_000)
        Machine(str(self.folder / "machine")).write_claim(claim)

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ, **self.stub.environment, "PYTHONPATH": str(RUNTIME),
            "CARBON_SCHED_MACHINE_DIR": str(self.folder / "machine"),
            "CARBON_SCHED_POWERCAP": str(self.folder / "none"),
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-c", METER], env=environment, cwd=self.folder, stderr=subprocess.PIPE
        )
        process.stderr.readline()  # it says when it meters
        self.metering_since.append(time.monotonic())
        return process

    def segments(self):
        published = (self.folder / "machine" / "meters" / str(os.geteuid()) / "segments").glob("*.seg")
        kept = (self.folder / "journal").glob("*.seg")
        unique = {path.name: path.read_bytes() for path in published} | {p.name: p.read_bytes() for p in kept}
        return [parse_segment(data, name) for name, data in unique.items()]


@pytest.mark.parametrize(
    "kills", [pytest.param(8, id="8"), pytest.param(200, id="200", marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_a_meter_killed_while_writing_loses_no_joule(tmp_path, stubbed_nvml, kills):
    place = Place(tmp_path, stubbed_nvml)
    place.claim_the_gpu()
    seeded = random.Random(kills)
    for _ in range(kills):
        process = place.start()
        time.sleep(seeded.random() * 0.12)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = place.start()
    last.send_signal(signal.SIGTERM)
    last.communicate(timeout=30)

    segments = place.segments()
    readings = stubbed_nvml.readings_mj(0)
    rows = [row for segment in segments for row in segment.rows if row.device == uuid(0)]
    assert last.returncode == 0
    assert sum(row.energy_uj for row in rows) == (readings[-1] - readings[1]) * 1000
    assert len({segment.reader for segment in segments}) > kills // 8, "some were killed after they had published"
    assert {row.owner for row in rows} == {ATTEMPT}
    # One interval per kill is marked: from the last checkpoint of the killed to the first look of the next, which
    # is no longer than from one start to the next.
    uncertain = [row for row in rows if "takeover" in row.flags]
    lasting_s = sorted((row.end_us - row.start_us) / 1e6 for row in uncertain)
    assert {("uncertain-owner" in row.flags, row.error_ppm) for row in uncertain} == {(True, 1_000_000)}
    assert 0 < len(uncertain) <= kills + 1
    assert lasting_s[-1] <= max(b - a for a, b in pairwise(place.metering_since)) + 0.5
    assert lasting_s[len(lasting_s) // 2] <= 2
