"""Two or more ways to do the same work, beside each other: energy, time, quality, and CO2e under equal conditions.

Each side is a number of runs. Energies and times are compared as ratios: a Welch interval (95 %) of the difference of
mean logarithms, so that "half" and "twice" count alike; quality by the difference of means. Runs that belong together
one by one (blocks: a machine that was busier for one was so for the others) are compared within each, by Student's
interval of the differences. Quantiles of Student's t: any table of it, by whole degrees of freedom, rounded down.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from carbon_sched.domain.emissions import co2e_ug
from carbon_sched.domain.energy import Reporter, SourceClass
from carbon_sched.domain.errors import InvalidInput, NotFound
from carbon_sched.domain.time import US
from carbon_sched.domain.units import PPM, UJ_PPM_MG_PER_UG
from carbon_sched.ledger.account import actual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from carbon_sched.ledger.account import Account
    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.records import JobRecord

MILLION = 1_000_000
JOB = "job"
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % quantiles of Student's t for 1 to 30 degrees of freedom; 30 stands for more, a little too wide."""


@dataclass(frozen=True)
class Conditions:
    """The PUE and intensity by which every side's CO2e is computed, and where they come from."""

    pue_ppm: int
    mg_per_kwh: int | None
    source: str


@dataclass(frozen=True)
class Run:
    """One job: IT energy and time in all its attempts, and how much work (millionths of a unit; a job is one)."""

    job: str
    energy_uj: int
    duration_us: int
    amount_millionths: int
    estimated_uj: int
    self_reported_uj: int
    error_uj: int


