"""What every provider is and shares: its method, strict numbers, and how points become readings."""

from __future__ import annotations

import bisect
import itertools
import logging
import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Protocol

from carbon_sched.domain.errors import GridMalformed
from carbon_sched.domain.intensity import (
    MAX_INTENSITY_MG_PER_KWH,
    Basis,
    Comparability,
    Grade,
    Kind,
    Perimeter,
    Reading,
    Signal,
)
from carbon_sched.domain.time import UTC, from_rfc3339
from carbon_sched.domain.units import MG_PER_G, mg_per_kwh

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from carbon_sched.grid.answers import Answer

log = logging.getLogger(__name__)

HOUSE = Comparability(Signal.AVERAGE, Basis.LIFECYCLE, Perimeter.CONSUMPTION)
"""What values are taken for when nothing else is said: what most providers and the shipped yearly averages publish."""
CLOCK_SKEW = timedelta(minutes=5)
"""How far a provider's clock may be ahead of ours before its "measured" values are refused as from the future."""
LB_PER_MWH_IN_G_PER_KWH = 0.45359237
"""1 lb = 453.59237 g exactly (international avoirdupois pound), 1 MWh = 1000 kWh."""


@dataclass(frozen=True)
class Method:
    """How a provider counts, and what may be done with its values.

    `retention` is `full`, or `used-only` where the licence forbids keeping more than the values used and their hash.
    """

    provider: str
    like: Comparability
    licence: str
    retention: str = "full"

    @property
    def zero_can_be(self) -> bool:
        """A life-cycle average is never zero; a direct or a marginal one may be."""
        return self.like.basis is Basis.DIRECT or self.like.signal is Signal.MARGINAL


class Provider(Protocol):
    """One source on the internet, without memory (`cache.CachedSource` gives it one).

    ttl: how long an answer stays fresh. lookback: how far back it may be asked. horizon: how far ahead it may know.
    max_span: the longest period for one `fetch` of the past.
    """

    name: str
    ttl: timedelta
    lookback: timedelta
    horizon: timedelta
    max_span: timedelta

    def zones(self) -> frozenset[str]:
        """Zones it can answer for."""

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Ask now. Readings that overlap `[start, end)`, ordered, not overlapping, maybe with holes; or a GridError."""


class Collector:
    """Takes a provider's points, refuses what cannot be, and makes readings of the rest.

    A value out of range, an impossible zero, a "measured" value from the future and two different values for one
    interval are refused one by one and logged; a value that is not a number makes the whole answer malformed.
    """

    def __init__(self, method: Method, zone: str, now: datetime, answer: Answer) -> None:
        self._method, self._zone, self._now, self._answer = method, zone, now, answer
        self._sha256 = answer.sha256
        self._found: dict[datetime, Reading] = {}
        self._conflicts: set[datetime] = set()
        self._refused: list[str] = []

    def add(
        self,
        start: datetime,
        end: datetime,
        g_per_kwh: Any,
        kind: Kind,
        *,
        issued_at: datetime | None = None,
        model_version: str = "",
    ) -> None:
        """Take one point; None (null) is no value. Of two values for one interval a forecast gives way."""
        value = number(self._method.provider, g_per_kwh)
        if value is None or self._refuses(start, value, kind):
            return
        like, fetched = self._method.like, self._answer.at
        reading = Reading(
            zone=self._zone,
            start=start,
            end=end,
            intensity_mg_per_kwh=mg_per_kwh(value),
            signal=like.signal,
            basis=like.basis,
            perimeter=like.perimeter,
            kind=kind,
            grade=Grade.PROVIDER_FORECAST if kind is Kind.FORECAST else Grade.LIVE,
            provider=self._method.provider,
            issued_at=min(issued_at or fetched, fetched),
            fetched_at=fetched,
            model_version=model_version,
            payload_sha256=self._sha256,
            licence=self._method.licence,
            retention=self._method.retention,
        )
        self._keep(reading)

    def readings(self, start: datetime, end: datetime) -> list[Reading]:
        """What was taken and overlaps `[start, end)`, ordered, free of overlaps; GridMalformed if all was refused."""
        for moment in self._conflicts:
            self._found.pop(moment, None)
        if self._refused:
            head = "; ".join(self._refused[:3])
            log.warning("%s: %s: refused %d values: %s", self._method.provider, self._zone, len(self._refused), head)
            if not self._found:
                raise GridMalformed(f"{self._method.provider}: no usable value for {self._zone}: {head}")
        return _without_overlaps(r for _, r in sorted(self._found.items()) if r.start < end and r.end > start)

    def _refuses(self, start: datetime, value: float, kind: Kind) -> bool:
        problem = ""
        if not 0 <= value <= MAX_INTENSITY_MG_PER_KWH / MG_PER_G:
            problem = f"{value:g} g/kWh is no grid's intensity"
        elif value == 0 and not self._method.zero_can_be:
            problem = "0 g/kWh cannot be a life-cycle average"
        elif kind is not Kind.FORECAST and start > self._now + CLOCK_SKEW:
            problem = "a measured value from the future"
        if problem:
            self._refused.append(f"{problem} ({start.isoformat()})")
        return bool(problem)

    def _keep(self, new: Reading) -> None:
        old = self._found.get(new.start)
        if old is None or (old.kind is Kind.FORECAST and new.kind is not Kind.FORECAST) or _newer(new, old):
            self._found[new.start] = new
        elif new.kind is Kind.FORECAST and old.kind is not Kind.FORECAST:
            return
        elif new.intensity_mg_per_kwh != old.intensity_mg_per_kwh and not _newer(old, new):
            self._conflicts.add(new.start)
            self._refused.append(f"two different values ({new.start.isoformat()})")


def _newer(left: Reading, right: Reading) -> bool:
    return left.issued_at > right.issued_at and (left.kind is Kind.FORECAST) == (right.kind is Kind.FORECAST)


def _without_overlaps(readings: Iterable[Reading]) -> list[Reading]:
    """Drop what begins before its predecessor ends: two steps mixed in one answer cannot both be right."""
    kept: list[Reading] = []
    for reading in readings:
        if not kept or reading.start >= kept[-1].end:
            kept.append(reading)
    return kept


def number(provider: str, value: Any) -> float | None:
    """A JSON number as a float, null as None; anything else (text, true, infinity) makes the answer malformed."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise GridMalformed(f"{provider}: {str(value)[:40]!r} stands where a number is documented")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise GridMalformed(f"{provider}: a number is not finite")
    return result


