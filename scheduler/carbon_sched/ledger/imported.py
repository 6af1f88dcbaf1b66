"""Rows of CodeCarbon's `emissions.csv`, read for the ledger: what another tool said, kept apart from what was metered.

Energies there are kWh of the facility (x PUE), emissions kg. A run that was written several times stands there with
growing figures: the longest row holds. Times are those of the machine that wrote them, without a zone.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import to_rfc3339, utc
from carbon_sched.domain.units import PPM, UG_PER_G, UJ_PER_KWH
from carbon_sched_runtime.codecarbon import COLUMNS, KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

NEEDED = ("timestamp", "project_name", "run_id", "duration", "emissions", "energy_consumed")
"""Columns that every version since 2.0 writes; the others are read where they are there."""
ROWS, RUNS = 10_000, 1_000
SOUND = "Give the file as CodeCarbon wrote it"
UG_PER_KG = 1_000 * UG_PER_G
LARGEST = Decimal(10) ** 18
"""Of a stored integer: far more than any run emits, and less than 64 bits hold."""


@dataclass(frozen=True)
class ImportedRun:
    """One run of another tool. `facility_uj` includes what that tool took as PUE; `components` are parts of it."""

    run: str
    name: str
    tool_version: str
    start: datetime
    end: datetime
    facility_uj: int
    co2e_ug: int
    pue_ppm: int | None
    country: str
    region: str
    components: dict[str, int]

    def body(self) -> dict[str, Any]:
        """As the fact holds it, but for whose it is."""
        times = {"start": to_rfc3339(self.start), "end": to_rfc3339(self.end)}
        return {**vars(self), **times}


def read_codecarbon(text: str, zone: tzinfo) -> list[ImportedRun]:
    """Runs in the order of their first row. InvalidInput, naming line and column, for what is no such file."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        known = f"CodeCarbon writes {len(COLUMNS)} columns, {', '.join(NEEDED)} among them"
        raise InvalidInput("file", ", ".join(missing), "is not a column of it", f"Give an emissions.csv: {known}")
    runs: dict[str, ImportedRun] = {}
    try:
        for number, row in enumerate(reader, start=1):
            if number > ROWS:
                raise InvalidInput("file", f"row {number}", f"is one of more than {ROWS}", "Split the file")
            run = _run(row, f"line {reader.line_num}", zone)
            before = runs.get(run.run)
            if before is None or run.end - run.start >= before.end - before.start:
                runs[run.run] = run
    except csv.Error as error:
        raise InvalidInput("file", f"line {reader.line_num}", f"is no CSV ({error})", "Give an emissions.csv") from None
    if len(runs) > RUNS:
        raise InvalidInput("file", f"{len(runs)} runs", f"are more than {RUNS}", "Split the file")
    return list(runs.values())


def _run(row: Mapping[str, str | None], place: str, zone: tzinfo) -> ImportedRun:
    end = _time(row, place, zone)
    pue = _number(row, "pue", place, PPM) if row.get("pue") else None
    parts = {
        kind: _number(row, f"{name}_energy", place, UJ_PER_KWH) for name, kind in KINDS if row.get(f"{name}_energy")
    }
    return ImportedRun(
        run=_text(row, "run_id", place),
        name=row.get("project_name") or "",
        tool_version=row.get("codecarbon_version") or "",
        start=_start(row, place, end),
        end=end,
        facility_uj=_number(row, "energy_consumed", place, UJ_PER_KWH),
        co2e_ug=_number(row, "emissions", place, UG_PER_KG),
        pue_ppm=pue,
        country=row.get("country_iso_code") or "",
        region=row.get("region") or "",
        components=parts,
    )


def _start(row: Mapping[str, str | None], place: str, end: datetime) -> datetime:
    lasted = _number(row, "duration", place, 1_000_000)
    try:
        return end - timedelta(microseconds=lasted)
    except OverflowError:
        raise InvalidInput(f"{place}, duration", row["duration"], "is longer than time is", SOUND) from None


def _text(row: Mapping[str, str | None], column: str, place: str) -> str:
    value = row.get(column)
    if not value:
        raise InvalidInput(f"{place}, {column}", value or "", "is empty", SOUND)
    return value


def _number(row: Mapping[str, str | None], column: str, place: str, scale: int) -> int:
    """The nearest integer of `scale` times the cell; exact, whatever the number of digits."""
    text = _text(row, column, place)
    try:
        value = Decimal(text) * scale
        whole = int(value.to_integral_value()) if value.is_finite() and 0 <= value <= LARGEST else None
    except InvalidOperation:
        whole = None
    if whole is None:
        raise InvalidInput(f"{place}, {column}", text, "is not an amount of zero or more", SOUND)
    return whole


def _time(row: Mapping[str, str | None], place: str, zone: tzinfo) -> datetime:
    text = _text(row, "timestamp", place)
    try:
        found = datetime.fromisoformat(text)
        return utc(found if found.tzinfo else found.replace(tzinfo=zone))
    except (ValueError, OverflowError):
        remedy = "CodeCarbon writes 2026-11-28T20:46:43"
        raise InvalidInput(f"{place}, timestamp", text, "is not a time", remedy) from None
