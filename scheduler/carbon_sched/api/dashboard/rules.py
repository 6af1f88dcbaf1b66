"""The page Policies: what holds and since when, what changed between versions, and how well forecasts did."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import partial

from fastapi import APIRouter, Request, Response

from carbon_sched.api import policies
from carbon_sched.api.access import Operator, Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.dashboard.answers import answer
from carbon_sched.api.dashboard.pages import PageRoute, render, seen
from carbon_sched.api.grid import NOW
from carbon_sched.api.views import effective_view, skill_view
from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.domain.job import JobSpec, Phase
from carbon_sched.ledger.book import Book
from carbon_sched.ledger.records import Body
from carbon_sched.wire import PolicyView, SkillView

router = APIRouter(route_class=PageRoute)


@router.get("/policies", include_in_schema=False)
def show(
    request: Request,
    context: Ctx,
    caller: Reader,
    name: str | None = None,
    to: int | None = None,
    team: str = "",
    project: str = "",
    model: str = "",
    phase: Phase = Phase.OTHER,
) -> Response:
    """The page; of policy `name` also its versions, what changed up to version `to` (the newest), and what holds.

    What holds is told for a job of that team, project, model and phase.
    """
    listed = policies.list_policies(context, caller)
    chosen = next((one for one in listed if one["name"] == name), listed[0] if listed and not name else None)
    if name and chosen is None:
        raise NotFound(f"no policy is called {name!r}")
    versions = _versions(context, chosen, caller)
    newer = next((one for one in versions if one["version"] == to), versions[0] if versions else None)
    older = _before(versions, newer)
    trials = answer(context, ("trials",), partial(context.statements.of, (), others=True), _trials)
    policy = chosen["name"] if chosen else ""
    job = JobSpec("", "", team=team, project=project, model=model, phase=phase, policy=policy)
    return render(
        request, caller, "policies.html", now=seen(context),
        policies=listed, chosen=chosen, versions=versions, newer=newer, older=older,
        diff=list(changes(older["content"] or "" if older else "", newer["content"] or "")) if newer else [],
        trials=trials.value if trials else {}, phases=[one.value for one in Phase],
        job={"team": team, "project": project, "model": model, "phase": phase.value},
        effective=effective_view(context.policies.now(), job),
    )  # fmt: skip


@router.get("/policies/backtest", include_in_schema=False)
def backtest(request: Request, context: Ctx, caller: Operator, name: str, version: int) -> Response:
    """What a version would have done to the jobs of the last weeks, beside what is in force: computed now."""
    versions = policies.list_versions(name, context, caller)
    content = next((one["content"] for one in versions if one["version"] == version), None)
    if content is None:
        raise NotFound(f"policy {name!r} has no version {version}")
    found, problem = None, ""
    try:
        found = context.trial(content, 0)
    except Conflict as error:  # there is nothing to try it on
        problem = str(error)
    return render(request, caller, "backtest.html", now=seen(context), found=found, problem=problem)


def _trials(book: Book) -> dict[int, Body]:
    """The backtests that policies were applied with, by version."""
    return {one["version"]: one["backtest"] for one in book.policies if one.get("backtest")}


@router.get("/policies/skill", include_in_schema=False)
def skill(request: Request, context: Ctx, caller: Reader) -> Response:
    """How our forecasts did in each zone of the last weeks: a part of its own, since providers are asked for it."""
    found = context.intensities.expected([], NOW)
    rows: list[tuple[str, SkillView | None]] = [(zone, skill_view(one)) for zone, one in sorted(found.records.items())]
    return render(request, caller, "skill.html", now=seen(context), rows=rows, notes=found.notes)


def _versions(context: Context, chosen: PolicyView | None, caller: Reader) -> list[PolicyView]:
    """Newest first; a preset as it is shipped has none."""
    if chosen is None or chosen["version"] is None:
        return []
    return policies.list_versions(chosen["name"], context, caller)


def _before(versions: list[PolicyView], newer: PolicyView | None) -> PolicyView | None:
    if newer is None:
        return None
    number = versions.index(newer)
    return versions[number + 1] if number + 1 < len(versions) else None


def changes(before: str, after: str) -> Iterator[tuple[str, str]]:
    """Lines of a difference, each with its kind: `add`, `del`, `at` (where) or empty."""
    for line in difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3):
        if not line.startswith(("---", "+++")):
            yield {"+": "add", "-": "del", "@": "at"}.get(line[0], ""), line
