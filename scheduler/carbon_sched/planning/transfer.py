"""CO2e of bringing a job's data to a cluster: bytes times network energy times the intensity of both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.planning.priors import NETWORK_KWH_PER_GB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carbon_sched.domain.job import DataInput

BYTES_PER_GB = 1e9


def transfer_g(data: Sequence[DataInput], zone: str, now_g_per_kwh: Mapping[str, float]) -> float:
    """Estimated grams for inputs that are not in `zone` yet; half of the energy is spent at either end.

    An origin whose intensity is not known counts as the destination's.
    """
    total = 0.0
    there = now_g_per_kwh.get(zone, 0.0)
    for part in data:
        if part.zone != zone:
            kwh = part.size_bytes / BYTES_PER_GB * NETWORK_KWH_PER_GB
            total += kwh * (there + now_g_per_kwh.get(part.zone, there)) / 2
    return total
