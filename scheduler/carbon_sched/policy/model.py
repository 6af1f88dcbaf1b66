"""A policy as the planner and the service see it: frozen values, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from carbon_sched.domain.intensity import Grade

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.domain.job import Phase


class Declared(str, Enum):
    """What becomes of flexibility that a job declares itself (a deadline, a longest delay)."""

    HONOUR = "honour"
    IGNORE = "ignore"


class OnMissing(str, Enum):
    """What to do about time when there is no live signal and no forecast for a zone."""

    FALLBACK = "fallback"
    RUN_NOW = "run-now"


@dataclass(frozen=True)
class Patience:
    """How long jobs of one phase may wait for a cleaner hour.

    `max_delay_s` is granted to a job that declares nothing itself; 0 places it at once. `declared` says whether a
    job's own word is used instead.
    """

    max_delay_s: float = 0.0
    declared: Declared = Declared.HONOUR


@dataclass(frozen=True)
class Policy:
    """The rules for one job.

    `minimum_gain` is the share of the expected CO2e (0.03 = 3 %) that waiting or moving must promise to save;
    `digest` is the SHA-256 of the file's bytes in hex, `source` the file's path or name, for people.
    """

    name: str
    description: str = ""
    default: Patience = Patience()
    phases: Mapping[Phase, Patience] = field(default_factory=dict)
    minimum_gain: float = 0.0
    on_missing: OnMissing = OnMissing.FALLBACK
    digest: str = ""
    source: str = ""

    @property
    def label(self) -> str:
        """Name and version, as stored with every decision: `balanced@1f0c9a7b2d3e`."""
        return f"{self.name}@{self.digest[:12]}" if self.digest else self.name

    def patience(self, phase: Phase) -> Patience:
        """The rule for a phase, or the default where the policy has none of its own."""
        return self.phases.get(phase, self.default)

    def delay_s(self, phase: Phase, declared_s: float | None) -> float:
        """Longest delay, in seconds, of a job that declared `declared_s` itself (None: it declared nothing)."""
        patience = self.patience(phase)
        if declared_s is None or patience.declared is Declared.IGNORE:
            return patience.max_delay_s
        return max(0.0, declared_s)

    def may_wait_on(self, grade: Grade) -> bool:
        """Whether a delay may be decided on data of this grade; without forecasts only if the policy falls back."""
        return self.on_missing is OnMissing.FALLBACK or grade.rank <= Grade.OWN_FORECAST.rank
