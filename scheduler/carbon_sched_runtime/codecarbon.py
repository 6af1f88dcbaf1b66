"""A window as a row of CodeCarbon's `emissions.csv`: 38 columns, with the meaning they have in CodeCarbon 3.3.2.

There energies and powers are multiplied by PUE. What is unknown is an empty cell, never 0. How each figure was found
stands in a file beside it (`emissions.csv.carbon-sched.jsonl`), one JSON line per row, joined by `run_id`.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import platform
import time
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched_runtime.windows import Measurement

SEMANTICS = "3.3.2"
UJ_PER_KWH = 3_600_000_000_000
COLUMNS = (
    "timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions", "emissions_rate", "cpu_power",
    "gpu_power", "ram_power", "cpu_energy", "gpu_energy", "ram_energy", "energy_consumed", "water_consumed",
    "country_name", "country_iso_code", "region", "cloud_provider", "cloud_region", "os", "python_version",
    "codecarbon_version", "cpu_count", "cpu_model", "gpu_count", "gpu_model", "longitude", "latitude",
    "ram_total_size", "tracking_mode", "cpu_utilization_percent", "gpu_utilization_percent",
    "ram_utilization_percent", "ram_used_gb", "on_cloud", "pue", "wue",
)  # fmt: skip
KINDS = (("cpu", "cpu"), ("gpu", "gpu"), ("ram", "dram"))

Cell = Union[str, int, float, None]


def row(run_id: str, measured: Measurement) -> dict[str, Cell]:
    """The cells by column: s, kg, kg/s, W, kWh; None is unknown. Energies are those of the facility (x PUE)."""
    seconds, carbon = measured.duration_s, measured.carbon
    pue = None if carbon.pue_ppm is None else carbon.pue_ppm / 1_000_000
    factor = 1.0 if pue is None else pue
    emissions = None if measured.co2e_g is None else measured.co2e_g / 1000
    total = None if measured.energy_uj is None else factor * measured.energy_uj / UJ_PER_KWH
    gpus = [part.name for part in {part.device: part for part in measured.parts if part.kind == "gpu"}.values()]
    cells: dict[str, Cell] = {
        **dict.fromkeys(COLUMNS),
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(measured.end_us / 1e6)),
        "project_name": measured.name, "run_id": run_id, "duration": seconds, "emissions": emissions,
        "emissions_rate": emissions / seconds if emissions is not None and seconds else None,
        "energy_consumed": total, "os": platform.platform(), "python_version": platform.python_version(),
        "codecarbon_version": SEMANTICS, "cpu_count": os.cpu_count(), "cpu_model": _cpu_model(),
        "gpu_count": len(gpus), "gpu_model": f"{len(gpus)} x {gpus[0]}" if gpus else None,
        "ram_total_size": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "tracking_mode": "machine", "pue": pue,
    }  # fmt: skip
    for name, kind in KINDS:
        energies = [part.energy_uj for part in measured.parts if part.kind == kind]
        if energies:
            kwh = factor * sum(energies) / UJ_PER_KWH
            cells[f"{name}_energy"] = kwh
            cells[f"{name}_power"] = kwh * 3.6e6 / seconds if seconds else None
    return cells


def append_row(path: str, run_id: str, measured: Measurement) -> None:
    """Add a row, safe against other processes that do; a file with other columns is moved aside."""
    with _locked(path):
        new = _move_others_aside(path)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row(run_id, measured))
        _append(path, text.getvalue())
        _append(f"{path}.carbon-sched.jsonl", json.dumps(_detail(run_id, measured)) + "\n")


def _detail(run_id: str, measured: Measurement) -> dict[str, object]:
    carbon = measured.carbon
    parts = [
        {"device": p.device, "scope": p.scope, "source": p.source, "energy_uj": p.energy_uj, "error_uj": p.error_uj,
         "flags": list(p.flags)}
        for p in measured.parts
    ]  # fmt: skip
    return {
        "run_id": run_id, "energy_uj": measured.energy_uj, "co2e_ug": measured.co2e_ug,
        "intensity_mg_per_kwh": carbon.intensity_mg_per_kwh, "grade": carbon.grade, "origin": carbon.origin,
        "pue_ppm": carbon.pue_ppm, "parts": parts, "units": measured.units, "reason": measured.reason,
    }  # fmt: skip


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _move_others_aside(path: str) -> bool:
    """Whether the file is to be begun: it is not there, or was another's and has been renamed."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), [])
    except FileNotFoundError:
        return True
    if header == list(COLUMNS):
        return False
    number = 1
    while os.path.lexists(f"{path}.{number}.bak"):
        number += 1
    os.rename(path, f"{path}.{number}.bak")
    return True


def _append(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text)


def _cpu_model() -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return value.strip()
    except OSError:
        return None
    return None
