"""One model's whole footprint: each stage of its making, its evaluation, and its inference so far.

The boundaries are those of the Green Software Foundation's SCI for AI: making is the provider's, inference the
consumer's. What making comes to for one query is shown beside the figure of inference, never in it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import NotFound
from carbon_sched.ledger.account import ALWAYS, Period
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import Used, selected
from carbon_sched.ledger.statement.elsewhere import imported
from carbon_sched.ledger.statement.scores import BOUNDARIES, CONSUMER, PROVIDER, amounts, embodied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.statement.model import Imported

PHASES = ("pretraining", "finetuning", "evaluation", "inference-batch", "inference-online", "other")


@dataclass(frozen=True)
class Stage:
    """What one stage used, every attempt of it.

    Embodied is that of hardware whose figure is known; of `embodied_unknown` attempts it is not.
    """

    phase: str
    stage: str
    jobs: int
    attempts: int
    energy_uj: int
    facility_uj: int
    covered_uj: int
    co2e_ug: int
    embodied_low_ug: int
    embodied_ug: int
    embodied_high_ug: int
    embodied_unknown: int


@dataclass(frozen=True)
class PerUnit:
    """Inference by one unit of work that its jobs counted: all they used, idle time too, over all they did.

    `making_ug` is what made the model, in all: divided by the same amount it is what each unit has to carry so far.
    """

    unit: str
    amount_millionths: int
    energy_uj: int
    co2e_ug: int
    embodied_ug: int
    making_ug: int


@dataclass(frozen=True)
class Lifecycle:
    """Stages in the order of a model's life; `making` and `inference` are sums of them (`evaluation` is of the making).

    `uncounted` are attempts of inference whose code counted no work: what they used is in no figure per unit.
    `imported` is what other tools said of this model: it is in no figure at all.
    """

    model: str
    stages: tuple[Stage, ...]
    making: Stage
    inference: Stage
    per_unit: tuple[PerUnit, ...]
    uncounted: tuple[str, ...]
    imported: tuple[Imported, ...]
    ledger_size: int
    ledger_head: str


def lifecycle(book: Book, model: str, period: Period = ALWAYS, *, team: str | None = None) -> Lifecycle:
    """The life cycle of `model`, as jobs (of one team, or of all) name it; NotFound where no job does."""
    selection = Selection(model=model, team=team, period=period)
    brought = imported(book, selection)
    if not brought and not any(job.model == model and team in (None, job.team) for job in book.jobs.values()):
        raise NotFound(f"no job of the ledger names the model {model!r}. Submit with --model {model}")
    used = [one for _, mine in selected(book, selection) for one in mine]
    groups: dict[tuple[str, str], list[Used]] = defaultdict(list)
    for one in used:
        groups[one.job.phase, one.job.stage].append(one)
    making = _of(used, lambda boundary: boundary == PROVIDER)
    serving = _of(used, lambda boundary: boundary == CONSUMER)
    made = _stage("making", "", making, period)
    return Lifecycle(
        model=model,
        stages=tuple(_stage(*key, groups[key], period) for key in sorted(groups, key=_order)),
        making=made,
        inference=_stage("inference", "", serving, period),
        per_unit=tuple(_per_unit(serving, made, period)),
        uncounted=tuple(one.attempt.attempt_id for one in serving if not _counted(one, period)),
        imported=tuple(brought),
        ledger_size=book.size,
        ledger_head=book.head,
    )


def _of(used: Sequence[Used], wanted: Callable[[str], bool]) -> list[Used]:
    return [one for one in used if wanted(BOUNDARIES.get(one.job.phase, ""))]


def _order(key: tuple[str, str]) -> tuple[int, str]:
    return PHASES.index(key[0]) if key[0] in PHASES else len(PHASES), key[1]


def _stage(phase: str, stage: str, used: Sequence[Used], period: Period) -> Stage:
    made, unknown = embodied(used, period)
    return Stage(
        phase=phase,
        stage=stage,
        jobs=len({one.job.job_id for one in used}),
        attempts=len(used),
        energy_uj=sum(one.account.energy_uj for one in used),
        facility_uj=sum(one.account.facility_uj for one in used),
        covered_uj=sum(one.account.covered_uj for one in used),
        co2e_ug=sum(one.account.co2e_ug for one in used),
        embodied_low_ug=sum(row.low_ug for row in made),
        embodied_ug=sum(row.central_ug for row in made),
        embodied_high_ug=sum(row.high_ug for row in made),
        embodied_unknown=len(unknown),
    )


def _counted(one: Used, period: Period) -> dict[str, int]:
    """Work that the job's own code counted."""
    named = {unit for window in one.attempt.windows for unit in window.units}
    return {unit: amount for unit, amount in amounts(one, period).items() if unit in named}


def _per_unit(serving: Sequence[Used], making: Stage, period: Period) -> list[PerUnit]:
    groups: dict[str, list[tuple[Used, int]]] = defaultdict(list)
    for one in serving:
        for unit, amount in _counted(one, period).items():
            groups[unit].append((one, amount))
    found = []
    for unit, group in sorted(groups.items()):
        total = _stage("inference", "", [one for one, _ in group], period)
        amount = sum(amount for _, amount in group)
        making_ug = making.co2e_ug + making.embodied_ug
        found.append(PerUnit(unit, amount, total.energy_uj, total.co2e_ug, total.embodied_ug, making_ug))
    return found
