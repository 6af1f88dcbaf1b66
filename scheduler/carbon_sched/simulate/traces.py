"""Recorded jobs and grid intensities as arrays, from the files that backtests are given."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TextIO

import numpy as np

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

HOUR = timedelta(hours=1)


@dataclass(frozen=True, eq=False)
class Jobs:
    """A job trace, in order of submission: hours since its start, run times in hours, units of each.

    `resource` says what a unit is: `GPU` or `CPU`.
    """

    submitted_h: Floats
    hours: Floats
    units: Floats
    group: tuple[str, ...] = ()
    resource: str = "GPU"

    def __len__(self) -> int:
        return len(self.hours)

    def take(self, which: NDArray[np.intp] | Bools) -> Jobs:
        """The jobs at these positions (or where true)."""
        chosen = np.flatnonzero(which) if which.dtype == np.bool_ else which
        group = tuple(self.group[i] for i in chosen) if self.group else ()
        return Jobs(self.submitted_h[chosen], self.hours[chosen], self.units[chosen], group, self.resource)


@dataclass(frozen=True, eq=False)
class Grid:
    """Hourly intensities of zones on one clock: `zones[name][i]` g/kWh holds from `start + i h`; NaN: unknown."""

    start: datetime
    zones: Mapping[str, Floats]

    @property
    def hours(self) -> int:
        """Length of every series."""
        return len(next(iter(self.zones.values())))

    def hour_of(self, moment: datetime) -> int:
        """Index of the hour that contains `moment`."""
        return int((moment - self.start) // HOUR)


def load_jobs(path: Path) -> Jobs:
    """Read `job_id,submit_time_s,duration_s,num_gpus,gpu_type,group,num_cpus` (CSV, gzipped or not).

    Units are the GPUs where the trace has any, else the CPUs. Raises InvalidInput with the line of the first bad row.
    """
    rows, resource = [], "CPU"
    for line, row in _rows(path):
        rows.append((_row(path, line, row), row.get("group") or ""))
        resource = "GPU" if row.get("num_gpus") else resource
    if not rows:
        raise InvalidInput("jobs", path, "has no rows", "Give a job trace with a header and at least one job")
    values = np.array([numbers for numbers, _ in rows])
    order = np.argsort(values[:, 0], kind="stable")
    submitted, seconds, units = values[order].T
    return Jobs(submitted / 3600.0, seconds / 3600.0, units, tuple(rows[i][1] for i in order), resource)


def _row(path: Path, line: int, row: Mapping[str, str]) -> tuple[float, float, float]:
    try:
        units = float(row.get("num_gpus") or row.get("num_cpus") or 1.0)
        submitted, seconds = float(row["submit_time_s"]), float(row["duration_s"])
    except (KeyError, ValueError) as error:
        raise InvalidInput("jobs", f"{path}:{line}", f"cannot be read ({error})", "Mend or remove the row") from None
    if not (seconds > 0 and units > 0 and submitted >= 0):
        raise InvalidInput(
            "jobs", f"{path}:{line}", "has a time or size that is not positive", "Mend or remove the row"
        )
    return submitted, seconds, units


def load_grid(folder: Path, zones: Iterable[str] | None = None) -> Grid:
    """Read `<ZONE>.csv[.gz]` files of hourly `datetime,gCO2eq_per_kWh,...` onto one clock.

    Without `zones` every file of the folder is read. Raises InvalidInput for a zone without a file and for bad rows.
    """
    files = {path.name.removesuffix(".gz").removesuffix(".csv"): path for path in sorted(folder.glob("*.csv*"))}
    files.pop("index", None)
    wanted = list(zones) if zones is not None else list(files)
    if not files:
        raise InvalidInput(
            "intensity", folder, "has no file ZONE.csv or ZONE.csv.gz in it", "Name the folder with them"
        )
    if missing := [zone for zone in wanted if zone not in files]:
        there = f"Zones there: {', '.join(files)}"
        raise InvalidInput("intensity", ", ".join(missing), f"has no file in {folder}", there)
    series = {zone: _series(files[zone]) for zone in wanted}
    start = min(begin for begin, _ in series.values())
    end = max(begin + len(values) * HOUR for begin, values in series.values())
    return Grid(start, {zone: _onto(begin, values, start, end) for zone, (begin, values) in series.items()})


def _series(path: Path) -> tuple[datetime, Floats]:
    moments, values = [], []
    for line, row in _rows(path):
        try:
            moments.append(from_rfc3339(row["datetime"]))
            values.append(float(row["gCO2eq_per_kWh"] or "nan"))
        except (KeyError, ValueError) as error:
            raise InvalidInput("intensity", f"{path}:{line}", f"cannot be read ({error})", "Mend the row") from None
    if not moments:
        raise InvalidInput("intensity", path, "has no rows", "Give an hourly series")
    begin = min(moments)
    out = np.full(int((max(moments) - begin) // HOUR) + 1, np.nan)
    out[[int((moment - begin) // HOUR) for moment in moments]] = values
    return begin, out


def _onto(begin: datetime, values: Floats, start: datetime, end: datetime) -> Floats:
    out = np.full(int((end - start) // HOUR), np.nan)
    offset = int((begin - start) // HOUR)
    out[offset : offset + len(values)] = values
    return out


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with _open(path) as file:
            yield from enumerate(csv.DictReader(file), start=2)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no CSV"
        raise InvalidInput("file", path, f"cannot be read ({reason})", "Name a CSV file, plain or .gz") from None


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
