"""What metering costs: CPU and memory of a meter that reads 8 GPUs once a second, on the scripted NVML.

    python tests/bench/bench_meter.py [--seconds 30] [--gpus 8]

Prints one line per meter: CPU in percent of one core while it runs (start-up apart), resident memory beyond an empty
interpreter, journal bytes of a day at the size of the largest segment, and its total against what the scripted GPUs
drew while the job ran. Other meters are added to `CONTENDERS`, each in an interpreter of its own, so that all run on
the same load one after another.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scheduler")]

from carbon_sched_runtime.wire import parse_segment  # noqa: E402
from tests.fakes.nvml import StubbedNvml, build_stub  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SETTLE_S = 3.0
SEGMENTS_A_DAY = 2880  # one every 30 s
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
WATTS = 310


@dataclass(frozen=True)
class Contender:
    """A meter: how to start it for so many seconds, and how to read its total joules afterwards (None: it has none)."""

    name: str
    command: Callable[[int], list[str]]
    total_j: Callable[[Path], float | None]


def our_total_j(folder: Path) -> float:
    """Joules of all GPU rows in the journal."""
    segments = [parse_segment(path.read_bytes(), path.name) for path in folder.glob("*.seg")]
    return sum(row.energy_uj for s in segments for row in s.rows if row.device.startswith("gpu:")) / 1e6


CONTENDERS = [
    Contender(
        "carbon-sched",
        lambda seconds: [sys.executable, "-m", "carbon_sched_runtime.run", "--", f"exec sleep {seconds}"],
        our_total_j,
    ),
]


@dataclass(frozen=True)
class Cost:
    """CPU seconds and memory of one process at one moment."""

    cpu_s: float
    rss_mb: float


def cost(pid: int) -> Cost:
    """Own time of a process, without its children's, and its resident memory without shared libraries' pages."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    pss_kb = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return Cost((int(fields[11]) + int(fields[12])) * TICK_S, pss_kb / 1024)


def empty_interpreter_mb() -> float:
    """Resident memory of an interpreter that does nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"], stdin=-1, stdout=-1
    )
    with process:
        process.stdout.readline()  # type: ignore[union-attr]
        megabytes = cost(process.pid).rss_mb
        process.stdin.close()  # type: ignore[union-attr]
    return megabytes


def measure(contender: Contender, seconds: int, gpus: int, stub: StubbedNvml, folder: Path) -> str:
    """Run one contender and say what it cost."""
    journal = folder / contender.name
    journal.mkdir()
    environment = {
        **os.environ, **stub.environment, "PYTHONPATH": str(ROOT / "scheduler"),
        "CARBON_SCHED_JOURNAL_DIR": str(journal), "CARBON_SCHED_MACHINE_DIR": str(folder / f"{contender.name}.machine"),
        "CARBON_SCHED_ATTEMPT": "cs-benchmark0-a1", "CARBON_SCHED_CPUS": "1", "CARBON_SCHED_GPUS": "8",
    }  # fmt: skip
    environment.pop("NVML_STUB_LOG")
    process = subprocess.Popen(contender.command(seconds + int(SETTLE_S) + 1), env=environment, cwd=folder)
    time.sleep(SETTLE_S)
    begin, started = cost(process.pid), time.monotonic()
    time.sleep(seconds)
    end, lasted = cost(process.pid), time.monotonic() - started
    process.wait()
    bytes_a_day = max((path.stat().st_size for path in journal.glob("*.seg")), default=0) * SEGMENTS_A_DAY
    total = contender.total_j(journal)
    percent = 100 * (end.cpu_s - begin.cpu_s) / lasted
    beyond = end.rss_mb - empty_interpreter_mb()
    drawn = WATTS * gpus * (seconds + int(SETTLE_S) + 1)
    shown = "no total" if total is None else f"total {100 * (total / drawn - 1):+.2f} % of the load's {drawn} J"
    return (
        f"{contender.name:14} {percent:8.3f} % of a core  start {begin.cpu_s:5.2f} s CPU  memory {end.rss_mb:5.1f} MB"
        f" ({beyond:+.1f} beyond an empty interpreter)  journal {bytes_a_day / 1e6:5.2f} MB a day  {shown}"
    )


def main() -> None:
    """Run every contender on the same load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--gpus", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stub = StubbedNvml(build_stub(folder), folder / "script", folder / "log")
        stub.write(f"count {arguments.gpus}", f"origin {time.time() - 1000}", f"at 0 * watts {WATTS}")
        print(f"{arguments.gpus} GPUs at 1 Hz, {arguments.seconds} s each, Python {sys.version.split()[0]}")
        for contender in CONTENDERS:
            print(measure(contender, arguments.seconds, arguments.gpus, stub, folder), flush=True)


if __name__ == "__main__":
    main()
