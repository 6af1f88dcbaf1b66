"""From a generation mix to an intensity, with life-cycle factors by fuel (pure; layer: grid adapters).

Factors: `data/fuel_factors.csv`, IPCC AR5 WGIII (2014) Annex III medians, oil from IPCC SRREN (2011). Storage is left
out of the mix, since its electricity was counted when it was generated; what is charged into storage is not
generation. A fuel called "other" is counted like gas, which is an assumption: it is small wherever these tables are
used.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from carbon_sched.grid.tables import rows

if TYPE_CHECKING:
    from collections.abc import Mapping

FACTOR_ROWS = {
    "coal": ("coal", "pulverised coal"),
    "gas": ("gas", "combined cycle"),
    "oil": ("oil", "all"),
    "nuclear": ("nuclear", "nuclear"),
    "hydro": ("hydro", "hydropower"),
    "wind": ("wind", "onshore"),
    "wind-offshore": ("wind", "offshore"),
    "solar": ("solar", "PV utility"),
    "biomass": ("biomass", "dedicated"),
    "geothermal": ("geothermal", "geothermal"),
    "ocean": ("ocean", "ocean"),
    "other": ("gas", "combined cycle"),
}
VERSION = "IPCC AR5 medians"
STORAGE = "storage"


@cache
def factors() -> dict[str, float]:
    """Life-cycle g/kWh by fuel."""
    table = {
        (row["fuel"], row["technology"]): float(row["central"])
        for row in rows("fuel_factors.csv")
        if row["basis"] == "lifecycle" and row["central"]
    }
    return {fuel: table[key] for fuel, key in FACTOR_ROWS.items()}


def intensity_g_per_kwh(mix: Mapping[str, float]) -> float | None:
    """Mean factor of a mix (fuel -> energy or power, any unit); None when nothing is generated.

    Negative amounts (own use of a plant at rest, storage being charged) are no generation and count as zero.
    """
    parts = [(factors()[fuel], amount) for fuel, amount in mix.items() if fuel != STORAGE and amount > 0]
    total = sum(amount for _, amount in parts)
    return sum(factor * amount for factor, amount in parts) / total if total else None
