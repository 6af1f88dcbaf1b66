"""GPUs through NVML: the total-energy counter by UUID, instant and average power beside it, and process lists.

`nvmlDeviceGetTotalEnergyConsumption` is cumulative since driver load (mJ), so anyone may read it at any time and a
meter may die without losing energy. Power is asked for by field value, because `nvmlDeviceGetPowerUsage` means an
instant on some architectures and a one-second average on others; it stays the last resort.
"""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass, field
from typing import Any

from carbon_sched_runtime.counters import Meterable, Reading

ERROR_PPM = 50_000  # NVIDIA states +/- 5 % for board power
QUANTUM_NS = 100_000_000
LAYOUT_LOOKS = 30  # MIG devices come and go while jobs run: looked for every so many readings
DEFAULT_LIMIT_MW = 1_500_000
MODULE_NAMES = ("GH200", "GB200", "GB300")  # their counter covers CPU and memory of the module as well


@dataclass(frozen=True)
class Slice:
    """A MIG device: its id (`mig:MIG-…`), the part of the board it is in millionths, and the processes on it."""

    id: str
    part: int
    pids: tuple[int, ...] = ()


@dataclass(frozen=True)
class GpuProcesses:
    """The process ids on a GPU and their SM utilisation in percent; `known` False when the driver does not tell.

    A GPU in MIG mode has `slices` instead (None: not in MIG mode).
    """

    pids: tuple[int, ...] = ()
    utilisation: dict[int, int] = field(default_factory=dict)
    known: bool = True
    slices: tuple[Slice, ...] | None = None


@dataclass
class _Gpu:
    handle: Any
    device: Meterable
    index: int
    fields: bool = True
    lists: bool = True
    seen_us: int = 0
    layout: list[tuple[Any, str, int]] | None = None  # MIG devices: handle, id, part; None outside MIG mode
    looks: int = 0


