"""A powercap tree as the kernel lays it out, in a folder, with counters that tests turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

WRAP_UJ = 262_143_328_850


@dataclass(frozen=True)
class Powercap:
    """The folder that stands for /sys/class/powercap."""

    root: Path

    def zone(self, path: str, name: str, energy_uj: int = 0, *, wrap_uj: int = WRAP_UJ, limit_w: float = 250) -> None:
        """Add a zone such as `intel-rapl:0` (a package) or `intel-rapl:0:0` (its child)."""
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "name").write_text(f"{name}\n", encoding="ascii")
        (folder / "max_energy_range_uj").write_text(f"{wrap_uj}\n", encoding="ascii")
        (folder / "constraint_0_max_power_uw").write_text(f"{int(limit_w * 1e6)}\n", encoding="ascii")
        self.set(path, energy_uj)

    def set(self, path: str, energy_uj: int) -> None:
        """Turn a zone's counter to a value, at once."""
        fresh = self.root / path / "energy_uj.new"
        fresh.write_text(f"{energy_uj}\n", encoding="ascii")
        fresh.replace(self.root / path / "energy_uj")


def server(root: Path) -> Powercap:
    """Two sockets with DRAM, core and uncore children, psys, and the memory-mapped mirror tree."""
    tree = Powercap(root)
    for package in (0, 1):
        tree.zone(f"intel-rapl:{package}", f"package-{package}", 1_000_000_000 * (package + 1))
        tree.zone(f"intel-rapl:{package}:0", "dram", 100_000_000 * (package + 1))
        tree.zone(f"intel-rapl:{package}:1", "core", 500_000_000)
        tree.zone(f"intel-rapl-mmio:{package}", f"package-{package}", 1_000_000_000 * (package + 1))
    tree.zone("intel-rapl:2", "psys", 3_000_000_000)
    return tree
