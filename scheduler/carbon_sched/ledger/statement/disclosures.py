"""A statement for others' forms: a model card of Hugging Face, the EU AI Act, GHG Protocol and ESRS E1, Prometheus."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from importlib.resources import files
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.units import UG_PER_G, UJ_PER_J, UJ_PER_KWH
from carbon_sched.ledger.figures import counted, decimal, percent, safe_cell, significant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from carbon_sched.ledger.statement.model import Line, Statement

TRAINING = {"pretraining": "pre-training", "finetuning": "fine-tuning"}
"""Phases that make a model, in the words of Hugging Face's card and the AI Act."""
UJ_PER_MWH = 1_000 * UJ_PER_KWH
UG_PER_T = 1_000_000 * UG_PER_G


def _training(statement: Statement) -> list[Line]:
    """Lines of training; InvalidInput where there are none."""
    lines = [line for line in statement.lines if line.phase in TRAINING]
    if not lines:
        remedy = "Choose jobs with --model; submit them with --phase pretraining or finetuning"
        raise InvalidInput("selection", statement.selection.words, "holds no energy of training", remedy)
    return lines


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted({value for value in values if value}))


def as_model_card(statement: Statement) -> str:
    """The metadata block of a model's README on Hugging Face: `co2_eq_emissions`, in grams CO2e (life cycle, with PUE).

    Fields and unit: the Hub's documentation of model cards, "Displaying carbon emissions for your model".
    """
    lines = _training(statement)
    covered_uj, energy_uj = sum(line.covered_uj for line in lines), sum(line.energy_uj for line in lines)
    entries = counted(statement.ledger_size, "entry")
    source = f"carbon-sched, metered per job; ledger of {entries}, head {statement.ledger_head}"
    if covered_uj < energy_uj:
        source += f"; of {percent(energy_uj - covered_uj, energy_uj)} of the energy no intensity is known: not included"
    jobs = {line.job for line in lines}
    card = {
        "emissions": sum(line.co2e_ug for line in lines) / UG_PER_G,
        "source": source,
        "training_type": ", ".join(word for phase, word in TRAINING.items() if phase in {one.phase for one in lines}),
        "geographical_location": _listed(line.zone for line in lines),
    }
    if hardware := _listed(row.hardware for row in statement.embodied if row.job in jobs):
        card["hardware_used"] = hardware
    import yaml  # noqa: PLC0415 - every other format needs the standard library only

    text: str = yaml.safe_dump({"co2_eq_emissions": card}, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n"


def as_ai_act(statement: Statement) -> str:
    """Energy and time of training for a model's technical documentation.

    Regulation (EU) 2024/1689 (AI Act), Annex XI, section 1, point 2 (d) and (e).
    """
    lines = _training(statement)
    facility_uj, energy_uj = sum(line.facility_uj for line in lines), sum(line.energy_uj for line in lines)
    estimated = percent(sum(line.energy_uj for line in lines if line.source == "estimated"), energy_uj)
    jobs = [job for job in statement.jobs if job.phase in TRAINING and job.energy_uj]
    hours = [one for one in statement.scores if one.unit == "GPU-hour" and one.boundary == "provider"]
    of_phase = {word: [line for line in lines if line.phase == phase] for phase, word in TRAINING.items()}
    said = [
        "Regulation (EU) 2024/1689, Annex XI, section 1, point 2 (d) and (e)",
        f"Selection: {statement.selection.words}",
        f"Training energy: {_mwh(facility_uj)}, of which {_mwh(energy_uj)} of computers; the rest is the site's.",
        *(f"  {word}: {_mwh(sum(line.facility_uj for line in mine))}" for word, mine in of_phase.items()),
        f"Method: metered at the devices; {estimated} of the computers' energy is estimated. Failed attempts count.",
        f"Training time: {min(job.start or '' for job in jobs)} to {max(job.end or '' for job in jobs)}.",
        *(f"GPU-hours reserved ({one.phases}): {significant(one.amount_millionths, 1_000_000)}." for one in hours),
        "Floating point operations: not in the ledger; state them from the training's own record.",
        f"Evidence: ledger of {counted(statement.ledger_size, 'entry')}, head {statement.ledger_head}.",
    ]
    return "\n".join(said) + "\n"


def _mwh(energy_uj: int) -> str:
    """The form of the Code of Practice asks for MWh with two significant figures or more."""
    return f"{significant(energy_uj, UJ_PER_MWH)} MWh"


# ----------------------------------------------------------------------------------------------- GHG Protocol and ESRS


def as_inventory(statement: Statement) -> str:
    """A table (CSV) of an inventory: one row per quantity, with where it belongs in GHG Protocol and ESRS E1.

    Numbers of datapoints are those of EFRAG's IG 3, "List of ESRS datapoints" (2024), for the standards of 2023.
    """
    places = _places()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["quantity", "value", "unit", "GHG Protocol", "ESRS E1", "EFRAG IG 3", "note"])
    for key, value, unit, note in _quantities(statement):
        words, *where = places.get(key, (key, "", "", ""))
        row = [words, value, unit, *where, note]
        writer.writerow([safe_cell(cell) for cell in row])
    return out.getvalue()


