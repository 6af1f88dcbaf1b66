"""A report as text, CSV, Markdown or JSON. The same report gives the same bytes, whatever the locale or platform.

Names come from users: control characters never reach a terminal, no cell starts a spreadsheet formula, Markdown and its
HTML stay text.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import UG_PER_G, UJ_PER_KWH
from carbon_sched.ledger.documents.text import aligned, bullets, piped
from carbon_sched.ledger.figures import co2e, counted, decimal, escaped, kwh, percent, safe_cell, shown
from carbon_sched.ledger.report import GROUPINGS, Line, Totals

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.ledger.report import JobLine, Report

MEDIA_TYPES = {
    "text": "text/plain; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "json": "application/json",
}


def render(report: Report, form: str) -> str:
    """`report` in one of MEDIA_TYPES' forms; KeyError for another."""
    return {"text": _text, "csv": _csv, "md": _markdown, "json": _json}[form](report)


# ------------------------------------------------------------------------------------------------------- for machines


def _json(report: Report) -> str:
    """Exact integers; keys sorted; amounts for people are left to whoever shows them."""
    selection = asdict(report.selection)
    period = selection.pop("period")
    document: dict[str, Any] = {
        "selection": selection | {name: _time(value) for name, value in period.items()},
        "ledger": {"size": report.ledger_size, "head": report.ledger_head},
        "totals": asdict(report.totals),
        "by": {grouping: [{"value": v} | asdict(t) for v, t in report.by(grouping)] for grouping in GROUPINGS},
        "comparisons": [asdict(one) | {"saved_ug": one.saved_ug} for one in report.comparisons],
        "not_compared": list(report.not_compared),
        "unowned": [asdict(one) for one in report.unowned],
        "jobs": [_flat(job) for job in report.jobs],
        "lines": [_flat(line) for line in report.lines],
    }
    return json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _flat(row: Line | JobLine) -> dict[str, Any]:
    """A line with its totals' columns beside its own."""
    values = asdict(row)
    totals: dict[str, int] = values.pop("totals")
    return values | totals


def _csv(report: Report) -> str:
    """One row per line, exact integers first, then the same for people; jobs that used nothing have a row too.

    Rows end with CR LF (RFC 4180).
    """
    used = {line.job for line in report.lines}
    rows = [_flat(line) | _for_people(line.totals) for line in report.lines]
    rows += [_flat(job) | _for_people(job.totals) for job in report.jobs if job.job not in used]
    names = [field.name for field in fields(Line) if field.name != "totals"]
    names += [field.name for field in fields(Totals)] + list(_for_people(Totals()))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows([safe_cell(row.get(name, "")) for name in names] for row in rows)
    return out.getvalue()


def _for_people(totals: Totals) -> dict[str, str]:
    return {
        "energy_kwh": decimal(totals.energy_uj, UJ_PER_KWH),
        "facility_kwh": decimal(totals.facility_uj, UJ_PER_KWH),
        "co2e_g": decimal(totals.co2e_ug, UG_PER_G),
    }


# -------------------------------------------------------------------------------------------------------- for people


def _text(report: Report) -> str:
    blocks = ["\n".join(_heading(report)), *(aligned(title, rows) for title, rows in _tables(report))]
    return "\n\n".join([*blocks, *filter(None, ["\n".join(_remarks(report))])]) + "\n"


def _markdown(report: Report) -> str:
    title, *facts = _heading(report)
    blocks = [
        f"# {title}",
        bullets(facts),
        *(f"## {escaped(title)}\n\n{piped(rows)}" for title, rows in _tables(report)),
    ]
    return "\n\n".join([*blocks, *filter(None, [bullets(_remarks(report))])]) + "\n"


_Rows = list[list[str]]
_TOTALS = ["IT energy", "facility", "CO2e", "covered"]


def _heading(report: Report) -> list[str]:
    selection, totals = report.selection, report.totals
    which = selection.words
    since, until = _time(selection.period.since), _time(selection.period.until)
    known = percent(totals.covered_uj, totals.energy_uj)
    lines = [
        "Energy and emissions of jobs",
        f"Selection: {which}, from {since or 'the beginning'} to {until or 'now'}",
        f"Jobs: {len(report.jobs)}",
        f"Energy: {kwh(totals.energy_uj)} IT, {kwh(totals.facility_uj)} with the building's share (PUE)",
        f"CO2e: {co2e(totals.co2e_ug)}, location-based",
        f"Intensity known for {known} of the energy; the rest is not in the CO2e",
        f"Ledger: {counted(report.ledger_size, 'entry')}",
        f"Head: {report.ledger_head}",
    ]
    return [shown(line) for line in lines]


def _tables(report: Report) -> list[tuple[str, _Rows]]:
    jobs = [
        [job.job, job.name, job.state + ("" if job.settled else " (not final)"), *_cells(job.totals)]
        for job in report.jobs
    ]
    tables = [("Jobs", [["job", "name", "state", *_TOTALS], *jobs])]
    for grouping in GROUPINGS:
        rows = [[value or "(none)", *_cells(totals)] for value, totals in report.by(grouping)]
        if len(rows) > 1:
            tables.append((f"By {grouping}", [[grouping, *_TOTALS], *rows]))
    compared = [
        [one.role, str(one.jobs), co2e(one.ours_ug), co2e(one.co2e_ug), co2e(one.saved_ug)]
        for one in report.comparisons
    ]
    if compared:
        tables.append(("Against other choices", [["choice", "jobs", "ours", "theirs", "saved"], *compared]))
    unowned = [[one.machine, one.pot, kwh(one.energy_uj)] for one in report.unowned]
    if unowned:
        title = "Metered beside jobs, owned by none of them, not in the totals"
        tables.append((title, [["machine", "what", "energy"], *unowned]))
    return tables


def _remarks(report: Report) -> list[str]:
    missing = [f"missing: {job.job}: {text}" for job in report.jobs for text in job.missing]
    return [shown(line) for line in [*missing, *(f"not compared: {text}" for text in report.not_compared)]]


def _cells(totals: Totals) -> list[str]:
    covered = percent(totals.covered_uj, totals.energy_uj)
    return [kwh(totals.energy_uj), kwh(totals.facility_uj), co2e(totals.co2e_ug), covered]


def _time(value: datetime | None) -> str | None:
    return None if value is None else to_rfc3339(value)