@dataclass(frozen=True)
class Difference:
    """Against the first side: relative for energy and time (-0.25 is a quarter less), absolute for quality.

    `low` and `high` bound it with 95 % confidence; None where a side has one run, or runs of no spread to judge by.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Side:
    """Means per unit over its runs; `co2e_ug` under the common conditions, None where no intensity is known."""

    label: str
    runs: tuple[Run, ...]
    energy_uj: float
    duration_us: float
    co2e_ug: float | None
    quality: dict[str, float]
    energy_against_first: Difference | None
    time_against_first: Difference | None
    quality_against_first: dict[str, Difference]
    verdict: str


@dataclass(frozen=True)
class Compared:
    """Sides in the order asked for; `notes` say in what else they differ; `paired`: differences are within blocks."""

    per: str
    paired: bool
    conditions: Conditions
    sides: tuple[Side, ...]
    notes: tuple[str, ...]
    ledger_size: int
    ledger_head: str


def sides_of(book: Book, texts: Sequence[str], sees: Callable[[str], bool]) -> dict[str, list[JobRecord]]:
    """Jobs by side. A text lists ids or names, with commas; a name means every job of it that succeeded.

    `LABEL=ids` gives a side a label of its own, unless that whole text is a job's name.
    `sees(team)` says whose jobs may be looked at. Raises NotFound for what is none, InvalidInput for fewer than two
    sides, a side given twice and a job on two of them.
    """
    if len(set(texts)) < 2 or len(set(texts)) != len(texts):
        remedy = "Give at least two: ids or names of jobs, repeats of one side with commas between"
        raise InvalidInput("sides", " ".join(texts), "are not two different sides", remedy)
    names = {job.name for job in book.jobs.values()}
    named = [("", "", text) if text in names else text.rpartition("=") for text in texts]
    sides = [(label or members, members) for label, _, members in named]
    if len({label for label, _ in sides}) != len(texts):
        raise InvalidInput("sides", " ".join(texts), "give one label twice", "Give each side its own: LABEL=ID,ID")
    found = {label: [job for one in ids.split(",") for job in _named(book, one.strip(), sees)] for label, ids in sides}
    every = [job.job_id for jobs in found.values() for job in jobs]
    if twice := sorted({job for job in every if every.count(job) > 1}):
        raise InvalidInput("sides", ", ".join(twice), "is named more than once", "Name each job on one side")
    return found


def mentioned(texts: Sequence[str]) -> set[str]:
    """Everything in the texts of sides that may be the id or name of a job."""
    members = (one for text in texts for one in (text, text.rpartition("=")[2]))
    return {*texts, *(one.strip() for text in members for one in text.split(","))}


def _named(book: Book, text: str, sees: Callable[[str], bool]) -> list[JobRecord]:
    job = book.jobs.get(text)
    if job is not None and sees(job.team):
        return [job]
    named = [job for job in book.jobs.values() if job.name == text and job.state == "succeeded" and sees(job.team)]
    if not named:
        raise NotFound(f"{text!r} is neither the id of a job nor the name of one that succeeded")
    return named


def compare(
    book: Book, sides: Mapping[str, Sequence[JobRecord]], *, per: str = JOB, pue_ppm: int | None = None,
    mg_per_kwh: int | None = None, paired: bool = False,
) -> Compared:  # fmt: skip
    """Compare per `job`, or per unit of work that the jobs' windows counted (`token` is also `tokens`).

    Without `pue_ppm` and `mg_per_kwh`, CO2e is by the averages over all these jobs. `paired`: the first job of each
    side belongs to the first of the others, and so on. Raises InvalidInput for a job that is not settled, has no
    energy, or did not count that unit, and for pairs of sides that are not equally long.
    """
    lengths = {label: len(jobs) for label, jobs in sides.items()}
    if paired and len(set(lengths.values())) > 1:
        told = ", ".join(f"{label} {count}" for label, count in lengths.items())
        raise InvalidInput("paired", told, "runs of each cannot be paired", "Give as many jobs on every side")
    every = [job for jobs in sides.values() for job in jobs]
    accounts = {job.job_id: [actual(attempt) for attempt in job.attempts.values()] for job in every}
    conditions = _conditions([one for mine in accounts.values() for one in mine], pue_ppm, mg_per_kwh)
    runs = {label: [_run(job, accounts[job.job_id], per) for job in jobs] for label, jobs in sides.items()}
    quality = {label: [_quality(job) for job in jobs] for label, jobs in sides.items()}
    first = next(iter(sides))
    others = Others(first, runs, quality, paired)
    return Compared(
        per=per,
        paired=paired,
        conditions=conditions,
        sides=tuple(
            _side(label, runs[label], quality[label], conditions, None if label == first else others) for label in sides
        ),
        notes=tuple(_notes(sides, runs)),
        ledger_size=book.size,
        ledger_head=book.head,
    )


def _conditions(accounts: Sequence[Account], pue_ppm: int | None, mg_per_kwh: int | None) -> Conditions:
    """The averages over these jobs, weighted by energy, in place of what is not given."""
    parts = [part for one in accounts for part in one.parts]
    energy_uj = sum(part.energy_uj for part in parts)
    booked_uj = sum(part.facility_uj for part in parts if part.reading)
    emitted_ug = sum(one.co2e_ug for one in accounts)
    own = "the average over these jobs"
    if pue_ppm is None and energy_uj:
        pue_ppm, pue_source = sum(part.facility_uj for part in parts) * PPM // energy_uj, own
    else:
        pue_source = "given"
    if mg_per_kwh is None and booked_uj:
        mg_per_kwh, grid = emitted_ug * (UJ_PPM_MG_PER_UG // PPM) // booked_uj, own
    else:
        grid = "given" if mg_per_kwh is not None else "not known"
    return Conditions(pue_ppm or PPM, mg_per_kwh, f"PUE: {pue_source}; intensity: {grid}")


# ---------------------------------------------------------------------------------------------------------------- runs


def _run(job: JobRecord, accounts: Sequence[Account], per: str) -> Run:
    parts = [part for one in accounts for part in one.parts]
    if not job.settled or not any(part.energy_uj for part in parts):
        problem = "has no energy in the ledger" if job.settled else "is not settled: its energy may still be coming in"
        raise InvalidInput("job", job.job_id, problem, "Compare jobs that ended and were metered")
    told = [(part.channel, part.energy_uj) for part in parts]
    return Run(
        job=job.job_id,
        energy_uj=sum(energy for _, energy in told),
        duration_us=sum(_duration_us(one) for one in accounts),
        amount_millionths=MILLION if per == JOB else _amount(job, per),
        estimated_uj=sum(energy for channel, energy in told if channel.source is SourceClass.ESTIMATED),
        self_reported_uj=sum(energy for channel, energy in told if channel.reporter is not Reporter.INDEPENDENT),
        error_uj=sum(energy * channel.error_ppm // PPM for channel, energy in told),
    )


def _duration_us(one: Account) -> int:
    """By the wrapper's record; of a lost attempt by the meter's samples."""
    attempt = one.attempt
    start = attempt.started_at or min((part.start for part in one.parts), default=None)
    end = attempt.ended_at or max((part.end for part in one.parts), default=None)
    return (end - start) // US if start and end else 0


def _amount(job: JobRecord, per: str) -> int:
    windows = [window for attempt in job.attempts.values() for window in attempt.windows]
    counted = {unit for window in windows for unit in window.units}
    unit = next((name for name in _spellings(per) if name in counted), None)
    amount = sum(window.units.get(unit, 0) for window in windows) if unit else 0
    if not amount:
        known = ", ".join(sorted(counted)) or "nothing"
        remedy = f"Count them in its code: with meter.window(NAME, {per}s=AMOUNT)"
        raise InvalidInput("--per", per, f"was not counted by job {job.job_id}, which counted {known}", remedy)
    return amount


def _spellings(per: str) -> tuple[str, ...]:
    return per, f"{per}s", f"{per.removesuffix('y')}ies", per.removesuffix("s")


def _quality(job: JobRecord) -> dict[str, float]:
    """What it reported; of several attempts the newest word on each metric."""
    told = [item for attempt in job.attempts.values() for item in attempt.quality.items()]
    return {name: millionths / MILLION for name, millionths in told}


# --------------------------------------------------------------------------------------------------------------- sides


class Others(NamedTuple):
    """What a side is compared with: all sides' runs and quality, and whether they belong together one by one."""

    first: str
    runs: dict[str, list[Run]]
    quality: dict[str, list[dict[str, float]]]
    paired: bool


