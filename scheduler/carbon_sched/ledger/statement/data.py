"""A statement for programs: exact integers in the ledger's units, under the names of `statement/model.py`."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import UG_PER_G, UJ_PER_KWH
from carbon_sched.ledger.figures import decimal, safe_cell
from carbon_sched.ledger.json_bytes import indented
from carbon_sched.ledger.statement.lines import SUMS
from carbon_sched.ledger.statement.model import Line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from carbon_sched.ledger.statement.model import Statement

PEOPLES = {
    "energy_kwh": ("energy_uj", UJ_PER_KWH),
    "facility_kwh": ("facility_uj", UJ_PER_KWH),
    "co2e_g": ("co2e_ug", UG_PER_G),
}
"""Columns of the CSV that repeat a sum in a unit of people."""


def as_json(statement: Statement) -> str:
    """One object: the statement's fields, with their totals beside them; keys sorted."""
    return indented(_document(statement)) + "\n"


def _document(statement: Statement) -> dict[str, Any]:
    document = {field.name: getattr(statement, field.name) for field in fields(statement)}
    document["selection"] = _selection(statement)
    document["comparisons"] = [asdict(one) | {"saved_ug": one.saved_ug} for one in statement.comparisons]
    return document | {"totals": totals(statement)}


def totals(statement: Statement) -> dict[str, int]:
    """The sums that a statement stands for."""
    sums = {name: statement.total(name) for name in SUMS}
    return sums | {"upstream_ug": statement.upstream_ug, "unseparated_ug": statement.unseparated_ug}


def _selection(statement: Statement) -> dict[str, Any]:
    selection = asdict(statement.selection)
    period = selection.pop("period")
    return selection | {name: to_rfc3339(value) if value else None for name, value in period.items()}


def as_jsonl(statement: Statement) -> str:
    """One object in a line for each row of each table, told apart by `table`; the totals first."""
    rows = _rows(statement)
    return "".join(json.dumps(row, sort_keys=True, ensure_ascii=False, default=vars) + "\n" for row in rows)


def _rows(statement: Statement) -> Iterator[Mapping[str, Any]]:
    document = _document(statement)
    yield {"table": "totals"} | document.pop("totals") | {"ledger_head": statement.ledger_head}
    for name, value in sorted(document.items()):
        if isinstance(value, (tuple, list)):
            yield from ({"table": name} | (_columns(item) or {"value": item}) for item in value)
        elif columns := _columns(value):
            yield {"table": name} | columns


def _columns(value: Any) -> dict[str, Any] | None:
    """None for what is no row."""
    return value if isinstance(value, dict) else vars(value) if is_dataclass(value) else None


def as_csv(statement: Statement) -> str:
    """The lines, exact integers first and then the same for people. Rows end with CR LF (RFC 4180)."""
    names = [field.name for field in fields(Line)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([*names, *PEOPLES])
    for line in statement.lines:
        row = asdict(line)
        amounts = [decimal(row[field], scale) for field, scale in PEOPLES.values()]
        writer.writerow([*(safe_cell(row[name]) for name in names), *amounts])
    return out.getvalue()
