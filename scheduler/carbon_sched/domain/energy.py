"""Energy spans: joules of one device for one owner, with the evidence behind them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class SourceClass(str, Enum):
    """How the joules were found, best first."""

    COUNTER = "counter"
    INTEGRATED = "integrated"
    ESTIMATED = "estimated"


class Reporter(str, Enum):
    """Who wrote the evidence: the job's own uid, or a separately owned machine meter."""

    SELF_REPORTED = "self-reported"
    INDEPENDENT = "independent"


IDLE = "idle"
UNATTRIBUTED = "unattributed"


@dataclass(frozen=True)
class EnergySpan:
    """Energy of one device for one owner over `[start, end)`.

    `owner` is an attempt id, `idle` or `unattributed`. `error_ppm` bounds the meter's relative error. `segment_sha256`
    is the hash of the raw journal segment the span was read from.
    """

    owner: str
    cluster: str
    machine: str
    device: str
    device_kind: str
    start: datetime
    end: datetime
    energy_uj: int
    source: SourceClass
    reporter: Reporter
    scope: str
    rule: str
    error_ppm: int
    segment_sha256: str
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.energy_uj < 0 or self.end <= self.start:
            message = f"not an energy span: {self.energy_uj} uJ over [{self.start!r}, {self.end!r})"
            raise ValueError(message)
