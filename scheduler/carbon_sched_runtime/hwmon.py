"""Power of NVIDIA Grace superchips, which have no RAPL: the kernel's hwmon sensors, integrated.

The ACPI power meters of a Grace module are named by `power1_oem_info`: `Module Power Socket 0` (GPU side included on
GH200), `Grace Power Socket 0` (CPU, its memory and fabric), `CPU Power Socket 0` (the cores alone), `SysIO Power Socket
0`. One sensor per socket counts: the CPU side as a whole (`Grace`), else the cores; the module is never added, because
the GPU's own counter has its scope there.
"""

from __future__ import annotations

import os
import re

from carbon_sched_runtime.counters import Meterable, Reading

HWMON = "CARBON_SCHED_HWMON"
DEFAULT_ROOT = "/sys/class/hwmon"
LIMIT_MW = 1_000_000
ERROR_PPM = 100_000  # adopted: NVIDIA states none for these sensors
_SENSOR = re.compile(r"(Grace|CPU) Power Socket (\d+)")
SCOPES = {"Grace": "grace", "CPU": "package"}


class Hwmon:
    """The sockets of this machine that have such a sensor; none elsewhere."""

    def __init__(self, root: str | None = None) -> None:
        self.root = root or os.environ.get(HWMON) or DEFAULT_ROOT
        self.devices: dict[str, Meterable] = {}
        self._paths: dict[str, str] = {}
        for kind, socket, path in sorted(self._sensors(), reverse=True):  # Grace before CPU
            device = f"cpu:socket-{socket}"
            if device not in self.devices:
                self.devices[device] = Meterable(
                    id=device, kind="cpu", name=f"hwmon {kind} Power Socket {socket}", scope=SCOPES[kind],
                    limit_mw=LIMIT_MW, counts=False, error_ppm=ERROR_PPM,
                )  # fmt: skip
                self._paths[device] = path

    def read(self) -> dict[str, Reading]:
        """The power of each socket now."""
        return {device: self._read(path) for device, path in self._paths.items()}

    def _sensors(self) -> list[tuple[str, str, str]]:
        """Kind, socket and file of each sensor that tells its power."""
        found = []
        for chip in self._chips():
            match = _SENSOR.fullmatch(_text(f"{chip}/device/power1_oem_info") or _text(f"{chip}/power1_oem_info"))
            path = f"{chip}/device/power1_average"
            path = path if os.path.exists(path) else f"{chip}/power1_average"
            if match and self._read(path).error is None:
                found.append((match.group(1), match.group(2), path))
        return found

    def _chips(self) -> list[str]:
        try:
            return [f"{self.root}/{name}" for name in sorted(os.listdir(self.root))]
        except OSError:
            return []

    def _read(self, path: str) -> Reading:
        """Hwmon tells microwatts."""
        try:
            with open(path, "rb", buffering=0) as file:
                return Reading(power_mw=int(file.read(40)) // 1000)
        except (OSError, ValueError) as error:
            return Reading(error=f"{os.path.basename(path)} cannot be read: {type(error).__name__}")


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(100).strip()
    except OSError:
        return ""