def instant(provider: str, value: Any, *, naive_is: timezone | None = None) -> datetime:
    """An ISO 8601 instant in UTC; `naive_is` says what a missing zone means where the provider documents it."""
    try:
        text = str(value)
        parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
        if parsed.tzinfo is None and naive_is is not None:
            return parsed.replace(tzinfo=naive_is).astimezone(UTC)
        return from_rfc3339(text)
    except (ValueError, OverflowError):
        raise GridMalformed(f"{provider}: {str(value)[:40]!r} stands where an instant is documented") from None


def items(provider: str, value: Any, *path: str) -> list[Any]:
    """The list at `path` inside nested objects; GridMalformed when the answer is not shaped so."""
    found = member(provider, value, *path)
    if not isinstance(found, list):
        raise GridMalformed(f"{provider}: the answer has no list {'.'.join(path) or 'at its top'}")
    return found


def member(provider: str, value: Any, *path: str) -> Any:
    """The value at `path` inside nested objects; GridMalformed when a step is missing or not an object."""
    for key in path:
        if not isinstance(value, dict) or key not in value:
            raise GridMalformed(f"{provider}: the answer has no {'.'.join(path)}")
        value = value[key]
    return value


def record(provider: str, value: Any) -> Mapping[str, Any]:
    """One element of a list, which must be an object."""
    if not isinstance(value, dict):
        raise GridMalformed(f"{provider}: {str(value)[:40]!r} stands where an object is documented")
    return value


def steps(starts: list[datetime], usual: timedelta) -> list[timedelta]:
    """How long each point of a series holds when only starts are published, in the order of `starts`.

    Until the next point, but never longer than the usual step: the rest is a hole.
    """
    ordered = sorted(set(starts))
    out = []
    for start in starts:
        index = bisect.bisect_right(ordered, start)
        out.append(min(usual, ordered[index] - start) if index < len(ordered) else usual)
    return out


def usual_step(starts: list[datetime], otherwise: timedelta) -> timedelta:
    """The most frequent distance of neighbours (the shorter one when tied)."""
    ordered = sorted(set(starts))
    gaps = [b - a for a, b in itertools.pairwise(ordered)]
    return min(set(gaps), key=lambda gap: (-gaps.count(gap), gap)) if gaps else otherwise
