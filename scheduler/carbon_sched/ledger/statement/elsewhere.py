"""What other tools said of runs that we did not meter: beside a statement's figures, in none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from carbon_sched.domain.time import from_rfc3339
from carbon_sched.ledger.documents.document import Section, Table
from carbon_sched.ledger.figures import co2e, kwh
from carbon_sched.ledger.statement.model import Imported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.selection import Selection


def imported(book: Book, selection: Selection) -> list[Imported]:
    """Imported runs of a selection, in the order they were imported; each counts whole, by when it ended.

    They ran on no cluster and in no job of ours: a selection of those holds none of them.
    """
    if selection.jobs or selection.cluster is not None:
        return []
    labels = ("team", "project", "model", "phase")
    return [
        Imported(**{name: body[name] for name in (*labels, "stage", "tool", "by")}, **_run(run))
        for body in book.imports
        for run in body["runs"]
        if all(getattr(selection, name) in (None, body[name]) for name in labels)
        and selection.period.holds(from_rfc3339(run["end"]))
    ]


def _run(run: dict[str, Any]) -> dict[str, Any]:
    names = ("run", "name", "tool_version", "start", "end", "facility_uj", "co2e_ug", "pue_ppm")
    return {name: run[name] for name in names}


def section(rows: Sequence[Imported]) -> Section:
    """As part of the document."""
    facility_uj, emitted_ug = sum(row.facility_uj for row in rows), sum(row.co2e_ug for row in rows)
    said = (
        f"Runs: {len(rows)}, {kwh(facility_uj)} with their own PUE, {co2e(emitted_ug)}.",
        "Other tools said so, by other methods, and people imported it: it is in no other figure of this statement.",
    )
    table = Table(
        ("run", "name", "tool", "from", "until", "imported by", "energy with PUE", "CO2e"),
        tuple(
            (
                row.run,
                row.name,
                f"{row.tool} {row.tool_version}",
                row.start,
                row.end,
                row.by,
                kwh(row.facility_uj),
                co2e(row.co2e_ug),
            )
            for row in rows
        ),
        right_from=6,
    )
    return Section("Imported, not metered", said, (table,))
