"""Budgets of CO2e or energy: who they are for, over which period, and what happens when one is used up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from carbon_sched.domain.time import UTC

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from carbon_sched.policy.matching import Selector


class Over(str, Enum):
    """What becomes of a job for which a budget has no room."""

    WARN = "warn"
    HOLD = "hold"
    APPROVE = "approve"
    DENY = "deny"


class Every(str, Enum):
    """How often a budget begins anew, at midnight of its own time zone."""

    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


@dataclass(frozen=True)
class Budget:
    """A quota of expected, then metered emissions or IT energy; a limit that is None does not limit.

    `key` is unique over all policies: `POLICY/NAME`.
    """

    key: str
    of: Selector
    every: Every
    zone: ZoneInfo
    limit_ug: int | None
    limit_uj: int | None
    over: Over

    def period(self, at: datetime) -> tuple[datetime, datetime]:
        """First instant of the period that holds `at`, and of the next one; both in UTC."""
        day = at.astimezone(self.zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if self.every is Every.WEEK:
            begin = day - timedelta(days=day.weekday())
            return begin.astimezone(UTC), (begin + timedelta(days=7)).astimezone(UTC)
        months = {Every.MONTH: 1, Every.QUARTER: 3, Every.YEAR: 12}[self.every]
        first = (day.month - 1) // months * months
        begin = day.replace(month=first + 1, day=1)
        after = first + months
        end = begin.replace(year=begin.year + after // 12, month=after % 12 + 1)
        return begin.astimezone(UTC), end.astimezone(UTC)