def _side(
    label: str, runs: Sequence[Run], quality: Sequence[dict[str, float]], conditions: Conditions, others: Others | None
) -> Side:
    energy = _per_unit(runs, _energy_of)
    mean_uj = statistics.fmean(energy)
    side = Side(
        label=label,
        runs=tuple(runs),
        energy_uj=mean_uj,
        duration_us=statistics.fmean(_per_unit(runs, _duration_of)),
        co2e_ug=_co2e(runs, conditions),
        quality={name: statistics.fmean(values) for name, values in _metrics(quality).items()},
        energy_against_first=None,
        time_against_first=None,
        quality_against_first={},
        verdict="what the others are compared with",
    )
    return _against(side, runs, quality, others) if others else side


def _against(side: Side, runs: Sequence[Run], quality: Sequence[dict[str, float]], others: Others) -> Side:
    first, paired = others.first, others.paired
    base, mine, theirs = others.runs[first], _metrics(quality), _metrics(others.quality[first])
    energies, times = ([_per_unit(one, by) for one in (base, runs)] for by in (_energy_of, _duration_of))
    energy, time = _relative(*energies, paired=paired), _relative(*times, paired=paired)
    told = {name: _differ(theirs[name], values, paired=paired) for name, values in mine.items() if name in theirs}
    said = [
        _said("energy", energy),
        _said("time", time),
        *(_moved(name, one) for name, one in told.items()),
        *([] if told else ["no quality was reported on both sides, so nothing is said of it"]),
        *_doubts(energy, base, runs),
    ]
    return replace(
        side,
        energy_against_first=energy,
        time_against_first=time,
        quality_against_first=told,
        verdict=f"against {first}: {'; '.join(said)}",
    )


def _energy_of(run: Run) -> int:
    return run.energy_uj


def _duration_of(run: Run) -> int:
    return run.duration_us


def _per_unit(runs: Sequence[Run], amount: Callable[[Run], int]) -> list[float]:
    return [amount(run) * MILLION / run.amount_millionths for run in runs]


def _co2e(runs: Sequence[Run], conditions: Conditions) -> float | None:
    """Micrograms per unit, of each run's exact figure."""
    if conditions.mg_per_kwh is None:
        return None
    grams = [(run, co2e_ug(run.energy_uj, conditions.pue_ppm, conditions.mg_per_kwh)) for run in runs]
    return statistics.fmean(emitted * MILLION / run.amount_millionths for run, emitted in grams)


