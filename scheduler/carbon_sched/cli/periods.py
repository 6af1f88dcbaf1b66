"""Periods as people name them: a calendar year, quarter or month in UTC, or two times."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import UTC

if TYPE_CHECKING:
    from carbon_sched.ledger.account import Period

_YEAR, _MONTH = r"(?!0000)([0-9]{4})", r"(0[1-9]|1[0-2])"
_CALENDAR = re.compile(rf"{_YEAR}(?:-(?:{_MONTH}|Q([1-4])))?")


def period(text: str | None) -> Period:
    """`2026`, `2026-Q4`, `2026-11`, or two times with `..` between, of which one may be left out; None is all time.

    Raises InvalidInput for `--period`.
    """
    from carbon_sched.cli.clock import now
    from carbon_sched.ledger.account import ALWAYS, Period
    from carbon_sched.options.times import parse_past

    if text is None:
        return ALWAYS
    if ".." in text:
        since, until = (parse_past("--period", side, now(), UTC) if side else None for side in text.split("..", 1))
        if since and until and until <= since:
            raise InvalidInput("--period", text, "ends before it begins", "Give a later second time")
        return Period(since, until)
    found = _CALENDAR.fullmatch(text)
    if found is None:
        remedy = "Use 2026, 2026-Q4, 2026-11 or 2026-11-01..2026-11-08"
        raise InvalidInput("--period", text, "is no period", remedy)
    year, month, quarter = found.groups()
    if quarter:
        return _months(int(year), 3 * int(quarter) - 2, 3)
    return _months(int(year), int(month), 1) if month else _months(int(year), 1, 12)


def month(text: str | None) -> Period:
    """`2026-11`; None is all time. Raises InvalidInput for `--month`."""
    from carbon_sched.ledger.account import ALWAYS

    if text is None:
        return ALWAYS
    found = re.fullmatch(f"{_YEAR}-{_MONTH}", text)
    if found is None:
        raise InvalidInput("--month", text, "is not a month", "Write it as 2026-11")
    return _months(int(found[1]), int(found[2]), 1)


def _months(year: int, first: int, count: int) -> Period:
    from carbon_sched.ledger.account import Period

    years, months = divmod(first - 1 + count, 12)
    try:
        until = datetime(year + years, months + 1, 1, tzinfo=UTC)
    except ValueError:
        until = None  # no date is later than the year 9999
    return Period(datetime(year, first, 1, tzinfo=UTC), until)
