"""Stored integers and their conversions: microjoules, micrograms CO2e, mg/kWh, PUE in ppm.

The unit is in every name. Floats appear only for people (`*_kwh`, `*_g`) and inside scoring; what is stored is integer.
"""

from __future__ import annotations

UJ_PER_J = 1_000_000
UJ_PER_KWH = 3_600_000_000_000
UG_PER_G = 1_000_000
MG_PER_G = 1_000
PPM = 1_000_000

# E[uJ] x PUE[ppm] x I[mg/kWh] -> ug:  / (uJ per kWh) / (ppm per 1) x (ug per mg)
UJ_PPM_MG_PER_UG = UJ_PER_KWH * PPM // 1_000


def kwh(energy_uj: int) -> float:
    """Microjoules as kilowatt-hours."""
    return energy_uj / UJ_PER_KWH


def joules(energy_uj: int) -> float:
    """Microjoules as joules."""
    return energy_uj / UJ_PER_J


def grams(co2e_ug: int) -> float:
    """Micrograms as grams."""
    return co2e_ug / UG_PER_G


def mg_per_kwh(g_per_kwh: float) -> int:
    """Intensity in g/kWh, as providers publish it, as stored mg/kWh (nearest integer)."""
    return round(g_per_kwh * MG_PER_G)


def g_per_kwh(intensity_mg_per_kwh: int) -> float:
    """Stored mg/kWh as g/kWh."""
    return intensity_mg_per_kwh / MG_PER_G


def pue_ppm(pue: float) -> int:
    """PUE as a ratio (1.1) in parts per million (1_100_000)."""
    return round(pue * PPM)
