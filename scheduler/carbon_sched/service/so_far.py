"""What energy that is not booked yet has emitted, by the readings known now: for progress and figures that run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.emissions import co2e_ug, split_at_readings
from carbon_sched.domain.intensity import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.ports import Clock
    from carbon_sched.service.outlooks import Outlooks
    from carbon_sched.service.statements import Statements

Stretch = tuple["datetime", "datetime", int]
"""Microjoules from one instant to another."""


class SoFar:
    """Zone and PUE are those of the attempt's opening, as in its receipt."""

    def __init__(self, outlooks: Outlooks, statements: Statements, clock: Clock) -> None:
        self._outlooks, self._statements, self._clock = outlooks, statements, clock

    def co2e_ug(self, attempt_id: str, used: Sequence[Stretch]) -> int | None:
        """Micrograms CO2e of what an attempt used; None where an intensity is not known."""
        if not used:
            return 0
        opened, now = self._statements.attempt(attempt_id), self._clock.now()
        start, end = min(one[0] for one in used), max(one[1] for one in used)
        found = self._outlooks.actual(opened.zone, start, end, now)
        readings = [reading for reading in found if reading.signal is Signal.AVERAGE]
        total = 0
        for piece in (piece for one in used for piece in split_at_readings(*one, readings)):
            if piece.reading is None:
                return None
            total += co2e_ug(piece.energy_uj, opened.pue_ppm, piece.reading.intensity_mg_per_kwh)
        return total
