"""Budget lines and approvals in the database. A line is inserted once and settled once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, case, func, insert, or_, select, update

from carbon_sched.domain.budget import BudgetUse
from carbon_sched.store.tables import OPEN, attempts, budget_approvals, budget_lines

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement

    from carbon_sched.domain.budget import BudgetLine
    from carbon_sched.store.session import Session

_UNSETTLED = budget_lines.c.settled_ug.is_(None)
_KNOWN = attempts.c.collected | or_(attempts.c.accepted.is_(None), ~attempts.c.accepted)
_DUE = (
    select(budget_lines.c.attempt_id)
    .join(attempts, attempts.c.attempt_id == budget_lines.c.attempt_id)
    .where(_UNSETTLED, ~OPEN, _KNOWN)
    .distinct()
    .order_by(budget_lines.c.attempt_id)
)
_SETTLE = (
    update(budget_lines)
    .where(budget_lines.c.attempt_id == bindparam("its_id"), _UNSETTLED)
    .values(settled_ug=bindparam("ug"), settled_uj=bindparam("uj"))
)


_LINES = select(
    budget_lines.c.reserved_ug, budget_lines.c.reserved_uj, budget_lines.c.settled_ug, budget_lines.c.settled_uj
).where(budget_lines.c.budget == bindparam("budget"), budget_lines.c.period_start == bindparam("period_start"))
_lines = _LINES.subquery()
_open = _lines.c.settled_ug.is_(None)


def _total(column: ColumnElement[int], *, of_open: bool) -> ColumnElement[int]:
    counted = _open if of_open else ~_open
    return func.coalesce(func.sum(case((counted, column), else_=0)), 0)


_USE = select(
    _total(_lines.c.settled_ug, of_open=False).label("settled_ug"),
    _total(_lines.c.settled_uj, of_open=False).label("settled_uj"),
    _total(_lines.c.reserved_ug, of_open=True).label("reserved_ug"),
    _total(_lines.c.reserved_uj, of_open=True).label("reserved_uj"),
    func.coalesce(func.sum(case((_open, 1), else_=0)), 0).label("open_lines"),
)
_APPROVED = select(budget_approvals.c.job_id).where(
    and_(*(budget_approvals.c[name] == bindparam(name) for name in ("job_id", "budget", "period_start")))
)


class BudgetRows:
    """The part of `ports.Transaction` about budgets."""

    _db: Session

    def reserve_budget(self, line: BudgetLine) -> None:
        """Insert; Conflict for a second line of an attempt in the same budget."""
        self._db.write(insert(budget_lines), vars(line))

    def unsettled_attempts(self) -> list[str]:
        """By id."""
        return [row.attempt_id for row in self._db.rows(_DUE)]

    def settle_budgets(self, attempt_id: str, *, ug: int, uj: int) -> int:
        """How many lines were settled; a second time none."""
        return self._db.write(_SETTLE, {"its_id": attempt_id, "ug": ug, "uj": uj})

    def budget_use(self, budget: str, period_start: datetime) -> BudgetUse:
        """Sums of one period; sums of integers are exact on both databases."""
        row = self._db.first(_USE, {"budget": budget, "period_start": period_start})
        return BudgetUse() if row is None else BudgetUse(*(int(total) for total in row))

    def approve_budget(
        self, job_id: str, budget: str, period_start: datetime, *, at: datetime, by: str, reason: str
    ) -> None:
        """Insert; Conflict when it was approved before."""
        row = {"job_id": job_id, "budget": budget, "period_start": period_start}
        self._db.write(insert(budget_approvals), row | {"approved_at": at, "approved_by": by, "reason": reason})

    def budget_approved(self, job_id: str, budget: str, period_start: datetime) -> bool:
        """Whether a person let this job exceed this budget in this period."""
        where = {"job_id": job_id, "budget": budget, "period_start": period_start}
        return self._db.first(_APPROVED, where) is not None
