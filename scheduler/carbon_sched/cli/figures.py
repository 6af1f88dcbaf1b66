"""Quantities as people read them: three digits and a fitting unit. Pure; programs read `--json` instead."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from carbon_sched.domain.time import from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo

MASS = ((1e-3, "mg"), (1.0, "g"), (1e3, "kg"), (1e6, "t"))
ENERGY = ((1e-6, "mWh"), (1e-3, "Wh"), (1.0, "kWh"), (1e3, "MWh"))
"""Units of gCO2e and kWh: how much of the base unit each is, ascending."""
J_PER_KWH = 3_600_000

Units = tuple[tuple[float, str], ...]


def digits(value: float) -> str:
    """Three significant digits, no exponent: `0.0137`, `13.7`, `1370`."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "?"
    before = math.floor(math.log10(abs(value))) + 1
    text = f"{value:.{max(0, 3 - before)}f}"
    return "0" if float(text) == 0 else text


def grams(value: float | None) -> str:
    """Emissions, given in gCO2e, with the unit that fits."""
    return scaled(value, MASS)


def kwh(value: float | None) -> str:
    """Energy, given in kWh, with the unit that fits."""
    return scaled(value, ENERGY)


def scaled(value: float | None, units: Units) -> str:
    """A value in the base unit, shown in the unit that fits it; `unknown` for None."""
    if value is None:
        return "unknown"
    factor, unit = fitting([value], units)
    return f"{digits(value / factor)} {unit}"


def fitting(values: Sequence[float | None], units: Units) -> tuple[float, str]:
    """The one unit for a column of values: that of the largest."""
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    chosen = next((unit for unit in units if unit[1] in {"g", "Wh"}), units[0]) if largest == 0 else units[0]
    for unit in units:
        if largest >= unit[0]:
            chosen = unit
    return chosen


def duration(seconds: float | None) -> str:
    """Two units at most: `25 s`, `12 min 30 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds is None:
        return "unknown"
    if seconds < 10 and seconds != round(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller, small_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def moment(text: str | None, zone: tzinfo, now: datetime) -> str:
    """A wire time in the user's zone: `20:30:00`, with its date where that is not today."""
    if text is None:
        return "-"
    local = from_rfc3339(text).astimezone(zone)
    today = local.date() == now.astimezone(zone).date()
    return f"{local:%H:%M:%S}" if today else f"{local:%b} {local.day} {local:%H:%M}"


def clock(text: str, zone: tzinfo, now: datetime) -> str:
    """As `moment`, with the zone's short name: for sentences."""
    return f"{moment(text, zone, now)} {from_rfc3339(text).astimezone(zone).tzname()}"


def percent(share: float) -> str:
    """A share of one: `37 %`; never `0 %` for something, never `100 %` for not all."""
    if 0 < share < 0.01:
        return "< 1 %"
    if 0.99 < share < 1:
        return "> 99 %"
    return f"{share:.0%}".replace("%", " %")
