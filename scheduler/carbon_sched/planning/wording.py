"""The one sentence that a decision gives as its reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.time import to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOTABLE = 0.01


@dataclass(frozen=True)
class Comparison:
    """What a choice was compared with; grams as they would be booked, times in seconds from now.

    `at_once` is the least of all clusters with room at the earliest moment, `others` what each other one of them would
    emit then; `full` names clusters that have no room yet, `room_now` says whether any has; `patience_gain` is what six
    hours more would have saved. `load` is given where the job could have waited, but more work is at hand and expected
    than leaves room for it: as a share of all room. None: not known.
    """

    cluster: str
    start_s: float
    asked_s: float
    grams: float | None
    at_once: float | None
    others: Mapping[str, float]
    full: Sequence[str]
    room_now: bool
    patience_gain: float
    least_gain: float
    load: float | None = None


def chosen(what: Comparison, now: datetime) -> str:
    """Why this cluster at this time."""
    if what.start_s > what.asked_s:
        return _waits(what, now)
    when = "starts now" if what.start_s <= 0 else f"starts at {at(now, what.start_s)}, as early as it may"
    parts = [f"{when} on {what.cluster}: {_against(what)}"]
    if what.load is not None:
        asked = f"what waits and what is expected ask for {what.load:.0%} of the room there is"
        parts.append(f"does not wait for cleaner hours: {asked}")
    if what.patience_gain > max(NOTABLE, what.least_gain):
        parts.append(f"six hours of patience (--max-delay 6h) would save about {what.patience_gain:.0%}")
    return "; ".join(parts)


def _waits(what: Comparison, now: datetime) -> str:
    start = at(now, what.start_s)
    if not what.room_now:
        return f"waits for room: {what.cluster} is expected to have it at {start}"
    if what.at_once is None or what.grams is None:
        return f"waits until {start} for {what.cluster}, the only one whose grid intensity is known"
    saved = 1 - what.grams / what.at_once if what.at_once > 0 else 0.0
    compared = f"{_g(what.grams)} CO2e expected against {_g(what.at_once)} at once, {saved:.0%} less"
    return f"waits until {start} for {what.cluster}: {compared}"


def _against(what: Comparison) -> str:
    if what.grams is None:
        return "no comparable grid intensity is known"
    rivals = what.others
    if not rivals:
        rest = f"; no room on {', '.join(what.full)} yet" if what.full else ""
        return f"{_g(what.grams)} CO2e expected, the only cluster that can take it now{rest}"
    name = min(rivals, key=lambda rival: (rivals[rival], rival))
    if rivals[name] < what.grams:
        compared = f"{_g(rivals[name])} against {_g(what.grams)} CO2e"
        return f"{name} would save less than the required {what.least_gain:.0%} ({compared})"
    return f"least CO2e of {len(rivals) + 1} clusters, {_g(what.grams)} expected against {_g(rivals[name])} on {name}"


def offer(*, known: bool, later: bool, room: bool) -> str:
    """What to know of a candidate that is open to the job."""
    if not known:
        return "its grid intensity is not known, or not comparable with the others'"
    if not later:
        return ""
    return "its best start within the allowed delay" if room else "its best start, once there is room"


def full_hour(g_per_kwh: float | None, gpus: bool) -> str:  # noqa: FBT001
    """What the last room of an hour is worth where the jobs want more than there is."""
    if g_per_kwh is None:
        return ""
    return f"this hour is full: its last {'GPU' if gpus else 'CPU'} is worth {g_per_kwh:.0f} g/kWh"


def held(obstacles: Mapping[str, str]) -> str:
    """What a held job waits for."""
    if not obstacles:
        return "waits for a cluster: none is registered (add one with `carbon-sched clusters add`)"
    return "waits until a cluster can take it: " + _list(obstacles)


def refused(obstacles: Mapping[str, str]) -> str:
    """Why no cluster can ever run the job."""
    return "no cluster can ever run it: " + _list(obstacles)


def hopeless(deadline: datetime | None, shortest_s: float) -> str:
    """Why the deadline is lost."""
    when = to_rfc3339(deadline) if deadline else "its deadline"
    return f"cannot end by {when}: even its shortest expected run takes {timedelta(seconds=round(shortest_s))}"


def _list(obstacles: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in sorted(obstacles.items()))


def at(now: datetime, seconds: float) -> str:
    """An instant `seconds` from now, to the second."""
    return to_rfc3339((now + timedelta(seconds=seconds)).replace(microsecond=0))


def _g(grams: float) -> str:
    if grams >= 1000:
        return f"{grams / 1000:.3g} kg"
    return f"{grams:.3g} g" if grams >= 0.1 else f"{grams * 1000:.3g} mg"
