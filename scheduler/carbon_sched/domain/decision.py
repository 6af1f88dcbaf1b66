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
    data must move). Of these `overhead_g` are nodes that come for the job, `transfer_g` data on its way. `now_co2e_g`
    is the same run started at once on this cluster. `embodied_g` is the lowest and the highest published figure for the
    share of the GPUs' manufacture, beside `co2e_g` and not compared; None where none is published. `room_g_per_kwh` is
    what the last room of the starting hour is worth to the waiting jobs; None while there is enough.
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
    overhead_g: float = 0.0
    transfer_g: float = 0.0
    embodied_g: tuple[float, float] | None = None
    room_g_per_kwh: float | None = None


@dataclass(frozen=True)
class StartCost:
    """Expected grams of a run that starts at `start`; low and high if every hour came at its 10 % or 90 % quantile."""

    start: datetime
    co2e_g: float
    low_g: float
    high_g: float


@dataclass(frozen=True)
class Decision:
    """The outcome for one job: start `start` on `cluster` (PLACE now, DELAY later), wait (HOLD), or never (REFUSE).

    `reason` is one sentence a user can act on. `references` holds expected gCO2e of the stated reference choices
    (`run-now-home`, `best-fixed`, `run-now-here`) by the identical method. `curve` is what every start on the chosen
    cluster would emit. A job that may wait starts by `latest_start`; with a deadline, a run from then on still ends in
    time with the probability `deadline_confidence`. It knew the first `amendments` of the job's amendments.
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
    curve: tuple[StartCost, ...] = ()
    latest_start: datetime | None = None
    deadline_confidence: float | None = None
    amendments: int = 0