class Nvml:
    """All GPUs of the machine, by `gpu:<UUID>`. Without driver or library there are none and `absent` says why."""

    def __init__(self) -> None:
        self._gpus: dict[str, _Gpu] = {}
        self.absent: str | None = None
        self.troubles: list[str] = []
        try:
            self._nvml = _module()
            self._nvml.nvmlInit()
        except ImportError as error:
            self.absent = str(error)
        except self._nvml.NVMLError as error:
            self.absent = _reason(error)
        else:
            self._find()

    @property
    def devices(self) -> dict[str, Meterable]:
        """What can be metered, by device id."""
        return {device: gpu.device for device, gpu in self._gpus.items()}

    @property
    def order(self) -> list[str]:
        """Device ids in the driver's order, for CUDA_VISIBLE_DEVICES given as numbers."""
        return sorted(self._gpus, key=lambda device: self._gpus[device].index)

    def read(self) -> dict[str, Reading]:
        """One reading of every GPU."""
        return {device: self._read(gpu) for device, gpu in self._gpus.items()}

    def processes(self, device: str) -> GpuProcesses:
        """Who computes on a GPU now. Graphics clients are left out: a desktop's server is no user of a job's GPU."""
        gpu = self._gpus[device]
        if gpu.looks % LAYOUT_LOOKS == 0:
            gpu.layout = self._layout(gpu.handle)
        gpu.looks += 1
        if gpu.layout is not None:
            return GpuProcesses(slices=tuple(Slice(i, part, self._pids(handle)) for handle, i, part in gpu.layout))
        if not gpu.lists:
            return GpuProcesses(known=False)
        try:
            pids = self._pids(gpu.handle, quiet=False)
        except self._nvml.NVMLError as error:
            if error.value == self._nvml.NVML_ERROR_NOT_SUPPORTED:
                gpu.lists = False
            return GpuProcesses(known=False)
        return GpuProcesses(pids, self._utilisation(gpu) if len(pids) > 1 else {})

    def _pids(self, handle: Any, *, quiet: bool = True) -> tuple[int, ...]:
        try:
            clients = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except self._nvml.NVMLError:
            if not quiet:
                raise
            return ()  # the slice has just gone: its part is idle until the layout is looked at again
        return tuple(sorted({int(client.pid) for client in clients}))

    def _layout(self, handle: Any) -> list[tuple[Any, str, int]] | None:
        """The MIG devices of a GPU; None when it is not in MIG mode, as most cannot be."""
        nvml = self._nvml
        try:
            if nvml.nvmlDeviceGetMigMode(handle)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
                return None
            most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
        except nvml.NVMLError:
            return None
        found = []
        for index in range(most):
            with contextlib.suppress(nvml.NVMLError):  # NOT_FOUND: no device of that number
                mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
                slices = int(nvml.nvmlDeviceGetAttributes(mig).computeInstanceSliceCount)
                found.append((mig, f"mig:{nvml.nvmlDeviceGetUUID(mig)}", 1_000_000 * slices // most))
        return found

    def close(self) -> None:
        """Let go of the driver."""
        if self.absent is None:
            self._nvml.nvmlShutdown()

    def _find(self) -> None:
        for index in range(self._nvml.nvmlDeviceGetCount()):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = str(self._nvml.nvmlDeviceGetUUID(handle))
                name = str(self._nvml.nvmlDeviceGetName(handle))
            except self._nvml.NVMLError as error:
                self.troubles.append(f"GPU {index}: {_reason(error)}")
                continue
            counts = self._energy(handle) is not None
            device = Meterable(
                id=f"gpu:{uuid}", kind="gpu", name=name,
                scope="module" if any(part in name for part in MODULE_NAMES) else "board",
                limit_mw=self._limit(handle), counts=counts, error_ppm=ERROR_PPM,
                quantum_ns=QUANTUM_NS if counts else 0,
            )  # fmt: skip
            self._gpus[device.id] = _Gpu(handle, device, index)

    def _read(self, gpu: _Gpu) -> Reading:
        try:
            energy = self._nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle) if gpu.device.counts else None
        except self._nvml.NVMLError as error:
            if error.value != self._nvml.NVML_ERROR_NOT_SUPPORTED:
                return Reading(error=_reason(error))
            energy = None
        instant, average = self._power(gpu)
        if energy is None and instant is None:
            return Reading(error="neither energy nor power can be read")
        return Reading(None if energy is None else energy * 1000, instant, average)

    def _energy(self, handle: Any) -> int | None:
        """Millijoules, or None where the device has no counter. Another failure may pass: it may have one."""
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except self._nvml.NVMLError as error:
            return None if error.value == self._nvml.NVML_ERROR_NOT_SUPPORTED else 0

    def _power(self, gpu: _Gpu) -> tuple[int | None, int | None]:
        """Instant and average milliwatts; by field value, else the one figure that older drivers give."""
        nvml = self._nvml
        if gpu.fields:
            try:
                wanted = [nvml.NVML_FI_DEV_POWER_INSTANT, nvml.NVML_FI_DEV_POWER_AVERAGE]
                values = nvml.nvmlDeviceGetFieldValues(gpu.handle, wanted)
                instant, average = (
                    int(value.value.uiVal) if value.nvmlReturn == nvml.NVML_SUCCESS else None for value in values
                )
            except (nvml.NVMLError, AttributeError):
                gpu.fields = False
            else:
                if instant is not None:
                    return instant, average
        try:
            return int(nvml.nvmlDeviceGetPowerUsage(gpu.handle)), None
        except nvml.NVMLError:
            return None, None

    def _limit(self, handle: Any) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)[1]) or DEFAULT_LIMIT_MW
        except self._nvml.NVMLError:
            return DEFAULT_LIMIT_MW

    def _utilisation(self, gpu: _Gpu) -> dict[int, int]:
        """SM utilisation by pid since the last look; empty where the driver has no samples."""
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(gpu.handle, gpu.seen_us)
        except self._nvml.NVMLError:
            return {}
        use: dict[int, int] = {}
        for sample in samples:
            if sample.timeStamp > gpu.seen_us:
                use[int(sample.pid)] = use.get(int(sample.pid), 0) + int(sample.smUtil)
        gpu.seen_us = max([gpu.seen_us, *(int(sample.timeStamp) for sample in samples)])
        return use


def visible_devices(text: str | None, order: list[str]) -> tuple[str, ...] | None:
    """CUDA_VISIBLE_DEVICES as device ids, by CUDA's rules; None when it confines to nothing we know.

    Numbers count the driver's order, `GPU-…` may be the start of a UUID, `MIG-…` names a slice, the first unknown entry
    ends the list.
    """
    if text is None:
        return None
    found: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        if entry.isdigit() and int(entry) < len(order):
            found.append(order[int(entry)])
            continue
        if entry.startswith("MIG-"):
            found.append(f"mig:{entry}")
            continue
        matches = [device for device in order if entry.startswith("GPU-") and device.startswith(f"gpu:{entry}")]
        if len(matches) != 1:
            break
        found += matches
    return tuple(dict.fromkeys(found)) or None


def _module() -> Any:
    """pynvml: our own copy where one travelled with us (user code's is never shadowed), else the installed one."""
    try:
        return importlib.import_module("carbon_sched_runtime._pynvml")
    except ImportError:
        return importlib.import_module("pynvml")


def _reason(error: Exception) -> str:
    return f"NVML: {error}"[:120]
