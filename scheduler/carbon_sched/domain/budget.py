"""What was taken from a budget: reserved when a job is placed, settled by what it really used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class BudgetLine:
    """One attempt's part of one budget's period, in micrograms of CO2e and microjoules of IT energy."""

    attempt_id: str
    budget: str
    period_start: datetime
    reserved_ug: int
    reserved_uj: int


@dataclass(frozen=True)
class BudgetUse:
    """Sums over one period of a budget: what is settled, and what is reserved for attempts not settled yet."""

    settled_ug: int = 0
    settled_uj: int = 0
    reserved_ug: int = 0
    reserved_uj: int = 0
    open_lines: int = 0

    @property
    def ug(self) -> int:
        """CO2e that is spoken for."""
        return self.settled_ug + self.reserved_ug

    @property
    def uj(self) -> int:
        """IT energy that is spoken for."""
        return self.settled_uj + self.reserved_uj
