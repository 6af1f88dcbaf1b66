"""A policy file as it was applied: its text is kept, so that every decision's rules can be read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import PPM, UG_PER_G

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class PolicyVersion:
    """One application of one file; `version` counts over all policies, the highest of a name is in force.

    `applied_by` is a person's name as the server knows it, `restored` the version whose text a rollback brought back.
    """

    version: int
    name: str
    content: str
    applied_at: datetime
    applied_by: str
    reason: str = ""
    restored: int | None = None


@dataclass(frozen=True)
class Trial:
    """What a change of policies would have done to the jobs of `[since, until)`: a backtest of before and after.

    `left_out` jobs of that time could not be replayed. `late` counts jobs that missed what they were promised, or found
    no place. The change is worse where CO2e grows by more than `margin_ppm` of what it was, or lateness by more than
    `margin_ppm` of the jobs. `after_version` is the last policy version that it was compared with.
    """

    since: datetime
    until: datetime
    jobs: int
    left_out: int
    before_ug: int
    after_ug: int
    before_late: int
    after_late: int
    margin_ppm: int
    after_version: int

    @property
    def worse(self) -> bool:
        """Whether CO2e or deadline misses grow beyond the margin."""
        grown_ug, grown_late = self.after_ug - self.before_ug, self.after_late - self.before_late
        return grown_ug * PPM > self.margin_ppm * self.before_ug or grown_late * PPM > self.margin_ppm * self.jobs

    @property
    def told(self) -> str:
        """The figures, in a sentence."""
        change = f"{(self.after_ug / self.before_ug - 1):+.1%}" if self.before_ug else "from nothing"
        return (
            f"on {self.jobs} jobs from {to_rfc3339(self.since)[:10]} to {to_rfc3339(self.until)[:10]}: "
            f"{self.after_ug / UG_PER_G:.4g} g CO2e instead of {self.before_ug / UG_PER_G:.4g} ({change}), "
            f"{self.after_late} late instead of {self.before_late}; margin {self.margin_ppm / PPM:.3g}"
        )

    def body(self) -> dict[str, Any]:
        """As it stands in the ledger."""
        return {**vars(self), "since": to_rfc3339(self.since), "until": to_rfc3339(self.until)}
