"""Row 20: how far off the CO2e may be. Bounds with every error at its worst, and percentiles of draws.

Three factors err: the meter (by kind of device and source, bounded on every row), the PUE (by cluster) and the
intensity (by zone, provider and grade). Within one factor errors are taken as common to all it touches, between factors
as independent. The draws come from SHAKE-256, so that they are the same on every machine and version.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from carbon_sched.domain.units import PPM
from carbon_sched.ledger.statement.model import Assumed, Uncertainty

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from carbon_sched.ledger.statement.model import Line

DRAWS = 1000
SEED = b"carbon-sched statement uncertainty 1\0"
GRADE_ERROR_PPM = {
    "A-live": 50_000,
    "B-provider-forecast": 100_000,
    "C-own-forecast": 150_000,
    "D-zone-year": 250_000,
    "E-country-year": 350_000,
    "F-world-year": 600_000,
}
"""Relative errors by grade: judged, not measured. A year's average misses an hour by about the zone's spread."""
PUE_ERROR_PPM = {True: 150_000, False: 30_000}
"""Of an assumed PUE and of a stated one: judged, not measured. Uptime's surveys show sites from 1.1 to 2."""
JUDGED = "judged, not measured"

Factors = tuple[tuple[str, str], tuple[str, str], tuple[str, str]]


def uncertainty(lines: Iterable[Line], assumed_pues: Collection[str]) -> Uncertainty:
    """Bounds and percentiles of the sum of `co2e_ug`; `assumed_pues` are clusters of which nobody stated the PUE."""
    sums: dict[Factors, int] = defaultdict(int)
    meter: dict[tuple[str, str], tuple[int, int]] = {}
    for line in lines:
        factor = ("meter", f"{line.component}, {line.source}")
        error_uj, energy_uj = meter.get(factor, (0, 0))
        meter[factor] = (error_uj + line.error_uj, energy_uj + line.energy_uj)
        if line.covered_uj:
            grid = ("intensity", f"{line.zone}, {line.provider}, {line.grade}")
            sums[factor, ("PUE", line.cluster), grid] += line.co2e_ug
    errors = _errors(sums, meter, assumed_pues)
    drawn = sorted(_drawn(sums, errors))
    return Uncertainty(
        low_ug=_sum(sums, lambda factor: PPM - errors[factor].error_ppm),
        p5_ug=drawn[DRAWS * 5 // 100],
        p95_ug=drawn[DRAWS * 95 // 100 - 1],
        high_ug=_sum(sums, lambda factor: PPM + errors[factor].error_ppm),
        draws=DRAWS,
        assumed=tuple(errors[factor] for factor in sorted(errors)),
    )


def _errors(
    sums: Mapping[Factors, int], meter: Mapping[tuple[str, str], tuple[int, int]], assumed_pues: Collection[str]
) -> dict[tuple[str, str], Assumed]:
    found = {}
    for kind, of in {factor for factors in sums for factor in factors}:
        if kind == "meter":
            error_uj, energy_uj = meter[kind, of]
            error_ppm, source = min(PPM, error_uj * PPM // energy_uj if energy_uj else 0), "the meter's own bound"
        elif kind == "PUE":
            error_ppm, source = PUE_ERROR_PPM[of in assumed_pues], JUDGED
        else:
            error_ppm, source = GRADE_ERROR_PPM[of.rpartition(", ")[2]], JUDGED
        found[kind, of] = Assumed(kind, of, error_ppm, source)
    return found


def _drawn(sums: Mapping[Factors, int], errors: Mapping[tuple[str, str], Assumed]) -> list[int]:
    factors = {factor: _draws(factor, one.error_ppm) for factor, one in errors.items()}
    return [_sum(sums, lambda factor, n=n: factors[factor][n]) for n in range(DRAWS)]  # type: ignore[misc]


def _draws(factor: tuple[str, str], error_ppm: int) -> list[int]:
    """DRAWS multipliers in ppm, even within 1 - error to 1 + error."""
    stream = hashlib.shake_256(SEED + "\0".join(factor).encode()).digest(4 * DRAWS)
    evens = (int.from_bytes(stream[4 * n : 4 * n + 4], "big") for n in range(DRAWS))
    return [PPM - error_ppm + (2 * error_ppm * even >> 32) for even in evens]


def _sum(sums: Mapping[Factors, int], multiplier: Callable[[tuple[str, str]], int]) -> int:
    """The total with every factor multiplied."""
    return sum(
        co2e_ug * multiplier(meter) * multiplier(pue) * multiplier(grid) // PPM**3
        for (meter, pue, grid), co2e_ug in sums.items()
    )
