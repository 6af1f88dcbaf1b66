"""Routes for budgets: how far each is used, and approving a job that one of them holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from carbon_sched.api.access import Operator, Reader
from carbon_sched.api.context import Ctx
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.service.access import visible
from carbon_sched.wire import Approval, ApproveRequest, BudgetView

if TYPE_CHECKING:
    from carbon_sched.service.budgets import Standing

router = APIRouter(prefix="/v1")


@router.get("/budgets")
def list_budgets(context: Ctx, caller: Reader) -> list[BudgetView]:
    """Every budget that counts jobs of the caller's teams, in its present period."""
    return [
        _view(one)
        for one in context.budgets.standings()
        if caller.teams is None or not caller.teams.isdisjoint(one.budget.of.values.get("team", caller.teams))
    ]


@router.post("/jobs/{job_id}/approve")
def approve(job_id: str, request: ApproveRequest, context: Ctx, caller: Operator) -> Approval:
    """Let a waiting job exceed the budgets that hold it, in their present periods; a fact of the ledger."""
    with context.store.transaction(write=False) as tx:
        visible(tx, caller, job_id)
    approved = context.budgets.approve(job_id, by=caller.name, reason=request["reason"])
    context.signals.decide.set()
    return {"job_id": job_id, "budgets": approved}


def _view(one: Standing) -> BudgetView:
    budget, use = one.budget, one.use
    return {
        "budget": budget.key,
        "team": sorted(budget.of.values.get("team", ())),
        "project": sorted(budget.of.values.get("project", ())),
        "model": sorted(budget.of.values.get("model", ())),
        "every": budget.every.value,
        "start": to_rfc3339(one.start),
        "end": to_rfc3339(one.end),
        "over": budget.over.value,
        "limit_ug": budget.limit_ug,
        "settled_ug": use.settled_ug,
        "reserved_ug": use.reserved_ug,
        "forecast_ug": one.forecast_ug,
        "limit_uj": budget.limit_uj,
        "settled_uj": use.settled_uj,
        "reserved_uj": use.reserved_uj,
        "forecast_uj": one.forecast_uj,
    }
