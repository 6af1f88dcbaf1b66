"""Decisions: where and when, with the alternatives and the numbers that were compared."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.domain.intensity import Grade


class Verdict(str, Enum):
    """What was decided."""

    PLACE = "place"
    DELAY = "delay"
    HOLD = "hold"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Candidate:
    """One cluster at its best allowed start, or the reason why it is out.

    Energies and emissions are expectations: `energy_kwh` of IT equipment, `co2e_g` including PUE (and transfer where
    data must move). `now_co2e_g` is the same run started at once on this cluster.
    """

    cluster: str
    zone: str
    feasible: bool
    reason: str = ""
    start: datetime | None = None
    end: datetime | None = None
    energy_kwh: float | None = None
    co2e_g: float | None = None
    now_co2e_g: float | None = None
    intensity_g_per_kwh: float | None = None
    pue: float | None = None
    grade: Grade | None = None


@dataclass(frozen=True)
class Decision:
    """The outcome for one job: start `start` on `cluster` (PLACE now, DELAY later), wait (HOLD), or never (REFUSE).

    `reason` is one sentence a user can act on. `references` holds expected gCO2e of the stated reference choices
    (`run-now-home`, `best-fixed`, `run-now-here`) by the identical method.
    """

    job_id: str
    verdict: Verdict
    decided_at: datetime
    reason: str
    cluster: str | None = None
    start: datetime | None = None
    candidates: tuple[Candidate, ...] = ()
    expected_energy_kwh: float | None = None
    expected_co2e_g: float | None = None
    expected_duration_s: float | None = None
    expected_power_w: float | None = None
    estimate_source: str = ""
    references: tuple[tuple[str, float], ...] = ()
    policy: str = ""
    next_look: datetime | None = None
