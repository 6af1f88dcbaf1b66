"""A statement as CodeCarbon's `emissions.csv`: its columns and units, as in CodeCarbon 3.3.2, one row per job.

There energies and powers are those of the facility (x PUE), emissions are kg. What the ledger does not know is an empty
cell, never 0: the job's operating system, Python and processors, its utilisation, water.
"""

from __future__ import annotations

import csv
import io
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from carbon_sched.domain.time import from_rfc3339
from carbon_sched.domain.units import UG_PER_G, UJ_PER_J, UJ_PER_KWH
from carbon_sched.ledger.figures import safe_cell
from carbon_sched_runtime.codecarbon import COLUMNS, KINDS, SEMANTICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.ledger.statement.model import JobRow, Line, Statement

UG_PER_KG = 1_000 * UG_PER_G
Cell = str | float | None


def as_codecarbon(statement: Statement) -> str:
    """The file; jobs that used nothing have no row, as CodeCarbon would have written none."""
    lines: dict[str, list[Line]] = {}
    for line in statement.lines:
        lines.setdefault(line.job, []).append(line)
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for job in statement.jobs:
        if mine := lines.get(job.job):
            cells = _row(job, mine)
            writer.writerow({name: safe_cell(value) for name, value in cells.items()})
    return out.getvalue()


def _row(job: JobRow, lines: list[Line]) -> dict[str, Cell]:
    facility_uj, it_uj = sum(line.facility_uj for line in lines), sum(line.energy_uj for line in lines)
    covered = all(line.covered_uj == line.energy_uj for line in lines)
    emissions = sum(line.co2e_ug for line in lines) / UG_PER_KG if covered else None
    seconds = (from_rfc3339(job.end) - from_rfc3339(job.start)).total_seconds() if job.start and job.end else None
    cells: dict[str, Cell] = {
        **dict.fromkeys(COLUMNS),
        "timestamp": job.end.removesuffix("Z") if job.end else None,
        "project_name": job.project or job.name,
        "run_id": job.job,
        "experiment_id": job.name,
        "duration": seconds,
        "emissions": emissions,
        "emissions_rate": emissions / seconds if emissions is not None and seconds else None,
        "energy_consumed": facility_uj / UJ_PER_KWH,
        "codecarbon_version": SEMANTICS,
        "tracking_mode": "process",
        "pue": facility_uj / it_uj if it_uj else None,
        **_place(job.zones),
    }
    for name, kind in KINDS:
        of_kind = [line.facility_uj for line in lines if line.component == kind]
        if of_kind:
            cells[f"{name}_energy"] = sum(of_kind) / UJ_PER_KWH
            cells[f"{name}_power"] = sum(of_kind) / UJ_PER_J / seconds if seconds else None
    return cells


def _place(zones: str) -> dict[str, Cell]:
    """Country and region of a zone; of several zones only their names, as a region."""
    country = _countries().get(zones.split("-", maxsplit=1)[0]) if ", " not in zones else None
    known: dict[str, Cell] = {"country_iso_code": country[0], "country_name": country[1]} if country else {}
    return known | {"region": zones}


@cache
def _countries() -> Mapping[str, tuple[str, str]]:
    """ISO 3166 code of three letters and name, by code of two: a table of the package, read as a file."""
    with (files("carbon_sched") / "grid" / "data" / "countries.csv").open(encoding="utf-8") as file:
        return {row["iso2"]: (row["iso3"], row["name"]) for row in csv.DictReader(file)}
