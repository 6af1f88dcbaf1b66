"""What is known of GPUs from outside: rated power, memory, speed, and how a run would do on another type."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import exp, log, sqrt

UNKNOWN_RATED_W = 400.0
UNKNOWN_ERROR = 0.5
"""Between types of which one is not in the table, a move must promise a third less energy for the same run."""
LEAST_ERROR = 0.1
LIFE_S = 4 * 365 * 86_400.0
"""Years of service that a GPU's manufacture is spread over: the usual depreciation."""


@dataclass(frozen=True)
class Gpu:
    """One GPU by its datasheet: rated power in W, memory in GB, dense 16-bit TFLOPS, memory bandwidth in GB/s.

    `embodied_kg` is the lowest and the highest published footprint of its manufacture, None where none is published.
    """

    rated_w: float
    memory_gb: float
    tflops: float
    bandwidth_gb_s: float
    embodied_kg: tuple[float, float] | None = None


@dataclass(frozen=True)
class Ratio:
    """What a run needs on another GPU type, as multiples of what it needs on its own; estimated, never measured.

    `error` is the share by which the energy may well be higher: a move must gain more than that.
    """

    duration: float = 1.0
    power: float = 1.0
    error: float = 0.0


def rows(name: str) -> list[dict[str, str]]:
    """Every row of a shipped table by column name."""
    text = (resources.files("carbon_sched.planning") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def _gpus() -> dict[str, Gpu]:
    return {row["name"]: _gpu(row) for row in rows("gpus.csv")}


def _gpu(row: dict[str, str]) -> Gpu:
    figures = ("rated_w", "memory_gb", "tflops_16bit", "memory_gb_per_s")
    rated, memory, tflops, bandwidth = (float(row[figure]) for figure in figures)
    return Gpu(rated, memory, tflops, bandwidth, _embodied(row))


def _embodied(row: dict[str, str]) -> tuple[float, float] | None:
    low, high = row["embodied_kg_low"], row["embodied_kg_high"]
    return (float(low), float(high)) if low and high else None


def embodied_g(name: str | None, gpus: float, seconds: float) -> tuple[float, float] | None:
    """Share of the GPUs' manufacture for a run, lowest and highest published figure; the time is what is reserved.

    M = TE x TiR / EL of ISO/IEC 21031 (SCI), over `LIFE_S` of service.
    """
    found = gpu(name)
    if found is None or found.embodied_kg is None or gpus <= 0:
        return None
    low, high = (1000 * kg * gpus * seconds / LIFE_S for kg in found.embodied_kg)
    return low, high


@cache
def gpu(name: str | None) -> Gpu | None:
    """A GPU by Ray's accelerator name in any case; `A100-SXM4-40GB` is looked up as `A100`. None: not in the table."""
    known = (name or "").upper()
    return _gpus().get(known) or _gpus().get(known.split("-")[0])


def rated_w(name: str | None) -> float:
    """Rated power of one GPU in watts; of an unknown one the usual data-centre board's."""
    found = gpu(name)
    return found.rated_w if found is not None else UNKNOWN_RATED_W


@cache
def ratio(measured_on: str | None, other: str | None) -> Ratio:
    """How a run that is known on one GPU type would do on another.

    Its speed lies between the ratio of the arithmetic rates (compute-bound) and of the memory bandwidths (memory-bound;
    the roofline model of Williams et al., CACM 2009): taken in the middle, with half of the distance as its error.
    Power is taken as the same share of the rated power.
    """
    if (measured_on or "").lower() == (other or "").lower():
        return Ratio()
    one, two = gpu(measured_on), gpu(other)
    if one is None or two is None:
        return Ratio(error=UNKNOWN_ERROR)
    arithmetic, memory = two.tflops / one.tflops, two.bandwidth_gb_s / one.bandwidth_gb_s
    error = max(exp(abs(log(arithmetic / memory)) / 2) - 1, LEAST_ERROR) if one != two else 0.0
    return Ratio(1 / sqrt(arithmetic * memory), two.rated_w / one.rated_w, error)
