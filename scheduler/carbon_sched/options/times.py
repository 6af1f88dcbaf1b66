"""Times, durations, sizes and powers as people write them. Pure: the present instant and the local zone are given."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import to_rfc3339

if TYPE_CHECKING:
    from datetime import tzinfo

SECONDS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
LONGEST_S = 10 * 366 * 86_400
"""Ten years: longer than any job, short enough that every sum with a date stays a date."""
PREFIXES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
LARGEST = 10**18

_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)"
_DURATION = re.compile("".join(rf"(?:{_NUMBER}\s*{unit}\s*)?" for unit in SECONDS))
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_DATE = re.compile(r"\d{4}-\d\d-\d\d", flags=re.ASCII)
_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?([Zz]|[+-]\d\d:\d\d)?", flags=re.ASCII
)
_SIZE = re.compile(rf"{_NUMBER}\s*(?:([KMGTP]?)(I?)B)", flags=re.IGNORECASE | re.ASCII)
_POWER = re.compile(rf"{_NUMBER}\s*(k?)(W?)", flags=re.IGNORECASE | re.ASCII)

TIME_REMEDY = "Use 18:00 (local time), +6h, or RFC 3339 with a zone such as 2026-11-23T18:00:00Z"
DURATION_REMEDY = "Use numbers with units, such as 90s, 1h30m or 2d"


@dataclass(frozen=True)
class Instant:
    """A time as it was meant: `at` in UTC, and `echo`, how it was understood (empty where nothing was left open)."""

    at: datetime
    echo: str = ""


def parse_duration(field: str, text: str, *, zero: bool = False) -> float:
    """Seconds in `90s`, `1h30m`, `2d`; raises InvalidInput for anything else, and for nothing at all unless `zero`."""
    given = text.strip().lower()
    if given == "0" and zero:
        return 0.0
    if re.fullmatch(_NUMBER, given):
        raise InvalidInput(field, text, "has no unit", f"Write {given}s, {given}m or {given}h")
    if given.startswith("-"):
        raise InvalidInput(field, text, "is negative", DURATION_REMEDY)
    match = _DURATION.fullmatch(given)
    if not given or match is None:
        raise InvalidInput(field, text, "is not a duration", DURATION_REMEDY)
    seconds = sum(float(number or 0) * unit for number, unit in zip(match.groups(), SECONDS.values(), strict=True))
    if seconds == 0 and not zero:
        raise InvalidInput(field, text, "is no time at all", "Give more than zero")
    if seconds > LONGEST_S:
        raise InvalidInput(field, text, "is longer than ten years", DURATION_REMEDY)
    return seconds


def parse_instant(field: str, text: str, now: datetime, zone: tzinfo) -> Instant:
    """A time to come: `18:00` (the next one, in `zone`), `+6h`, or RFC 3339.

    Raises InvalidInput for anything else, and for local times that a change of the clocks skips or repeats.
    """
    given = text.strip()
    if given.startswith("+"):
        at = now + timedelta(seconds=parse_duration(field, given[1:]))
        return Instant(at, _echo(given, at, zone))
    if match := _CLOCK.fullmatch(given):
        today = now.astimezone(zone).replace(
            hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0, tzinfo=None, fold=0
        )
        at = next(at for day in (0, 1, 2) if (at := _local(field, text, today + timedelta(days=day), zone, now)) > now)
        return Instant(at, _echo(given, at, zone))
    return Instant(_rfc3339(field, text, zone))


def parse_past(field: str, text: str, now: datetime, zone: tzinfo) -> datetime:
    """A time of a report's period: RFC 3339, `2026-11-01` (local midnight) or `-7d`."""
    given = text.strip()
    if given.startswith("-"):
        return now - timedelta(seconds=parse_duration(field, given[1:]))
    if _DATE.fullmatch(given):
        try:
            midnight = datetime.fromisoformat(given)
        except ValueError as error:
            raise InvalidInput(field, text, f"is not a date ({error})", "Use YEAR-MONTH-DAY") from None
        return _local(field, text, midnight, zone, now)
    if not _INSTANT.fullmatch(given):
        remedy = "Use 2026-11-01 (local midnight), -7d, or RFC 3339 with a zone such as 2026-11-23T18:00:00Z"
        raise InvalidInput(field, text, "is not a time", remedy)
    return _rfc3339(field, text, zone)


