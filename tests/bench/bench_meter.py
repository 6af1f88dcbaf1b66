"""What metering costs, beside Zeus and CodeCarbon: 8 GPUs once a second, on the scripted NVML.

    make bench-meter            (or: python tests/bench/bench_meter.py [--seconds 30] [--gpus 8] [--only NAME ...])

Every meter runs alone on the same load (a square wave, 650 W and 90 W for 3.5 s each, behind a counter of 100 ms
steps), one after another. Zeus and CodeCarbon run in virtual environments of their own under `.venv/contenders`, made
at the first run with the versions below. One line per meter:

    CPU      in percent of one core while it meters, of its processes together; start-up apart
    start    CPU of its start-up, and the time from its start to its first reading, of which it knows nothing
    memory   (proportional set size) beyond an empty interpreter of the same Python
    journal  bytes of a day, at the rate of this run
    error    its joules against the load's, over the time that it says it metered

Bounds, from the issue "Energy per Ray job that adds up to the hardware counters": 0.5 % of a core, 20 MB a day.
"""

from __future__ import annotations

import argparse
import json
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
from tests.bench.processor_time import children  # noqa: E402
from tests.fakes.nvml import StubbedNvml, build_stub  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SETTLE_S, SETTLE_LIMIT_S = 8, 30  # the slowest of them imports for half of the first, on a machine with nothing else
QUIET_CPU_S = 0.05  # in a second: start-up is over
SPARE_S = 4  # each runs on a little, so that it is there at the last look
CPU_GOAL_PERCENT, JOURNAL_GOAL_MB = 0.5, 20
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
HIGH_W, LOW_W, HALF_PERIOD_S = 650, 90, 3.5
ATTEMPT = "cs-benchmark0-a1"
DRIVER = "nvidia-ml-py==13.615.71"
SCRIPTS = Path(__file__).parent / "contenders"


@dataclass(frozen=True)
class Metered:
    """What a meter says: joules of all GPUs, and from when to when (Unix seconds)."""

    start: float
    end: float
    joules: float


@dataclass(frozen=True)
class Contender:
    """A meter: its packages (none: this environment), how to run it for so many seconds, how to read what it says."""

    name: str
    packages: tuple[str, ...]
    command: Callable[[str, int, int], list[str]]
    result: Callable[[Path, str], Metered]


def ours(folder: Path, _output: str) -> Metered:
    """From the segments of the journal."""
    segments = [parse_segment(path.read_bytes(), path.name) for path in folder.glob("*.seg")]
    spans = [span for segment in segments for span in segment.spans if span.device.startswith("gpu:")]
    rows = [row for segment in segments for row in segment.rows if row.device.startswith("gpu:")]
    start, end = min(span.start_us for span in spans), max(span.end_us for span in spans)
    return Metered(start / 1e6, end / 1e6, sum(row.energy_uj for row in rows) / 1e6)


def theirs(_folder: Path, output: str) -> Metered:
    """From the last line that a script in `contenders/` prints."""
    return Metered(**json.loads(output.splitlines()[-1]))


CONTENDERS = [
    Contender(
        "carbon-sched job",
        (),
        lambda python, seconds, _: [python, "-m", "carbon_sched_runtime.run", "--", f"exec sleep {seconds}"],
        ours,
    ),
    Contender(
        "carbon-sched meter",
        (),
        lambda python, seconds, _: [
            "timeout", "--foreground", "-s", "TERM", str(seconds),
            python, "-m", "carbon_sched.cli.main", "meter", "--key", "meter.key", "--journal", "carbon-sched meter",
        ],
        ours,
    ),
    Contender(
        "Zeus 0.16.0",
        ("zeus==0.16.0", DRIVER, "numpy==2.4.6", "pandas==3.1.1", "scikit-learn==1.9.1", "pydantic==2.14.4"),
        lambda python, seconds, gpus: [python, str(SCRIPTS / "zeus_1hz.py"), str(seconds), str(gpus)],
        theirs,
    ),
    Contender(
        "CodeCarbon 3.3.2",
        ("codecarbon==3.3.2", DRIVER, "numpy==2.4.6", "pandas==3.1.1", "psutil==7.2.2", "pydantic==2.14.4"),
        lambda python, seconds, _: [python, str(SCRIPTS / "codecarbon_1hz.py"), str(seconds)],
        theirs,
    ),
]  # fmt: skip


# the load ------------------------------------------------------------------------------------------------------------


def load_script(gpus: int, now: float, lasting_s: float) -> list[str]:
    """A square wave on every GPU, from before now until long after the end."""
    steps = range(int(lasting_s / HALF_PERIOD_S) + 1)
    wave = [f"at {now + step * HALF_PERIOD_S} * watts {LOW_W if step % 2 else HIGH_W}" for step in steps]
    return [f"count {gpus}", f"origin {now - 1000}", f"at 0 * watts {LOW_W}", *wave]


def drawn_j(now: float, start: float, end: float) -> float:
    """Joules that one GPU of that wave draws from `start` to `end`."""

    def until(moment: float) -> float:
        periods, rest = divmod(moment - now, 2 * HALF_PERIOD_S)
        whole = periods * HALF_PERIOD_S * (HIGH_W + LOW_W)
        return whole + min(rest, HALF_PERIOD_S) * HIGH_W + max(0.0, rest - HALF_PERIOD_S) * LOW_W

    return until(end) - until(start)


