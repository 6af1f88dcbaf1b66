"""Reading an intensity series from CSV or JSON text, strictly: every doubt is a problem with its line."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidFile, Problem
from carbon_sched.domain.intensity import MAX_INTENSITY_MG_PER_KWH, Basis, Comparability, Signal
from carbon_sched.domain.time import from_rfc3339
from carbon_sched.domain.units import MG_PER_G, mg_per_kwh

if TYPE_CHECKING:
    from datetime import datetime, timedelta

START_COLUMNS = ("start", "datetime")
PLAIN_COLUMN = "g_per_kwh"
BASIS_COLUMN = {Basis.LIFECYCLE: "gCO2eq_per_kWh", Basis.DIRECT: "direct_gCO2eq_per_kWh"}
ESTIMATED = {"0": False, "1": True, "filled": True, "": True, "false": False, "true": True}
"""Values of the column `estimated`; empty means that nobody knows, which is no claim of a measurement."""
KG_SUSPECT_G_PER_KWH = {Basis.LIFECYCLE: 5.0, Basis.DIRECT: 1.5}
"""When no value is larger, the unit is more likely kg/kWh: no grid's life cycle is below 10 g/kWh all the time."""
MAX_PROBLEMS = 100
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MAX_G = MAX_INTENSITY_MG_PER_KWH // MG_PER_G


@dataclass(frozen=True)
class Series:
    """Contiguous, ascending values: `intensity_mg_per_kwh[i]` holds for `[starts[i], ends[i])`."""

    starts: tuple[datetime, ...]
    ends: tuple[datetime, ...]
    intensity_mg_per_kwh: tuple[int, ...]
    estimated: tuple[bool, ...]


@dataclass
class _Row:
    line: int
    start: datetime
    end: datetime | None
    g_per_kwh: float
    estimated: bool


def parse_series(text: str, name: str, like: Comparability) -> Series:
    """Parse the text of file `name`; raises InvalidFile that lists what is wrong, line by line.

    CSV with a header or a JSON list of objects, with the columns `start` (or `datetime`), optional `end`, and the
    value: `g_per_kwh`, or `gCO2eq_per_kWh` / `direct_gCO2eq_per_kWh` by the basis of `like`; optional `estimated`.
    Instants are RFC 3339 with a zone. Without `end` the step is the usual distance of two starts.
    """
    return _Parser(name, like).parse(text)