def _metrics(quality: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Values by metric, of the runs that reported it."""
    return {name: [one[name] for one in quality if name in one] for name in sorted({n for one in quality for n in one})}


def _relative(base: Sequence[float], mine: Sequence[float], *, paired: bool) -> Difference:
    """The ratio of (geometric) means, less one."""
    if min(*base, *mine) <= 0:
        return Difference(0.0, None, None)
    found = _differ([math.log(one) for one in base], [math.log(one) for one in mine], paired=paired)
    low, high = (None if bound is None else math.expm1(bound) for bound in (found.low, found.high))
    return Difference(math.expm1(found.value), low, high)


def _differ(base: Sequence[float], mine: Sequence[float], *, paired: bool) -> Difference:
    """Within blocks where runs belong together; a metric that some run did not report has no blocks."""
    return _within(base, mine) if paired and len(base) == len(mine) else _welch(base, mine)


def _within(base: Sequence[float], mine: Sequence[float]) -> Difference:
    """The mean of the differences within blocks with Student's interval: what a whole block shares cancels."""
    each = [one - other for one, other in zip(mine, base, strict=True)]
    value = statistics.fmean(each)
    if len(each) < 2 or not (spread := statistics.stdev(each)):
        return Difference(value, None, None)
    half = T_975[min(len(T_975), len(each) - 1) - 1] * spread / math.sqrt(len(each))
    return Difference(value, value - half, value + half)


def _welch(base: Sequence[float], mine: Sequence[float]) -> Difference:
    """The difference of means with Welch's interval: no equal spread is assumed of the two sides."""
    value = statistics.fmean(mine) - statistics.fmean(base)
    if min(len(base), len(mine)) < 2:
        return Difference(value, None, None)
    errors = [statistics.variance(one) / len(one) for one in (base, mine)]
    whole = sum(errors)
    if not whole:
        return Difference(value, None, None)
    freedom = whole**2 / sum(error**2 / (len(one) - 1) for error, one in zip(errors, (base, mine), strict=True))
    half = T_975[min(len(T_975), max(1, int(freedom))) - 1] * math.sqrt(whole)
    return Difference(value, value - half, value + half)


# --------------------------------------------------------------------------------------------------------------- words


def _said(what: str, one: Difference) -> str:
    if not one.value and one.low is None:
        return f"the same {what}"
    word, size = ("less", -one.value) if one.value < 0 else ("more", one.value)
    if one.low is None or one.high is None:
        return f"{_percent(size)} {word} {what}, from too few runs to tell from chance"
    bounds = f"95 % confidence: {_signed(one.low)} to {_signed(one.high)}"
    return f"{_percent(size)} {word} {what} ({bounds})" if one.shown else f"no difference of {what} is shown ({bounds})"


def _moved(name: str, one: Difference) -> str:
    if not one.value and one.low is None:
        return f"the same {name}"
    if one.low is None or one.high is None:
        return f"{name} {one.value:+.4g}, from too few runs to tell from chance"
    bounds = f"95 % confidence: {one.low:+.4g} to {one.high:+.4g}"
    return f"{name} {one.value:+.4g} ({bounds})" if one.shown else f"no difference of {name} is shown ({bounds})"


def _doubts(energy: Difference, base: Sequence[Run], mine: Sequence[Run]) -> list[str]:
    """What speaks against the difference of energy: meters that may be off by as much, in the worst case."""
    error = max(sum(run.error_uj for run in runs) / sum(run.energy_uj for run in runs) for runs in (base, mine))
    if abs(energy.value) >= error:
        return []
    return [f"the meters alone may be off by {_percent(error)} (they err alike on equal hardware)"]


def _notes(sides: Mapping[str, Sequence[JobRecord]], runs: Mapping[str, Sequence[Run]]) -> Iterable[str]:
    if any(len(jobs) < 3 for jobs in sides.values()):
        yield "Run each side three times or more: from fewer runs little can be told from chance."
    for label, mine in runs.items():
        whole = sum(run.energy_uj for run in mine)
        if estimated := sum(run.estimated_uj for run in mine):
            yield f"{label}: {_percent(estimated / whole)} of the energy is estimated, not measured."
    places = {label: {a.cluster for job in jobs for a in job.attempts.values()} for label, jobs in sides.items()}
    if len({frozenset(one) for one in places.values()}) > 1:
        ran = "; ".join(f"{label} on {', '.join(sorted(one))}" for label, one in places.items())
        yield f"The sides ran on different clusters ({ran}): their hardware may differ."
    if self_reported := sum(run.self_reported_uj for mine in runs.values() for run in mine):
        whole = sum(run.energy_uj for mine in runs.values() for run in mine)
        yield f"{_percent(self_reported / whole)} of the energy was not reported by an independent meter."


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _signed(share: float) -> str:
    return f"{100 * share:+.3g} %"