def _quantities(statement: Statement) -> Iterator[tuple[str, str, str, str]]:
    """Key of `disclosures.csv`, value, unit and note."""
    total = statement.total
    purchased = {one.cluster for one in statement.scope_classes if one.purchased}
    own_uj = sum(line.facility_uj for line in statement.lines if line.cluster in purchased)
    clouds_uj = total("facility_uj") - own_uj
    yield "energy", decimal(own_uj, UJ_PER_MWH), "MWh", "computers times PUE"
    if clouds_uj:
        yield "energy-clouds", decimal(clouds_uj, UJ_PER_MWH), "MWh", "computers times PUE"
    unknown_uj = total("energy_uj") - total("covered_uj")
    yield "energy-unknown", decimal(unknown_uj, UJ_PER_MWH), "MWh", "no intensity is known: its CO2e is in no row"
    yield "mix", "", "MWh", "not computed: intensities do not tell the mix"
    figures: dict[str, list[int]] = defaultdict(list)
    made = {one.cluster for one in statement.embodied}
    for one in statement.scope_classes:
        known = one.separable or one.one_category
        figures[one.direct_category] += [one.direct_ug] if known else []
        figures[one.upstream_category] += [one.upstream_ug] if known else []
        figures[one.embodied_category] += [one.embodied_ug] if one.cluster in made else []
        figures[one.direct_category if one.one_category else "unseparated"] += [one.unseparated_ug]
    notes = {"scope 2": "location-based, direct", "unseparated": "life cycle; nobody publishes the direct part"}
    for category, found in sorted(figures.items()):
        note = notes.get(category, "") if found else "not known"
        yield category, decimal(sum(found), UG_PER_T) if found else "", "t CO2e", note
    contracts = [one for one in statement.market.instruments if one.cluster in purchased]
    if contracts and sum(one.energy_uj for one in contracts) == own_uj:
        yield "market", _tonnes(sum(one.co2e_ug for one in contracts)), "t CO2e", "by declared contracts"
    else:
        yield "market", "", "t CO2e", f"not computed: {statement.market.problem or 'nothing was purchased'}"
    for offset in statement.offsets:
        yield "offset", _tonnes(offset.co2e_ug), "t CO2e", f"{offset.kind}: {offset.name}; in no other row"


def _tonnes(co2e_ug: int | None) -> str:
    return "" if co2e_ug is None else decimal(co2e_ug, UG_PER_T)


_COLUMNS = ("quantity", "ghg_protocol", "esrs_2023", "efrag_ig3")


def _places() -> dict[str, tuple[str, ...]]:
    """Words for each quantity and where it belongs; ESRS numbers change between its versions, so they are data."""
    with (files("carbon_sched") / "ledger" / "statement" / "disclosures.csv").open(encoding="utf-8") as file:
        return {row["key"]: tuple(row[name] for name in _COLUMNS) for row in csv.DictReader(file)}


# ---------------------------------------------------------------------------------------------------------- Prometheus

_LABELS = ("team", "project", "model", "phase", "cluster", "zone", "source", "reporter")
_METRICS = (
    ("carbon_sched_it_energy_joules", "energy_uj", UJ_PER_J, "IT energy in the selection"),
    ("carbon_sched_facility_energy_joules", "facility_uj", UJ_PER_J, "IT energy times PUE"),
    ("carbon_sched_covered_energy_joules", "covered_uj", UJ_PER_J, "IT energy whose intensity is known"),
    ("carbon_sched_co2e_grams", "co2e_ug", UG_PER_G, "CO2e of the covered energy, life cycle"),
)


def as_prometheus(statement: Statement) -> str:
    """Prometheus' text format 0.0.4: gauges, since a restatement may lower them."""
    groups = statement.by(*_LABELS)
    lines = [
        "# HELP carbon_sched_ledger_size Entries of the ledger that this was computed from",
        "# TYPE carbon_sched_ledger_size gauge",
        f"carbon_sched_ledger_size {statement.ledger_size}",
    ]
    for name, field, scale, about in _METRICS:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge"]
        for values, line in groups:
            labels = ",".join(f'{label}="{_label(value)}"' for label, value in zip(_LABELS, values, strict=True))
            lines.append(f"{name}{{{labels}}} {decimal(getattr(line, field), scale)}")
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
