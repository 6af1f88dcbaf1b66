"""A team's own cases for its policies: given this job and this grid, expect it placed there, delayed, held or refused.

Each is decided by `service.decide`, the code that decides in production, on the clusters and the grid of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from carbon_sched.domain.decision import Decision, Verdict
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.intensity import Basis, Grade, Kind, Outlook, Perimeter, Reading, Signal
from carbon_sched.domain.time import UTC, from_rfc3339, to_rfc3339
from carbon_sched.options.given import Given
from carbon_sched.options.request import build, known_options
from carbon_sched.policy.document import read_document
from carbon_sched.policy.problems import validated
from carbon_sched.policy.schema import Duration, Form, duration_s
from carbon_sched.service.decide import Decide
from carbon_sched.service.economics import Economics
from carbon_sched.service.estimates import Estimates
from carbon_sched.service.fleet import Fleet
from carbon_sched.service.outlooks import Outlooks
from carbon_sched.service.planner import OwnPlanner
from carbon_sched.service.policies import Policies, together
from carbon_sched.service.signals import Signals
from carbon_sched.service.spec import job_spec
from carbon_sched.service.statements import Statements
from carbon_sched.simulate.clusters_file import ClusterForm
from carbon_sched.simulate.feed import AverageOnly
from carbon_sched.simulate.memory import Memory
from carbon_sched.simulate.replay import Fixed, Unlimited
from carbon_sched.simulate.sizing import roomy
from carbon_sched.simulate.world import Fields, Machines, VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import JobSpec
    from carbon_sched.policy.model import Policy
    from carbon_sched.ports import Store

LONG_AGO, FAR_AHEAD = timedelta(days=400), timedelta(days=400)
VERDICTS = {"placed": Verdict.PLACE, "delayed": Verdict.DELAY, "held": Verdict.HOLD, "refused": Verdict.REFUSE}
ENTRYPOINT = "python job.py"


def _instant(text: str) -> str:
    from_rfc3339(text)
    return text


def _from(text: Any) -> float:
    """Seconds of the `at` of a step; `now` is 0."""
    return 0.0 if text == "now" else duration_s(text)


class StepForm(Form):
    """An intensity from a moment on."""

    at: Annotated[float, BeforeValidator(_from)] = Field(description="How long after the case begins: now, or 6h.")
    g_per_kwh: float = Field(ge=0, le=2500, description="Grams of CO2e per kWh: a number.")


class ExpectForm(Form):
    """What must come out; what is left out may be anything."""

    verdict: Literal["placed", "delayed", "held", "refused"] = Field(
        description="placed (starts at once), delayed, held (no cluster can take it yet) or refused."
    )
    cluster: str | None = Field(None, description="On which cluster: its name.")
    delay_at_most: Duration | None = Field(None, description="The longest delay that is right: a duration like 6h.")
    delay_at_least: Duration | None = Field(None, description="The shortest one: a duration like 1h.")
    reason: str | None = Field(None, min_length=1, description="Words that the reason must hold.")


class CaseForm(Form):
    """One case."""

    name: str = Field(min_length=1, max_length=200, description="What it shows, in a line.")
    job: dict[str, Any] = Field(description="The job, with the keys of a job.yaml: {team: vision, duration: 1h}.")
    expect: ExpectForm = Field(description="What must come out, as a mapping.")


class CasesForm(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    api_version: Literal["carbon-sched/v1"] = Field(alias="apiVersion", description="Write carbon-sched/v1.")
    at: Annotated[str, AfterValidator(_instant)] = Field(
        "2026-03-03T12:00:00Z", description="When the cases begin: an instant like 2026-03-03T12:00:00Z, in quotes."
    )
    clusters: list[ClusterForm] = Field(min_length=1, description="The clusters, as for a backtest.")
    grid: dict[str, float | list[StepForm]] = Field(
        description="Intensity by zone: a number, or a list of {at, g_per_kwh} from now on."
    )
    cases: list[CaseForm] = Field(min_length=1, max_length=1000, description="The cases, as a list.")


@dataclass(frozen=True)
class Outcome:
    """One case: what was decided, and what is wrong with it; nothing wrong, and it passed."""

    name: str
    decision: Decision
    problems: tuple[str, ...]


def run_cases(file: Path, policy_set: Callable[[Store, VirtualClock], Policies]) -> list[Outcome]:
    """Decide every case of a file.

    Raises InvalidFile for a file that does not have the form, InvalidInput for a job that could not be submitted, a
    zone without intensity, and steps that are out of order.
    """
    form = validated(read_document(file), CasesForm)
    start = from_rfc3339(form.at)
    clusters = [one.cluster() for one in form.clusters]
    grid = _Grid(form, start)
    for cluster in clusters:
        grid.require(cluster.zone)
    return [_decided(case, clusters, grid, start, policy_set) for case in form.cases]


def _decided(
    case: CaseForm,
    clusters: Sequence[Cluster],
    grid: _Grid,
    start: datetime,
    policy_set: Callable[[Store, VirtualClock], Policies],
) -> Outcome:
    spec = _spec(case, start)
    clusters = [cluster if cluster.pools else roomy(cluster, [spec.resources]) for cluster in clusters]
    clock, memory = VirtualClock(start), Memory()
    store = cast("Store", memory)  # what deciding uses of the port is all there, as in a replay
    outlooks = grid.outlooks([cluster.zone for cluster in clusters], start, start)
    machines = {c.name: Machines(c, clock, outlooks[c.zone]) for c in clusters}
    fleet, signals = Fleet(store, Fields(machines), clock, Signals()), Signals()
    for cluster in clusters:
        fleet.put(cluster)
    policies = policy_set(store, clock)
    statements, estimates = Statements(store), Estimates(store)
    budgets, economics = Unlimited(store, policies, statements, clock), Economics(statements)
    decide = Decide(store, fleet, Outlooks(grid), estimates, policies, clock, signals, budgets, economics, OwnPlanner())
    decision = decide.preview(spec)
    return Outcome(case.name, decision, tuple(_problems(case.expect, decision, start)))


def _spec(case: CaseForm, start: datetime) -> JobSpec:
    """The job as it would be submitted."""
    for key in sorted(case.job.keys() - known_options()):
        remedy = f"Known are: {', '.join(sorted(known_options()))}"
        raise InvalidInput(f"job of {case.name!r}", key, "is not an option of a job", remedy)
    options = {key: Given(value, f"job.{key} of {case.name!r}") for key, value in case.job.items()}
    request = build(ENTRYPOINT, options, start, UTC).request
    return job_spec(request, submitter="test", now=start)


def _problems(expect: ExpectForm, decision: Decision, start: datetime) -> list[str]:
    """What differs from what was expected, in words."""
    found = []
    if decision.verdict is not VERDICTS[expect.verdict]:
        was = next(name for name, verdict in VERDICTS.items() if verdict is decision.verdict)
        found.append(f"expected {expect.verdict}, was {was}")
    if expect.cluster is not None and decision.cluster != expect.cluster:
        found.append(f"expected on {expect.cluster}, was {decision.cluster or 'nowhere'}")
    delay_s = (decision.start - start).total_seconds() if decision.start else 0.0
    shown = timedelta(seconds=round(delay_s))
    if expect.delay_at_most is not None and delay_s > expect.delay_at_most:
        found.append(f"expected a delay of at most {timedelta(seconds=expect.delay_at_most)}, was {shown}")
    if expect.delay_at_least is not None and delay_s < expect.delay_at_least:
        found.append(f"expected a delay of at least {timedelta(seconds=expect.delay_at_least)}, was {shown}")
    if expect.reason is not None and expect.reason not in decision.reason:
        found.append(f"expected a reason with {expect.reason!r}")
    return found


class _Grid(AverageOnly):
    """Implements `service.outlooks.Grid` on a file's steps: what holds first held before, what holds last stays."""

    def __init__(self, form: CasesForm, start: datetime) -> None:
        self._start = start
        self._steps: dict[str, list[tuple[float, float]]] = {}
        for zone, given in form.grid.items():
            steps = [(0.0, given)] if isinstance(given, float) else [(step.at, step.g_per_kwh) for step in given]
            times = [at for at, _ in steps]
            if not times or times[0] != 0 or sorted(set(times)) != times:
                remedy = "Begin with {at: now, ...} and let each step be later than the one before"
                raise InvalidInput(f"grid.{zone}", times, "are no steps in order", remedy)
            self._steps[zone] = steps

    def require(self, zone: str) -> None:
        """Raise InvalidInput for a zone of which the file says nothing."""
        if zone not in self._steps:
            raise InvalidInput("grid", zone, "has no intensity", f"Add `{zone}: NUMBER` to grid")

    def outlooks(self, zones: Sequence[str], now: datetime, until: datetime) -> dict[str, Outlook]:
        """One per zone."""
        del until
        return {zone: Outlook(zone, tuple(self.actual(zone, now, now + FAR_AHEAD, now))) for zone in zones}

    def actual(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Readings that tile `[start, end)`."""
        steps = self._steps[zone]
        edges = [self._start - LONG_AGO, *(self._start + timedelta(seconds=at) for at, _ in steps[1:])]
        pieces = zip(edges, [*edges[1:], self._start + 2 * FAR_AHEAD], (grams for _, grams in steps), strict=True)
        return [
            self._reading(zone, max(begin, start), min(finish, end), grams, now)
            for begin, finish, grams in pieces
            if max(begin, start) < min(finish, end)
        ]

    def _reading(self, zone: str, start: datetime, end: datetime, grams: float, now: datetime) -> Reading:
        ahead = start > now
        return Reading(
            zone=zone,
            start=start,
            end=end,
            intensity_mg_per_kwh=round(grams * 1000),
            signal=Signal.AVERAGE,
            basis=Basis.LIFECYCLE,
            perimeter=Perimeter.CONSUMPTION,
            kind=Kind.FORECAST if ahead else Kind.MEASURED,
            grade=Grade.PROVIDER_FORECAST if ahead else Grade.LIVE,
            provider="test",
            issued_at=now,
            fetched_at=now,
        )


def told(outcome: Outcome) -> Mapping[str, Any]:
    """An outcome in JSON types."""
    decision = outcome.decision
    return {
        "name": outcome.name,
        "passed": not outcome.problems,
        "problems": list(outcome.problems),
        "verdict": next(name for name, verdict in VERDICTS.items() if verdict is decision.verdict),
        "cluster": decision.cluster,
        "start": to_rfc3339(decision.start) if decision.start else None,
        "reason": decision.reason,
        "policy": decision.policy,
    }


def of_files(policies: Sequence[Policy], preset: Callable[[str], Policy]) -> Callable[[Store, VirtualClock], Policies]:
    """Policies as if just these had been applied, beside the presets."""

    def make(store: Store, clock: VirtualClock) -> Policies:
        return Fixed(store, together(policies, preset), clock)

    return make
