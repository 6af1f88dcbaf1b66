"""Routes for policies: those in force, their versions, and what holds for a job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from carbon_sched.api.access import Operator, Reader, Submitter
from carbon_sched.api.context import Ctx
from carbon_sched.api.jobs import admitted
from carbon_sched.api.views import effective_view, policy_view
from carbon_sched.domain.errors import NotFound
from carbon_sched.service.access import visible
from carbon_sched.wire import EffectiveView, JobRequest, PolicyRequest, PolicyView, RollbackRequest

router = APIRouter(prefix="/v1")


@router.get("/policies")
def list_policies(context: Ctx, _caller: Reader) -> list[PolicyView]:
    """Every policy that can be followed: those that were applied, and the presets they do not replace."""
    with context.store.transaction(write=False) as tx:
        known, versions = context.policies.in_force(tx), tx.policies_in_force()
    applied = [policy_view(known.get(version.name), version) for version in versions]
    own = {version.name for version in versions}
    return applied + [policy_view(known.get(name), None) for name in context.preset_names() if name not in own]


@router.get("/policies/{name}")
def show_policy(name: str, context: Ctx, _caller: Reader) -> PolicyView:
    """One policy as it is in force, with its text."""
    with context.store.transaction(write=False) as tx:
        known, versions = context.policies.in_force(tx), tx.policy_versions(name)
    return policy_view(known.get(name), versions[0] if versions else None)


@router.get("/policies/{name}/versions")
def list_versions(name: str, context: Ctx, _caller: Reader) -> list[PolicyView]:
    """Every version of a policy that was applied, newest first, with its text."""
    with context.store.transaction(write=False) as tx:
        versions = tx.policy_versions(name)
    if not versions:
        raise NotFound(f"no policy {name!r} was ever applied. `carbon-sched policy list` shows those there are")
    return [policy_view(None, version) for version in versions]


@router.post("/policies")
def apply_policy(
    request: PolicyRequest,
    context: Ctx,
    caller: Operator,
    dry_run: Annotated[bool, Query()] = False,  # noqa: FBT002 - a query parameter
) -> PolicyView:
    """Put a file in force for every decision from now on; with `dry_run`, only say whether it could be.

    With `backtest_margin_ppm` the last weeks' jobs are replayed before and after, and a change that makes CO2e or
    deadline misses worse by more than that is refused.
    """
    content, margin = request["content"], request.get("backtest_margin_ppm")
    trial = None if margin is None else context.trial(content, margin)
    if dry_run:
        return policy_view(context.policies.check(content), None, trial)
    reason, after = request.get("reason", ""), request.get("after")
    version = context.policies.apply(content, by=caller.name, reason=reason, after=after, trial=trial)
    context.signals.decide.set()
    return policy_view(context.policies.now().get(version.name), version, trial)


@router.post("/policies/{name}/rollback")
def roll_back(name: str, request: RollbackRequest, context: Ctx, caller: Operator) -> PolicyView:
    """Put an earlier version in force again, as a new version."""
    reason = request.get("reason", "")
    version = context.policies.roll_back(name, to=request.get("to"), by=caller.name, reason=reason)
    context.signals.decide.set()
    return policy_view(context.policies.now().get(name), version)


@router.post("/policies/effective")
def effective_for_request(request: JobRequest, context: Ctx, caller: Submitter) -> EffectiveView:
    """What would hold for a job like this, and where each value comes from; nothing is stored."""
    spec = context.accept.spec(admitted(context, caller, request), submitter=caller.name)
    return effective_view(context.policies.now(), spec)


@router.get("/jobs/{job_id}/policy")
def effective_for_job(job_id: str, context: Ctx, caller: Reader) -> EffectiveView:
    """What holds for a job now, and where each value comes from."""
    with context.store.transaction(write=False) as tx:
        job, known = visible(tx, caller, job_id), context.policies.in_force(tx)
    return effective_view(known, job.spec)
