"""What people read of life cycles, comparisons and charges, from the JSON that the server or a copy gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from carbon_sched.cli import figures
from carbon_sched.cli.clock import local_zone, now
from carbon_sched.cli.render import facts, listing
from carbon_sched.domain.units import UG_PER_G, UJ_PER_KWH

if TYPE_CHECKING:
    from rich.console import RenderableType

MILLION = 1_000_000
_AMOUNTS = (("energy", 12), ("with PUE", 12), ("CO2e", 12))


def lifecycle(view: dict[str, Any]) -> RenderableType:
    """Stages, sums, and inference per unit."""
    table = listing(("stage", 24), ("jobs", 6), *_AMOUNTS, ("embodied", 12))
    for row in view["stages"]:
        table.add_row(" ".join(filter(None, (row["phase"], row["stage"]))), str(row["jobs"]), *_stage(row))
    for name in ("making", "inference"):
        table.add_row(f"= {name}", str(view[name]["jobs"]), *_stage(view[name]), style="bold")
    per = listing(("per", 16), ("amount", 12), ("energy", 12), ("CO2e", 14), ("embodied", 14), ("making, apart", 16))
    for row in view["per_unit"]:
        done = row["amount_millionths"] / MILLION
        each = [_g(row[key] / done) for key in ("co2e_ug", "embodied_ug", "making_ug")]
        per.add_row(row["unit"], figures.digits(done), _kwh(row["energy_uj"] / done), *each)
    said = [] if view["per_unit"] else ["no inference counted its work: with meter.window(NAME, queries=N) it would"]
    if view["uncounted"]:
        said.append(f"{len(view['uncounted'])} attempts of inference counted no work: they are in no figure per unit")
    uncovered = sum(view[name]["energy_uj"] - view[name]["covered_uj"] for name in ("making", "inference"))
    if uncovered:
        said.append(f"{_kwh(uncovered)} have no known intensity; their CO2e is in no figure")
    if brought := view["imported"]:
        told = [sum(run[key] for run in brought) for key in ("facility_uj", "co2e_ug")]
        runs = f"{len(brought)} imported runs, {_kwh(told[0])} and {_g(told[1])} by the word of other tools"
        said.append(f"{runs}: in no figure")
    unknown = sum(view[name]["embodied_unknown"] for name in ("making", "inference"))
    if unknown:
        said.append(f"of the hardware of {unknown} attempts no embodied figure is known: it is in no figure")
    if view["per_unit"]:
        said.append("making, apart: what pre-training, fine-tuning and evaluation come to for each one so far")
    return Group(Text(f"Life cycle of {view['model']}", "bold"), table, per, *map(Text, said))


def _stage(row: dict[str, Any]) -> tuple[str, ...]:
    embodied = "unknown" if row["embodied_unknown"] and not row["embodied_ug"] else _g(row["embodied_ug"])
    return _kwh(row["energy_uj"]), _kwh(row["facility_uj"]), _g(row["co2e_ug"]), embodied


def comparison(view: dict[str, Any]) -> RenderableType:
    """Means per unit, then a plain verdict for each side but the first."""
    table = listing(("", 24), ("runs", 5), ("energy", 12), ("time", 14), ("CO2e", 12), ("quality", 30))
    for side in view["sides"]:
        quality = ", ".join(f"{name} {value:.4g}" for name, value in side["quality"].items()) or "-"
        row = (
            _kwh(side["energy_uj"]),
            figures.duration(side["duration_us"] / MILLION) if side["duration_us"] >= MILLION else _ms(side),
            "unknown" if side["co2e_ug"] is None else _g(side["co2e_ug"]),
            quality,
        )
        table.add_row(side["label"], str(len(side["runs"])), *row)
    conditions = view["conditions"]
    grid = "unknown" if conditions["mg_per_kwh"] is None else f"{conditions['mg_per_kwh'] / 1000:.4g} g/kWh"
    pue = f"{conditions['pue_ppm'] / MILLION:.4g}"
    said = [*(f"{side['label']} {side['verdict']}" for side in view["sides"][1:]), *view["notes"]]
    under = ("CO2e under", f"PUE {pue}, {grid} ({conditions['source']})")
    return Group(facts(f"Per {view['per']}", [under]), table, *map(Text, said))


def service(view: dict[str, Any]) -> RenderableType:
    """Each stay in a line, and under it why it came there and why it left."""
    table = listing(("cluster", 16), ("chosen", 17), ("answers since", 17), ("left", 17), ("energy", 12), ("CO2e", 12))
    zone, at, why = local_zone(), now(), []
    for stay in view["stays"]:
        moments = [figures.moment(stay[key], zone, at) for key in ("placed_at", "answers_since", "left_at")]
        emitted = "not booked yet" if stay["co2e_ug"] is None else _g(stay["co2e_ug"])
        table.add_row(stay["cluster"], *moments, _kwh(stay["energy_uj"]), emitted)
        why.append(f"{stay['number']}. {stay['cluster']}: {stay['reason']}{_others(stay)}")
        why += [f"   left: {stay['left_reason']}"] if stay["left_at"] else []
    made = [("changed by", ", ".join(dict.fromkeys(one["by"] for one in view["changes"])))]
    return Group(facts(f"Service {view['service']}", made), table, *map(Text, why))


def _others(stay: dict[str, Any]) -> str:
    out = [f"{one['cluster']}: {one['reason']}" for one in stay["considered"] if one["reason"]]
    rates = [
        f"{one['cluster']} {one['expected_mg_per_kwh'] / 1000:.0f}"
        for one in stay["considered"]
        if one["expected_mg_per_kwh"] is not None
    ]
    said = [f"gCO2e/kWh expected: {', '.join(rates)}"] if rates else []
    return f" ({'; '.join([*said, *out])})" if said or out else ""


def _ms(side: dict[str, Any]) -> str:
    return f"{figures.digits(side['duration_us'] / 1000)} ms"


def chargeback(view: dict[str, Any]) -> RenderableType:
    """What is charged, and what rests on less than independent evidence."""
    table = listing((view["by"], 20), ("jobs", 6), *_AMOUNTS, ("not charged", 12), ("its CO2e", 12))
    for row in [*view["rows"], view["total"] | {"value": "= total"}]:
        apart = [row["self_reported"], row["ray"]]
        table.add_row(
            row["value"] or "(none)",
            str(row["jobs"]),
            *(_kwh(row["charged"][key]) for key in ("energy_uj", "facility_uj")),
            _g(row["charged"]["co2e_ug"]),
            _kwh(sum(one["energy_uj"] for one in apart)),
            _g(sum(one["co2e_ug"] for one in apart)),
        )
    period = f"from {view['since'] or 'the beginning'} to {view['until'] or 'now'}"
    return Group(Text(f"Charges {period}", "bold"), table, *map(Text, _evidence(view["total"])))


def _evidence(total: dict[str, Any]) -> list[str]:
    parts = {name: total[name]["energy_uj"] for name in ("charged", "self_reported", "ray")}
    whole = sum(parts.values())
    if not whole:
        return ["nothing was used"]
    charged, told, ray = (figures.percent(part / whole) for part in parts.values())
    said = [
        f"charged: {charged} of the energy, on the word of independent meters",
        f"not charged: {told} that the jobs' own side reported, {ray} by Ray's gauge",
    ]
    if not parts["charged"]:
        said.append("no machine has an independent meter: `carbon-sched meter` on each node makes one")
    return said


def _kwh(energy_uj: float) -> str:
    return figures.kwh(energy_uj / UJ_PER_KWH)


def _g(co2e_ug: float) -> str:
    return figures.grams(co2e_ug / UG_PER_G)
