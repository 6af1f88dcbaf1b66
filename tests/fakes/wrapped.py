"""Jobs under the real wrapper in real processes, on a machine folder and a journal of the test's own."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import carbon_sched_runtime
from carbon_sched_runtime.wire import Record, Segment, parse_record, parse_segment

# Stamps are looked for on the whole machine: test processes that run side by side must not share attempts.
A = f"cs-a{os.getpid():09d}-a1"
B = f"cs-b{os.getpid():09d}-a1"
RUNTIME = Path(carbon_sched_runtime.__file__).parent.parent


@dataclass
class Workplace:
    """Where wrapped jobs of one test meet: their machine folder, their journal, their extra environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def start(
        self, entrypoint: str, attempt: str = A, *, beside: str = "", within: tuple[str, ...] = (), **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start the wrapper as the server's entrypoint does, with pipes for its output.

        With `beside`, a shell with the attempt's stamp starts that command first, as Ray's supervisor does its own.
        `within` is a command that runs the wrapper, such as one that puts it into a container.
        """
        self.journal.mkdir(exist_ok=True)
        ours = {
            "PYTHONPATH": str(RUNTIME),
            "CARBON_SCHED_JOURNAL_DIR": str(self.journal),
            "CARBON_SCHED_MACHINE_DIR": str(self.folder / "machine"),
            "CARBON_SCHED_POWERCAP": str(self.folder / "powercap"),
            "CARBON_SCHED_JOB": attempt.split("-")[1],
            "CARBON_SCHED_ATTEMPT": attempt,
            "CARBON_SCHED_CPUS": "1",
            "CARBON_SCHED_GPUS": "0",
        }
        command = [sys.executable, "-m", "carbon_sched_runtime.run", "--", entrypoint]
        if beside:
            command = ["/bin/sh", "-c", f'{beside} & "$@"', "sh", *command]
        process = subprocess.Popen(
            [*within, *command],
            env={**os.environ, **ours, **self.environment, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run(self, entrypoint: str, attempt: str = A, **environment: str) -> tuple[int, str, str]:
        """Run a job to its end: exit code, standard output, standard error."""
        process = self.start(entrypoint, attempt, **environment)
        out, error = process.communicate(timeout=60)
        return process.returncode, out.decode(), error.decode()

    def start_held(self, attempt: str = A, **environment: str) -> subprocess.Popen[bytes]:
        """Start a job that says its pid and runs until its `release`, and wait until it is metered."""
        process = self.start(f"echo $$; while [ ! -e {attempt}.go ]; do sleep 0.02; done", attempt, **environment)
        self.wait_for("metering", attempt)
        return process

    def release(self, attempt: str = A) -> None:
        (self.folder / f"{attempt}.go").touch()

    def record(self, attempt: str = A) -> Record:
        path = self.journal / f"carbon-sched-{attempt}.record"
        return parse_record(path.read_bytes() if path.exists() else b"", attempt)

    def segments(self) -> list[Segment]:
        """Every segment of the journal, checked, in order of time."""
        found = [parse_segment(path.read_bytes(), path.name) for path in self.journal.glob("carbon-sched-*.seg")]
        return sorted(found, key=lambda segment: (segment.start_mono_ns, segment.seq))

    def total_uj(self, device: str, owner: str | None = None) -> int:
        rows = [row for segment in self.segments() for row in segment.rows]
        return sum(row.energy_uj for row in rows if row.device == device and owner in (None, row.owner))

    def wait_for(self, event: str, attempt: str = A, timeout_s: float = 20) -> None:
        """Until the attempt's record shows an event."""
        deadline = time.monotonic() + timeout_s
        while self.record(attempt).last(event) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{attempt} shows no {event}: {self.record(attempt)}")
            time.sleep(0.02)

    def close(self) -> None:
        """Leave no process behind."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def conserved(place: Workplace, device: str, readings: list[int]) -> bool:
    """All rows of all owners = last minus first reading that any reader was given."""
    return place.total_uj(device) == (readings[-1] - readings[1]) * 1000


def conserved_span(place: Workplace, device: str) -> bool:
    """The spans of a device lie end to end over all segments, and the rows add up to them."""
    spans = [span for segment in place.segments() for span in segment.spans if span.device == device]
    joined = all(one.last_uj == two.first_uj for one, two in itertools.pairwise(spans))
    return joined and place.total_uj(device) == spans[-1].last_uj - spans[0].first_uj


def stop_like_ray(pids: list[int], number: int) -> None:
    """Ray signals the entrypoint's shell and every descendant, each directly."""
    for pid in pids:
        os.kill(pid, number)
