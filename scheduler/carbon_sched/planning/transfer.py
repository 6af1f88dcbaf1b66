"""CO2e of bringing a job's data to a cluster: bytes times network energy times the intensity of both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.priors import NETWORK_KWH_PER_GB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from carbon_sched.domain.job import DataInput

    Floats = NDArray[np.float64]

BYTES_PER_GB = 1e9


def transfer_g(data: Sequence[DataInput], zone: str, g_per_kwh: Mapping[str, Floats]) -> Floats:
    """Estimated grams at each start for inputs of which no copy is in `zone`; each end spends half of the energy.

    The same URI in several zones is one input with copies: nothing moves where one is, else the copy that moves is the
    one that causes least. A zone whose intensity is not known counts as the other end's.

    Args:
        data: the inputs, each with its zone.
        zone: where the job would run.
        g_per_kwh: `[S]` intensity of each known zone at each start.

    Returns:
        `[S]`, or a scalar 0 where nothing moves or no intensity is known.
    """
    copies: dict[str, list[DataInput]] = {}
    for part in data:
        copies.setdefault(part.uri, []).append(part)
    total = np.zeros(())
    for parts in copies.values():
        if all(part.zone != zone for part in parts):
            total = total + np.min([_moved_g(part, zone, g_per_kwh) for part in parts], axis=0)
    return total


def _moved_g(part: DataInput, zone: str, g_per_kwh: Mapping[str, Floats]) -> Floats:
    ends = [g_per_kwh[end] for end in (zone, part.zone) if end in g_per_kwh]
    kwh = part.size_bytes / BYTES_PER_GB * NETWORK_KWH_PER_GB
    return kwh * np.mean(ends, axis=0) if ends else np.zeros(())
