"""Everything on this machine that can be read for energy, best source first, behind one `sample()`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from carbon_sched_runtime import cpu_model
from carbon_sched_runtime.accounts import Sample
from carbon_sched_runtime.hwmon import Hwmon
from carbon_sched_runtime.machine import boot_clock_ns, utc_us
from carbon_sched_runtime.nvml import GpuProcesses, Nvml
from carbon_sched_runtime.processes import TICKS_PER_SECOND, busy_ticks
from carbon_sched_runtime.rapl import Rapl

if TYPE_CHECKING:
    from carbon_sched_runtime.counters import Meterable

FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of the kernel


class Sources:
    """GPUs by NVML, CPUs and DRAM by RAPL, else Grace CPUs by hwmon, else the utilisation model."""

    def __init__(
        self, nvml: Nvml | None = None, rapl: Rapl | None = None, hwmon: Hwmon | None = None, proc: str = "/proc"
    ) -> None:
        self.proc = proc
        self.threads = os.cpu_count() or 1
        self.nvml = nvml or Nvml()
        self.rapl = rapl or Rapl()
        self.busy_ticks = 0
        self.hwmon = hwmon or Hwmon()
        self.devices: dict[str, Meterable] = {**self.nvml.devices, **self.rapl.devices}
        # A counter is better than power, and a module's counter covers its CPU.
        self._hwmon = not any(d.kind == "cpu" or d.scope == "module" for d in self.devices.values())
        if self._hwmon:
            self.devices.update(self.hwmon.devices)
        # The driver speaks of process ids of the first namespace: in a container they are other processes' numbers.
        self.joins_pids = _pid_namespace(proc) == FIRST_PID_NAMESPACE
        self._modelled = not any(d.kind == "cpu" or d.scope == "module" for d in self.devices.values())
        if self._modelled:
            self.devices[cpu_model.DEVICE] = cpu_model.device(self.threads)

    @property
    def baselines_mw(self) -> dict[str, int]:
        """Power at rest that is known rather than observed, by device id."""
        return {cpu_model.DEVICE: cpu_model.baseline_mw(self.threads)} if self._modelled else {}

    def sample(self) -> Sample:
        """Read every device once; also leaves the machine's busy CPU time in `busy_ticks`."""
        mono_ns, utc = boot_clock_ns(), utc_us()
        with open(f"{self.proc}/stat", "rb", buffering=0) as file:
            self.busy_ticks = busy_ticks(file.read(512))
        readings = {**self.nvml.read(), **self.rapl.read(), **(self.hwmon.read() if self._hwmon else {})}
        if self._modelled:
            readings[cpu_model.DEVICE] = cpu_model.read(self.threads, mono_ns, self.busy_ticks, TICKS_PER_SECOND)
        return Sample(mono_ns, utc, readings)

    def gpu_processes(self, device: str) -> GpuProcesses:
        """The processes on a GPU, or `known=False` where they cannot be joined to ours."""
        return self.nvml.processes(device) if self.joins_pids else GpuProcesses(known=False)

    def describe(self) -> str:
        """One line for people: what is measured and what is not, and why."""
        parts = [f"{sum(d.kind == kind for d in self.devices.values())} {kind}" for kind in ("gpu", "cpu", "dram")]
        text = ", ".join(part for part in parts if not part.startswith("0 "))
        if self._modelled:
            reason = "; ".join(self.rapl.refused[:2]) or "no RAPL counters here"
            text += f"; CPU estimated from utilisation ({reason})"
        if self.nvml.absent:
            text += f"; no GPU readings ({self.nvml.absent})"
        return text + "".join(f"; {trouble}" for trouble in self.nvml.troubles[:4])

    def close(self) -> None:
        """Let go of the driver."""
        self.nvml.close()


def _pid_namespace(proc: str) -> str:
    try:
        return os.readlink(f"{proc}/self/ns/pid")
    except OSError:
        return ""