# cost ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """CPU seconds and memory of some processes at one moment."""

    cpu_s: float = 0.0
    memory_mb: float = 0.0


def cost(pid: int) -> Cost:
    """Of a process and its descendants, without the `sleep` that stands for the job."""
    own = Cost()
    if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() not in ("sleep", "timeout"):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        pss_kb = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        own = Cost((int(fields[11]) + int(fields[12])) * TICK_S, pss_kb / 1024)
    below = [cost(child) for child in children(pid)]
    return Cost(own.cpu_s + sum(one.cpu_s for one in below), own.memory_mb + sum(one.memory_mb for one in below))


def settle(pid: int) -> None:
    """Wait until a contender's start-up is over: after a while, the first second in which it does little."""
    time.sleep(SETTLE_S)
    deadline = time.monotonic() + SETTLE_LIMIT_S - SETTLE_S
    while time.monotonic() < deadline:
        before = cost(pid).cpu_s
        time.sleep(1)
        if cost(pid).cpu_s - before < QUIET_CPU_S:
            return


def empty_interpreter_mb(python: str) -> float:
    """Memory of an interpreter that does nothing."""
    command = [python, "-c", "print(1, flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        megabytes = cost(process.pid).memory_mb
        process.stdin.write("\n")
    return megabytes


# running -------------------------------------------------------------------------------------------------------------


def environment_of(contender: Contender) -> str:
    """The interpreter that has the contender's packages; made at first use."""
    if not contender.packages:
        return sys.executable
    folder = ROOT / ".venv" / "contenders" / contender.name.replace(" ", "-")
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists() or ready.read_text(encoding="utf-8") != repr(contender.packages):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *contender.packages], check=True)
        ready.write_text(repr(contender.packages), encoding="utf-8")
    return str(python)


def place(folder: Path, name: str, stub: StubbedNvml) -> dict[str, str]:
    """The environment of one run: the scripted driver, and for ours a machine and an attempt of its own."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    smi = tools / "nvidia-smi"  # CodeCarbon looks for GPUs only where there is one
    smi.write_text("#!/bin/sh\n", encoding="utf-8")
    smi.chmod(0o755)
    theirs_or_ours = {
        **os.environ, **stub.environment, "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "scheduler"), "CARBON_SCHED_JOURNAL_DIR": str(folder / name),
        "CARBON_SCHED_MACHINE_DIR": str(folder / f"{name}.machine"), "CARBON_SCHED_ATTEMPT": ATTEMPT,
        "CARBON_SCHED_CPUS": "1", "CARBON_SCHED_GPUS": "8",
    }  # fmt: skip
    theirs_or_ours.pop("NVML_STUB_LOG")
    return theirs_or_ours


def measure(contender: Contender, seconds: int, gpus: int, folder: Path) -> str:
    """Run one contender and say what it cost."""
    python = environment_of(contender)
    journal = folder / contender.name
    journal.mkdir()
    now = time.time()
    stub = StubbedNvml(folder / "libnvidia-ml.so.1", folder / "script", folder / "log")
    stub.write(*load_script(gpus, now, seconds + 60))
    command = contender.command(python, seconds + SETTLE_S + SPARE_S, gpus)
    with subprocess.Popen(
        command, env=place(folder, contender.name, stub), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    ) as process:  # fmt: skip
        settle(process.pid)
        begin, started = cost(process.pid), time.monotonic()
        time.sleep(seconds - 1)
        end, lasted = cost(process.pid), time.monotonic() - started
        output, _ = process.communicate()
    said = contender.result(journal, output)
    drawn = gpus * drawn_j(now, said.start, said.end)
    kept = sum(path.stat().st_size for path in journal.glob("*.seg"))
    journal_mb = kept / (said.end - said.start) * 86_400 / 1e6
    return (
        f"{contender.name:19} {100 * (end.cpu_s - begin.cpu_s) / lasted:7.2f} % {begin.cpu_s:7.2f} s CPU"
        f" {said.start - now:6.2f} s {end.memory_mb - empty_interpreter_mb(python):8.1f} MB"
        f" {f'{journal_mb:8.1f} MB' if kept else '-':>11} {100 * (said.joules / drawn - 1):+8.2f} %"
    )


def main() -> None:
    """Run every contender on the same load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="the first word of those to run")
    arguments = parser.parse_args()
    wanted = [one for one in CONTENDERS if not arguments.only or one.name.split()[0] in arguments.only]
    print(f"{arguments.gpus} GPUs at 1 Hz, {arguments.seconds} s each, Python {sys.version.split()[0]}")
    print(f"goals: {CPU_GOAL_PERCENT} % of a core, {JOURNAL_GOAL_MB} MB of journal a day")
    print(f"{'':19} {'CPU':>9} {'start':>13} {'blind':>8} {'memory':>11} {'journal/day':>11} {'error':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_stub(folder)
        for contender in wanted:
            print(measure(contender, arguments.seconds, arguments.gpus, folder), flush=True)


if __name__ == "__main__":
    main()
