"""Measure your own code: `with meter.window("epoch-3", tokens=n) as w:` in a job, a plain script or a notebook.

    from carbon_sched import meter

    with meter.window("epoch-3", tokens=2_000_000, zone="DE", pue=1.0) as w:
        train()
    print(w.result.energy_j, w.result.co2e_g, w.result.per_unit["tokens"].joules)
    meter.report(accuracy=0.83)  # what came out, for `carbon-sched audit compare`

No scheduler, server or cluster is needed. Inside a job of carbon-sched the window is also written beside the attempt's
energy journal. On clusters where this package is not installed, `from carbon_sched_runtime import windows` travels with
every job and does the same, without the yearly averages by zone.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from carbon_sched.domain.time import EPOCH
from carbon_sched_runtime import windows
from carbon_sched_runtime.windows import Carbon, Measurement, PerUnit, Window, report

if TYPE_CHECKING:
    import os

    from carbon_sched.grid.yearly import YearlyTable

__all__ = ["Carbon", "Measurement", "PerUnit", "Window", "report", "window"]


def window(
    name: str,
    *,
    intensity: float | None = None,
    pue: float | None = None,
    zone: str | None = None,
    codecarbon_csv: str | os.PathLike[str] | None = None,
    **units: float,
) -> Window:
    """A window over what happens in its `with` block; `units` are amounts of work done in it (`tokens=4096`).

    `intensity` is in gCO2e/kWh, `pue` a ratio; without them CARBON_SCHED_INTENSITY and CARBON_SCHED_PUE are used, else
    the yearly average of `zone` (an Electricity Maps key; CARBON_SCHED_ZONE), which the result grades. What stays
    unknown is None, with a reason. `codecarbon_csv` names a file that gets a row as CodeCarbon 3.3.2 would write it.
    Raises ValueError for arguments that make no sense.
    """
    return windows.window(
        name,
        intensity=intensity,
        pue=pue,
        zone=zone,
        codecarbon_csv=codecarbon_csv,
        averages=yearly_average,
        **units,
    )


def yearly_average(zone: str, start_us: int, end_us: int) -> tuple[int, str, str]:
    """The zone's average over a year from the shipped tables: mg/kWh, grade, and which table, year, basis, perimeter.

    Falls back to the country's and the world's average, with a lower grade. Times are UTC microseconds since 1970.
    """
    start, end = (EPOCH + timedelta(microseconds=moment) for moment in (start_us, end_us))
    reading = _table().reading(zone, start, end, end)
    origin = f"{reading.provider} {reading.model_version}, {reading.basis.value}, {reading.perimeter.value}"
    return reading.intensity_mg_per_kwh, reading.grade.value, origin


@cache
def _table() -> YearlyTable:
    # Here, not at the top: most windows are told their intensity, and the tables take a while to read.
    from carbon_sched.grid.yearly import YearlyTable  # noqa: PLC0415

    return YearlyTable.load()
