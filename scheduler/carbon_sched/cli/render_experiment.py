"""What people read of an experiment: figures with their spread, verdicts beside the literature, what making cost."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from carbon_sched.cli import figures
from carbon_sched.cli.render import facts, listing
from carbon_sched.domain.units import UJ_PER_J

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

MILLION = 1_000_000
JOULES = ((1e-9, "nJ"), (1e-6, "uJ"), (1e-3, "mJ"), (1.0, "J"), (1e3, "kJ"), (1e6, "MJ"))
FOUND = {"less": "less energy", "more": "more energy", "same": "no gain of energy"}


def experiment(report: dict[str, Any]) -> RenderableType:
    """The whole report, what is estimated first."""
    compared = report["comparison"]
    known = {variant["name"]: variant for variant in report["variants"]}
    told = [*_estimated(report), *_failed(report)]
    verdicts = [f"{side['label']} {side['verdict']}{_beside(side, known)}" for side in compared["sides"][1:]]
    order = " ".join(run["name"] for run in report["runs"] if run["repeat"])
    how = [
        ("experiment", f"{report['experiment']}, {report['repeats']} repeats on {report['cluster']}"),
        ("order", f"by lot from seed {report['seed']}: {order}"),
        ("compared", "within each repeat" if compared["paired"] else "over all runs, since some are missing"),
        ("rest", f"{figures.duration(report['cool_down_s'])} between two runs"),
    ]
    title = f"{report['name']}, per {compared['per']}"
    notes = [note for note in compared["notes"] if "is estimated" not in note]  # said once for all, above
    return Group(
        facts(title, how), *(Text(text, "bold yellow") for text in told), _energies(compared), *_qualities(compared),
        *map(Text, [*verdicts, *_making(report, known), *notes]),
    )  # fmt: skip


def _estimated(report: dict[str, Any]) -> Iterator[str]:
    whole, estimated = (sum(run[key] for run in report["runs"]) for key in ("energy_j", "estimated_j"))
    if estimated:
        share = figures.percent(estimated / whole)
        yield (
            f"ESTIMATED: {share} of this energy is a model of CPU time, not a measurement, since no counter could be "
            "read. It tells who used the CPU longer; what memory and idle parts draw, it cannot tell apart."
        )


def _failed(report: dict[str, Any]) -> Iterator[str]:
    for run in report["runs"]:
        if not run["good"]:
            why = f"job {run['job_id']} {run['state']}, {run['reason']}"
            yield f"{run['name']}, repeat {run['repeat']}, is in no figure: {why}"


def _energies(compared: dict[str, Any]) -> RenderableType:
    """Mean, spread over the repeats, and the interval against the first."""
    table = listing(
        ("", 20), ("runs", 4), ("energy", 9), ("spread", 7), ("against the first, 95 %", 26), ("time", 10)
    )  # fmt: skip
    _, unit = figures.fitting([side["energy_uj"] / UJ_PER_J for side in compared["sides"]], JOULES)
    factor = next(size for size, name in JOULES if name == unit)
    for side in compared["sides"]:
        each = [run["energy_uj"] * MILLION / run["amount_millionths"] for run in side["runs"]]
        spread = f"{100 * statistics.stdev(each) / statistics.fmean(each):.1f} %" if len(each) > 1 else "?"
        energy = f"{figures.digits(side['energy_uj'] / UJ_PER_J / factor)} {unit}"
        took = figures.scaled(side["duration_us"] / MILLION, ((1e-6, "us"), (1e-3, "ms"), (1.0, "s")))
        table.add_row(side["label"], str(len(each)), energy, spread, _interval(side["energy_against_first"]), took)
    return table


def _interval(one: dict[str, Any] | None) -> str:
    if one is None:
        return "-"
    bounds = "" if one["low"] is None else f" ({100 * one['low']:+.3g} to {100 * one['high']:+.3g})"
    return f"{100 * one['value']:+.3g} %{bounds}"


def _qualities(compared: dict[str, Any]) -> Iterator[RenderableType]:
    """A table for each metric that was reported."""
    for name in sorted({name for side in compared["sides"] for name in side["quality"]}):
        table = listing((name, 24), ("mean", 10), ("against the first, 95 %", 30))
        for side in compared["sides"]:
            if name in side["quality"]:
                against = _difference(side["quality_against_first"].get(name))
                table.add_row(side["label"], f"{side['quality'][name]:.4g}", against)
        yield table


def _difference(one: dict[str, Any] | None) -> str:
    if one is None:
        return "-"
    bounds = "" if one["low"] is None else f" ({one['low']:+.2g} to {one['high']:+.2g})"
    return f"{one['value']:+.3g}{bounds}"


def _beside(side: dict[str, Any], known: dict[str, Any]) -> str:
    """What was measured, set beside what others found."""
    said = known[side["label"]]["literature"]
    if said is None:
        return ""
    return f" | literature: {FOUND[said['energy']]} ({said['source']}): {_agreement(side, said['energy'])}"


def _agreement(side: dict[str, Any], expected: str) -> str:
    one = side["energy_against_first"]
    if one["low"] is None:
        return "too few runs to say"
    found = "same" if one["low"] <= 0 <= one["high"] else "less" if one["high"] < 0 else "more"
    if found == expected or (found, expected) == ("more", "same"):
        return "seen here too"
    return "NOT seen here" if found != "same" else "not shown here"


def _making(report: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    """What `prepare` cost, and after how much work a variant has earned its own steps back."""
    cost = {run["name"]: run["energy_j"] for run in report["runs"] if run["repeat"] == 0}
    if cost:
        steps = ", ".join(f"{name} {figures.scaled(joules, JOULES)}" for name, joules in cost.items())
        yield f"Making, in no figure above: {steps}."
    first, *others = report["comparison"]["sides"]
    for side in others:
        spent = sum(cost[name] for name in known[side["label"]]["made_by"])
        saved = (first["energy_uj"] - side["energy_uj"]) / UJ_PER_J
        one = side["energy_against_first"]
        if spent and one["high"] is not None and one["high"] < 0:
            work = f"{spent / saved:,.3g} {report['comparison']['per']}s" if saved else "never"
            yield f"{side['label']} has earned back what its own making cost after {work}."
