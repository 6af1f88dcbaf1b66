"""Budgets kept: room is asked for when a job is placed, reserved with its attempt, and settled by what it used.

Asking and reserving happen in the transaction that opens the attempt, and writers run one after another, so two jobs
never take the same room. What is overdrawn is only what metered figures exceed expected ones by, what was approved, and
what a budget that only warns lets pass.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from carbon_sched.domain.budget import BudgetLine, BudgetUse
from carbon_sched.domain.decision import Verdict
from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import JobState
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import UG_PER_G, UJ_PER_KWH
from carbon_sched.ledger.account import actual
from carbon_sched.policy.budget import Over
from carbon_sched.policy.matching import Selected

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.domain.decision import Decision
    from carbon_sched.domain.job import Job
    from carbon_sched.policy.budget import Budget
    from carbon_sched.ports import Clock, Store, Transaction
    from carbon_sched.service.policies import Policies, PolicySet
    from carbon_sched.service.statements import Statements

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """One budget in its present period, and what it will come to if it goes on as so far.

    `forecast_ug` and `forecast_uj` extend what was used so far to the whole period, by time; None on its first day.
    """

    budget: Budget
    start: datetime
    end: datetime
    use: BudgetUse
    forecast_ug: int | None
    forecast_uj: int | None


class Budgets:
    """Admits, reserves, settles, approves."""

    def __init__(self, store: Store, policies: Policies, statements: Statements, clock: Clock) -> None:
        self._store, self._policies, self._statements, self._clock = store, policies, statements, clock

    def admit(self, tx: Transaction, job: Job, decision: Decision) -> Decision:
        """The decision itself where every budget has room, else what the strictest budget makes of it."""
        if decision.verdict is not Verdict.PLACE:
            return decision
        ug, uj = _expected(decision)
        for budget in self._of(tx, job):
            short = self._short(tx, job, budget, ug, uj, decision.decided_at)
            if short and budget.over is Over.WARN:
                decision = replace(decision, reason=f"{decision.reason}; {short}")
            elif short:
                verdict = Verdict.REFUSE if budget.over is Over.DENY else Verdict.HOLD
                return replace(decision, verdict=verdict, cluster=None, start=None, reason=short)
        return decision

    def reserve(self, tx: Transaction, job: Job, attempt_id: str, decision: Decision) -> None:
        """Take the expected figures from every budget of the job, in the period of its start."""
        ug, uj = _expected(decision)
        for budget in self._of(tx, job):
            start, _ = budget.period(decision.decided_at)
            tx.reserve_budget(BudgetLine(attempt_id, budget.key, start, ug, uj))

    def settle(self) -> int:
        """Replace the reservations of attempts whose energy is known by that; returns how many lines were settled."""
        with self._store.transaction(write=False) as tx:
            due = tx.unsettled_attempts()
        used = {attempt_id: self._used(attempt_id) for attempt_id in due}
        if not used:
            return 0
        with self._store.transaction() as tx:
            return sum(tx.settle_budgets(attempt_id, ug=ug, uj=uj) for attempt_id, (ug, uj) in used.items())

    def standings(self) -> list[Standing]:
        """Every budget in force, by key."""
        now = self._clock.now()
        with self._store.transaction(write=False) as tx:
            budgets = self._policies.in_force(tx).budgets
            return [self._standing(tx, budget, now) for budget in budgets]

    def approve(self, job_id: str, *, by: str, reason: str) -> list[str]:
        """Let a waiting job exceed the budgets that hold it, in their present periods; returns their keys.

        Raises Conflict where no budget holds it.
        """
        now = self._clock.now()
        with self._store.transaction() as tx:
            job, decision = tx.job(job_id), tx.decision(job_id)
            if job.state is not JobState.QUEUED or decision is None:
                raise Conflict(f"job {job_id} is {job.state.value}; only a job that waits for a budget can be approved")
            ug, uj = _expected(decision)
            held = [b for b in self._of(tx, job) if b.over is not Over.WARN and self._short(tx, job, b, ug, uj, now)]
            if not held:
                raise Conflict(f"no budget holds job {job_id}: {job.reason}")
            for budget in held:
                start, _ = budget.period(now)
                tx.approve_budget(job_id, budget.key, start, at=now, by=by, reason=reason)
                body = {
                    "job": job_id,
                    "budget": budget.key,
                    "period_start": to_rfc3339(start),
                    "by": tx.pseudonym(by),
                    "reason": reason,
                }
                tx.append_fact(Fact(FactKind.BUDGET_APPROVED, now, body))
        return [budget.key for budget in held]

    # -----------------------------------------------------------------------------------------------

    def _of(self, tx: Transaction, job: Job) -> list[Budget]:
        """Budgets of a job, those that deny first, those that warn last."""
        known: PolicySet = self._policies.in_force(tx)
        if not known.budgets:
            return []
        selected = Selected.of(job.spec)
        strictest = list(reversed(Over))
        return sorted((b for b in known.budgets if b.of.matches(selected)), key=lambda b: strictest.index(b.over))

    def _short(self, tx: Transaction, job: Job, budget: Budget, ug: int, uj: int, at: datetime) -> str:
        """Why a budget has no room for this much more; empty when it has, or when a person approved."""
        start, end = budget.period(at)
        use = tx.budget_use(budget.key, start)
        problems = []
        if budget.limit_ug is not None and use.ug + ug > budget.limit_ug:
            problems.append(f"{_kg(use.ug)} of {_kg(budget.limit_ug)} kg CO2e are taken, this job needs {_kg(ug)}")
        if budget.limit_uj is not None and use.uj + uj > budget.limit_uj:
            problems.append(f"{_kwh(use.uj)} of {_kwh(budget.limit_uj)} kWh are taken, this job needs {_kwh(uj)}")
        if not problems or tx.budget_approved(job.job_id, budget.key, start):
            return ""
        remedies = {
            Over.WARN: "it runs all the same",
            Over.HOLD: f"held until it fits a cleaner hour, or {to_rfc3339(end)} begins the next period",
            Over.APPROVE: f"held until an operator says `carbon-sched budget approve {job.job_id}`",
            Over.DENY: f"refused; the next period begins {to_rfc3339(end)}",
        }
        return f"budget {budget.key}: {' and '.join(problems)}; {remedies[budget.over]}"

    def _standing(self, tx: Transaction, budget: Budget, now: datetime) -> Standing:
        start, end = budget.period(now)
        use = tx.budget_use(budget.key, start)
        passed = (now - start).total_seconds()
        if passed < 86_400:
            return Standing(budget, start, end, use, None, None)
        scale = (end - start).total_seconds() / passed
        return Standing(budget, start, end, use, round(use.ug * scale), round(use.uj * scale))

    def _used(self, attempt_id: str) -> tuple[int, int]:
        """Metered CO2e and IT energy; nothing where it never ran."""
        try:
            booked = actual(self._statements.attempt(attempt_id))
        except NotFound:
            log.warning("attempt has no facts; its budget lines are settled with nothing attempt=%s", attempt_id)
            return 0, 0
        return booked.co2e_ug, booked.energy_uj


def _expected(decision: Decision) -> tuple[int, int]:
    """Micrograms of CO2e and microjoules of IT energy."""
    co2e_g, energy_kwh = decision.expected_co2e_g or 0.0, decision.expected_energy_kwh or 0.0
    return round(co2e_g * UG_PER_G), round(energy_kwh * UJ_PER_KWH)


def _kg(ug: int) -> str:
    return f"{ug / UG_PER_G / 1000:.6g}"


def _kwh(uj: int) -> str:
    return f"{uj / UJ_PER_KWH:.6g}"