class _Parser:
    """One reading of one file: collects problems, then raises them together."""

    def __init__(self, name: str, like: Comparability) -> None:
        self._name, self._like = name, like
        self._problems: list[Problem] = []
        self._json = False
        self._start = self._value = ""
        self._has_end = False

    def parse(self, text: str) -> Series:
        self._json = text.lstrip()[:1] in ("[", "{")
        records = self._json_records(text) if self._json else self._csv_records(text)
        rows = [row for line, record in records if (row := self._row(line, record)) is not None]
        self._stop_if_problems()
        ends = self._ends(rows)
        self._check_order(rows, ends)
        self._check_unit([row.g_per_kwh for row in rows])
        self._stop_if_problems()
        return Series(
            tuple(row.start for row in rows),
            tuple(ends),
            tuple(mg_per_kwh(row.g_per_kwh) for row in rows),
            tuple(row.estimated for row in rows),
        )

    # what a record is ----------------------------------------------------------------------------

    def _csv_records(self, text: str) -> list[tuple[int, dict[str, Any]]]:
        reader = csv.reader(text.splitlines(), strict=True)
        records: list[tuple[int, dict[str, Any]]] = []
        header: list[str] = []
        try:
            for cells in reader:
                if not cells:
                    continue
                if not header:
                    header = [cell.strip() for cell in cells]
                    self._choose_columns(header)
                elif len(cells) != len(header):
                    problem = f"has {len(cells)} fields, the header has {len(header)}"
                    self._add(reader.line_num, "", problem, "Complete the line, or remove it")
                else:
                    records.append((reader.line_num, dict(zip(header, cells, strict=True))))
        except csv.Error as error:
            self._add(reader.line_num, "", f"is not CSV ({error})", "Correct the quoting")
        if not records and not self._problems:
            self._add(0, "", "holds no values", "Give a header line and at least one line of values")
        self._stop_if_problems()
        return records

    def _json_records(self, text: str) -> list[tuple[int, dict[str, Any]]]:
        decoder, records, at, line = json.JSONDecoder(), [], text.index(text.lstrip()[0]), 1
        try:
            whole = json.loads(text)
        except json.JSONDecodeError as error:
            self._add(error.lineno, "", f"is not JSON ({error.msg})", "Correct the file", column=error.colno)
            self._stop_if_problems()
        except (ValueError, RecursionError):
            self._add(0, "", "is not JSON that can be read (too deep, or a number too long)", "Correct the file")
            self._stop_if_problems()
        if not isinstance(whole, list) or not whole:
            self._add(0, "", "is not a list of values", 'Write [{"start": "...", "g_per_kwh": 123}, ...]')
            self._stop_if_problems()
        at, counted = at + 1, 0
        for _ in whole:
            while text[at] in " \t\r\n,":
                at += 1
            line, counted = line + text.count("\n", counted, at), at
            record, at = decoder.raw_decode(text, at)
            if isinstance(record, dict):
                records.append((line, record))
            else:
                self._add(line, "", "is not an object", 'Write {"start": "...", "g_per_kwh": 123}')
        self._stop_if_problems()
        self._choose_columns(list(records[0][1]))
        self._stop_if_problems()
        return records

    def _choose_columns(self, header: list[str]) -> None:
        self._start = next((name for name in START_COLUMNS if name in header), "")
        by_basis = BASIS_COLUMN[self._like.basis]
        self._value = next((name for name in (PLAIN_COLUMN, by_basis) if name in header), "")
        self._has_end = "end" in header
        if not self._start:
            self._add(
                1, "start", f"is not among the columns {', '.join(header)}", "Name the column of instants 'start'"
            )
        if not self._value:
            remedy = f"Name the column of g/kWh '{PLAIN_COLUMN}' (or '{by_basis}')"
            self._add(1, PLAIN_COLUMN, f"is not among the columns {', '.join(header)}", remedy)
        for name, count in Counter(header).items():
            if count > 1:
                self._add(1, name, "is the name of several columns", "Keep one of them")

    # one row -------------------------------------------------------------------------------------

    def _row(self, line: int, record: dict[str, Any]) -> _Row | None:
        start = self._instant(line, self._start, record.get(self._start))
        end = self._instant(line, "end", record.get("end")) if self._has_end else None
        value = self._intensity(line, record.get(self._value))
        estimated = self._flag(line, record["estimated"]) if "estimated" in record else False
        if start is None or value is None or estimated is None or (self._has_end and end is None):
            return None
        if end is not None and end <= start:
            self._add(line, "end", "is not after the start", "Correct it: an interval is [start, end)")
            return None
        return _Row(line, start, end, value, estimated)

    def _instant(self, line: int, field: str, raw: object) -> datetime | None:
        try:
            return from_rfc3339(raw.strip() if isinstance(raw, str) else "")
        except (ValueError, OverflowError) as error:
            naive = "naive" in str(error)
            problem = "has no time zone" if naive else "is not an instant"
            self._add(line, field, f"{raw!r} {problem}", "Write RFC 3339 with a zone: 2026-03-10T14:00:00Z")
            return None

    def _intensity(self, line: int, raw: object) -> float | None:
        value = self._number(raw)
        if value is None or not math.isfinite(value):
            self._add(line, self._value, f"{raw!r} is not a number", "Give g/kWh as a plain number, or drop the line")
        elif value < 0:
            self._add(line, self._value, f"{raw} is negative", "No grid has a negative intensity; drop the line")
        elif value > MAX_G:
            remedy = f"Nothing above {MAX_G} g/kWh is a grid's intensity; convert the unit (g/MWh, lb/MWh?) to g/kWh"
            self._add(line, self._value, f"{raw} is out of range", remedy)
        elif value == 0 and not self._zero_can_be():
            remedy = "A life-cycle average is never zero; give the value, or say that the series is direct or marginal"
            self._add(line, self._value, "is 0", remedy)
        else:
            return value
        return None

    def _zero_can_be(self) -> bool:
        return self._like.basis is Basis.DIRECT or self._like.signal is Signal.MARGINAL

    def _number(self, raw: object) -> float | None:
        if isinstance(raw, str) and not self._json:
            return float(raw) if NUMBER.fullmatch(raw.strip()) else None
        return float(raw) if isinstance(raw, (int, float)) and not isinstance(raw, bool) else None

    def _flag(self, line: int, raw: object) -> bool | None:
        text = "" if raw is None else str(raw).strip().lower()
        if text not in ESTIMATED:
            self._add(line, "estimated", f"{raw!r} is not understood", "Write 0, 1, 'filled', or leave it empty")
        return ESTIMATED.get(text)

    # all rows ------------------------------------------------------------------------------------

    def _ends(self, rows: list[_Row]) -> list[datetime]:
        if self._has_end:
            return [row.end for row in rows if row.end is not None]
        steps = Counter(b.start - a.start for a, b in pairwise(rows) if b.start > a.start)
        if not steps:
            self._add(
                rows[0].line, "end", "is missing and no step can be inferred", "Add a column 'end', or a second line"
            )
            return []
        step = steps.most_common(1)[0][0]
        return [row.start + step for row in rows]

    def _check_order(self, rows: list[_Row], ends: list[datetime]) -> None:
        for before, end, row in zip(rows, ends, rows[1:], strict=False):
            if row.start == end:
                continue
            problem, remedy = _disorder(before.start, end, row.start)
            self._add(row.line, self._start, f"{row.start.isoformat()} {problem}", remedy)

    def _check_unit(self, values: list[float]) -> None:
        limit = KG_SUSPECT_G_PER_KWH[self._like.basis]
        if 0 < max(values) < limit and self._like.signal is Signal.AVERAGE:
            problem = f"never reaches {limit:g} g/kWh: this looks like kg/kWh"
            self._add(0, self._value, problem, "Multiply the values by 1000")

    def _add(self, line: int, field: str, problem: str, remedy: str, *, column: int = 0) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(self._name, line, column, field, problem, remedy))

    def _stop_if_problems(self) -> None:
        if self._problems:
            raise InvalidFile(tuple(self._problems))


def _disorder(before: datetime, end: datetime, start: datetime) -> tuple[str, str]:
    if start == before:
        return "stands twice", "Remove one of the two lines"
    if start < before:
        return "is earlier than the line before it", "Sort the file by time"
    if start < end:
        return f"overlaps the interval before it, which ends at {end.isoformat()}", "Use one step throughout"
    return f"leaves a gap after {end.isoformat()} ({_span(start - end)} missing)", "Add the missing lines"


def _span(duration: timedelta) -> str:
    return str(duration).removesuffix(", 0:00:00")
