"""Fakes for the runtime's unit tests: a process tree in a folder, and sources whose counters a test turns by hand."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

from carbon_sched_runtime.accounts import Sample
from carbon_sched_runtime.counters import Meterable, Reading
from carbon_sched_runtime.nvml import GpuProcesses

if TYPE_CHECKING:
    from pathlib import Path

SECOND_NS = 1_000_000_000
UTC_US = 1_790_000_000_000_000  # when the fake machine's boot clock stood at 0


@dataclass(frozen=True)
class FakeProc:
    """A folder that stands for /proc."""

    root: Path

    def process(
        self, pid: int, *, parent: int = 1, ticks: int = 0, started: int = 100, env: dict[str, str] | None = None
    ) -> None:
        """Add or change a process. The name holds what a hostile one would."""
        folder = self.root / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        fields = ["S", parent, *[0] * 9, ticks, 0, 0, 0, 20, 0, 1, 0, started, 0, 0]
        (folder / "stat").write_text(f"{pid} (a) b (c) {' '.join(map(str, fields))}\n", encoding="ascii")
        if env is not None:
            block = b"".join(f"{key}={value}".encode() + b"\0" for key, value in env.items())
            (folder / "environ").write_bytes(block)

    def end(self, pid: int) -> None:
        shutil.rmtree(self.root / str(pid))


def gpu(name: str = "gpu:a", **changes) -> Meterable:
    facts = {"id": name, "kind": "gpu", "name": "a GPU", "scope": "board", "limit_mw": 700_000, "error_ppm": 50_000}
    return Meterable(**{**facts, "quantum_ns": 100_000_000, **changes})


def cpu(name: str = "cpu:package-0", **changes) -> Meterable:
    facts = {"id": name, "kind": "cpu", "name": "a CPU", "scope": "package", "limit_mw": 1_000_000}
    return Meterable(**{**facts, "wrap_uj": 262_143_328_850, "error_ppm": 50_000, **changes})


@dataclass
class FakeSources:
    """Sources as `reader.Reader` uses them; `readings` is what the next sample says."""

    proc: str
    devices: dict[str, Meterable]
    mono_ns: int = 1000 * SECOND_NS
    threads: int = 4
    busy_ticks: int = 0
    readings: dict[str, Reading] = field(default_factory=dict)
    clients: dict[str, GpuProcesses] = field(default_factory=dict)
    baselines_mw: dict[str, int] = field(default_factory=dict)
    utc_step_us: int = 0

    @property
    def nvml(self) -> SimpleNamespace:
        return SimpleNamespace(order=[d.id for d in self.devices.values() if d.kind == "gpu"])

    def sample(self) -> Sample:
        return Sample(self.mono_ns, UTC_US + self.utc_step_us + self.mono_ns // 1000, dict(self.readings))

    def gpu_processes(self, device: str) -> GpuProcesses:
        return self.clients.get(device, GpuProcesses())

    def advance(self, seconds: float, **microjoules: int) -> None:
        """Let time pass; each device's counter rises by so much (`_` stands for `:` and `-`)."""
        self.mono_ns += int(seconds * SECOND_NS)
        for name in self.devices:
            grown = microjoules.get(name.replace(":", "_").replace("-", "_"), 0)
            before = self.readings.get(name, Reading(0))
            self.readings[name] = Reading((before.counter_uj or 0) + grown, before.power_mw)

    def describe(self) -> str:
        return "fake"

    def close(self) -> None:
        pass
