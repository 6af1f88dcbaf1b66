"""A plan's state as JSON and back: what a server keeps, so that the next one goes on from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from carbon_sched.planning.waiting import Day, Gate
from carbon_sched.planning.warm import PriceBook, WarmStart

if TYPE_CHECKING:
    from collections.abc import Mapping

    Json = dict[str, Any]

FORMAT = 1
DIGITS = 4
"""Significant digits of a price: they start a search, and are shown with two."""


def to_json(state: WarmStart) -> Json:
    """Everything but the fingerprint of the world, which is another one in another process."""
    return {
        "format": FORMAT,
        "waiting": sorted(state.waiting),
        "seen": sorted(state.seen),
        "placed": {job: list(place) for job, place in state.placed.items()},
        "amended": dict(state.amended),
        "gate": {
            key: {str(number): [day.grams, day.saved, day.jobs] for number, day in days.items()}
            for key, days in state.gate.days.items()
        },
        "prices": None if state.prices is None else _prices_to_json(state.prices),
    }


def from_json(kept: Mapping[str, Any]) -> WarmStart:
    """Inverse of `to_json`; an empty state for what another version of this code has kept."""
    if kept.get("format") != FORMAT:
        return WarmStart()
    return WarmStart(
        waiting=frozenset(kept["waiting"]),
        seen=frozenset(kept["seen"]),
        gate=Gate({key: {int(n): Day(*day) for n, day in days.items()} for key, days in kept["gate"].items()}),
        prices=None if kept["prices"] is None else _prices_from_json(kept["prices"]),
        placed={job: (cluster, kind, at, grams) for job, (cluster, kind, at, grams) in kept["placed"].items()},
        amended=kept.get("amended", {}),
    )


def _prices_to_json(book: PriceBook) -> Json:
    return {
        "lanes": [list(lane) for lane in book.lanes],
        "origin": book.origin,
        "slot_s": book.slot_s,
        "values": [[float(f"{value:.{DIGITS}g}") for value in row] for row in book.values.tolist()],
        "unbalanced": book.unbalanced,
    }


def _prices_from_json(kept: Mapping[str, Any]) -> PriceBook:
    lanes = tuple((cluster, kind) for cluster, kind in kept["lanes"])
    values = np.array(kept["values"], dtype=np.float64).reshape(len(lanes), -1 if lanes else 0)
    return PriceBook(lanes, kept["origin"], kept["slot_s"], values, kept["unbalanced"])
