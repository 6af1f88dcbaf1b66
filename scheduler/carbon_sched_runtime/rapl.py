"""CPU package and DRAM energy from the kernel's powercap tree (RAPL): Intel, and AMD under the same names.

Package zones count; `dram` children count on servers, where they are not inside the package; `core` and `uncore` are
inside the package, and `psys` overlaps it, so neither is ever added. The memory-mapped mirror tree is used only where
the first is absent, and of zones that mirror one counter (multi-die parts) one is kept. Wraps are undone by
`counters.advance`, by the same reader with the same two reads.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from carbon_sched_runtime.counters import Meterable, Reading

if TYPE_CHECKING:
    from collections.abc import Iterable

POWERCAP = "CARBON_SCHED_POWERCAP"
DEFAULT_ROOT = "/sys/class/powercap"
PACKAGE_LIMIT_MW = 1_000_000  # where the zone states none: above any socket sold
DRAM_LIMIT_MW = 500_000
ERROR_PPM = 50_000
QUANTUM_NS = 1_000_000
MIRROR_PROBES = 3
_ZONE = re.compile(r"(intel-rapl(?:-mmio)?):(\d+)(?::(\d+))?")
_PACKAGE = re.compile(r"package-\d+(?:-die-\d+)?")


class Rapl:
    """The zones of this machine that may be added up. `refused` says why zones that exist cannot be read."""

    def __init__(self, root: str | None = None) -> None:
        self.root = root or os.environ.get(POWERCAP) or DEFAULT_ROOT
        self.devices: dict[str, Meterable] = {}
        self.refused: list[str] = []
        self._paths: dict[str, str] = {}
        zones = self._zones()
        for zone in self._without_mirrors([z for z in zones if z.count(":") == 1]):
            package = self._add("cpu", zone, self._name(zone))
            for child in sorted(z for z in zones if z.startswith(f"{zone}:")):
                if self._name(child) == "dram" and package:
                    self._add("dram", child, package)

    def read(self) -> dict[str, Reading]:
        """One reading of every zone; an unreadable one says why."""
        return {device: self._read(path) for device, path in self._paths.items()}

    def _zones(self) -> list[str]:
        """Names of zones in the first tree that has any package."""
        try:
            names = [name for name in os.listdir(self.root) if _ZONE.fullmatch(name)]
        except OSError:
            return []
        for tree in ("intel-rapl:", "intel-rapl-mmio:"):
            zones = [name for name in names if name.startswith(tree)]
            if any(_PACKAGE.fullmatch(self._name(zone)) for zone in zones):
                return sorted(zones)
        return []

    def _without_mirrors(self, zones: Iterable[str]) -> list[str]:
        """Package zones, each counter once: a zone that always reads between two reads of another is its mirror."""
        kept: list[str] = []
        for zone in zones:
            if not _PACKAGE.fullmatch(self._name(zone)):
                continue
            path = f"{self.root}/{zone}"
            if not any(self._mirrors(f"{self.root}/{other}", path) for other in kept):
                kept.append(zone)
        return kept

    def _mirrors(self, one: str, other: str) -> bool:
        for _ in range(MIRROR_PROBES):
            before, between, after = self._energy(one), self._energy(other), self._energy(one)
            if before is None or between is None or after is None or not before <= between <= after:
                return False
        return True

    def _add(self, kind: str, zone: str, package: str) -> str | None:
        path = f"{self.root}/{zone}"
        reading = self._read(path)
        if reading.error is not None:
            self.refused.append(f"{self._name(zone)}: {reading.error}")
            return None
        device = f"{kind}:{package}"
        limit = PACKAGE_LIMIT_MW if kind == "cpu" else DRAM_LIMIT_MW
        self.devices[device] = Meterable(
            id=device, kind=kind, name=f"RAPL {self._name(zone)}", scope="package" if kind == "cpu" else "dram",
            limit_mw=max(limit, (self._integer(f"{path}/constraint_0_max_power_uw") or 0) // 1000),
            wrap_uj=self._integer(f"{path}/max_energy_range_uj") or 0,
            error_ppm=ERROR_PPM, quantum_ns=QUANTUM_NS,
        )  # fmt: skip
        self._paths[device] = path
        return package

    def _name(self, zone: str) -> str:
        try:
            with open(f"{self.root}/{zone}/name", encoding="ascii") as file:
                return file.read(100).strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _read(self, path: str) -> Reading:
        try:
            with open(f"{path}/energy_uj", "rb", buffering=0) as file:
                return Reading(counter_uj=int(file.read(40)))
        except PermissionError:
            return Reading(error="only root may read energy_uj (run carbon-sched meter as root)")
        except (OSError, ValueError) as error:
            return Reading(error=f"energy_uj cannot be read: {type(error).__name__}")

    def _energy(self, path: str) -> int | None:
        return self._read(path).counter_uj

    def _integer(self, path: str) -> int | None:
        try:
            with open(path, encoding="ascii") as file:
                return int(file.read(40))
        except (OSError, ValueError):
            return None