def parse_size(field: str, text: str) -> int:
    """Bytes in `50GB` (10^9 each) or `16GiB` (2^30 each)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(field, text, "is not a size", "Use a number with a unit, such as 50GB or 16GiB")
    number, prefix, binary = match.groups()
    size: float = float(number) * (1024 if binary else 1000) ** PREFIXES[prefix.upper()]
    if size > LARGEST:
        raise InvalidInput(field, text, "is more than an exabyte", "Use a number with a unit, such as 50GB")
    return round(size)


def parse_power(field: str, text: str) -> float:
    """Watts in `300`, `300W` or `1.2kW`; more than zero."""
    match = _POWER.fullmatch(text.strip())
    if match is None or (match[2] and not match[3]):
        raise InvalidInput(field, text, "is not a power", "Use watts, such as 300, 300W or 1.2kW")
    watts = float(match[1]) * (1000 if match[2] else 1)
    if not 0 < watts <= 1e9:
        raise InvalidInput(field, text, "is not a power a job can draw", "Give watts above zero")
    return watts


def parse_amount(field: str, value: object) -> float:
    """A finite number of at least zero; `value` is a number, or text that stands for one."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise InvalidInput(field, value, "is not an amount", "Give zero or a positive number")
    return number


def parse_count(field: str, value: object) -> int:
    """A whole number of at least zero."""
    number = parse_amount(field, value)
    if number != int(number):
        raise InvalidInput(field, value, "is not a whole number", "Give a count such as 4")
    return int(number)


def _rfc3339(field: str, text: str, zone: tzinfo) -> datetime:
    match = _INSTANT.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(field, text, "is not a time", TIME_REMEDY)
    day, clock, seconds, fraction, offset = match.groups()
    fraction = f"{fraction or '':0<6}"[:6]
    try:
        naive = datetime.fromisoformat(f"{day}T{clock}:{seconds or '00'}.{fraction}")
        if offset is not None:
            shift = "+00:00" if offset in "Zz" else offset
            return datetime.fromisoformat(naive.isoformat(timespec="microseconds") + shift).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(field, text, f"is not a time ({error})", TIME_REMEDY) from None
    local = naive.replace(tzinfo=zone).isoformat()
    remedy = f"Write {local} (your zone, {zone_name(zone)}) or {naive.isoformat()}Z"
    raise InvalidInput(field, text, "has no time zone", remedy)


def _local(field: str, text: str, naive: datetime, zone: tzinfo, now: datetime) -> datetime:
    """The instant of a local time, in UTC; InvalidInput where the clocks skip or repeat it (unless both are past)."""
    try:
        first, second = (naive.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc) for fold in (0, 1))
    except OverflowError:
        raise InvalidInput(field, text, "is outside of the calendar", TIME_REMEDY) from None
    if first == second or max(first, second) <= now:
        return first
    exact = " or ".join(to_rfc3339(at) for at in sorted((first, second)))
    exists = first.astimezone(zone).replace(tzinfo=None) == naive
    what = "happens twice" if exists else "does not happen"
    problem = f"{what} on {naive.date()} in {zone_name(zone)}, where the clocks change"
    raise InvalidInput(field, text, problem, f"Write the instant you mean: {exact}")


def _echo(given: str, at: datetime, zone: tzinfo) -> str:
    local = at.astimezone(zone).replace(microsecond=0)
    shown = at.replace(microsecond=0)
    return f"{given} is {local:%Y-%m-%d %H:%M:%S} {local.tzname()} ({zone_name(zone)}), {to_rfc3339(shown)}"


def zone_name(zone: tzinfo) -> str:
    """`Europe/Berlin` where the zone has a name, else its offset."""
    return getattr(zone, "key", None) or str(zone)
