"""A setting's value as it would stand in a file, for people and JSON: the reverse of reading it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from carbon_sched.policy.schema import DAYS
from carbon_sched.policy.settings import QuietHours

DURATIONS = frozenset({"flexibility.max_delay", "signal.max_age"})
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def written(key: str, value: Any) -> Any:
    """The value of a dotted key in JSON types; `duration_s` of a written duration is the value again."""
    return _duration(value) if key in DURATIONS and value is not None else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, QuietHours):
        days = [DAYS[day] for day in sorted(value.days)]
        return {"from": _clock(value.begin_min), "to": _clock(value.end_min), "zone": str(value.zone), "days": days}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in sorted(value.items())}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _duration(seconds: float) -> str | int:
    left, text = int(seconds), ""
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or 0
