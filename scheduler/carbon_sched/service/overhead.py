"""What a suspension took of an attempt beside its work, by the wrapper's record: stretches whose energy is overhead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.energy import Overhead, Window
from carbon_sched.domain.time import from_epoch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched.domain.job import Attempt
    from carbon_sched.service.journal import AttemptRecord


def overhead(attempt: Attempt, record: AttemptRecord | None) -> list[Window]:
    """The stretches, in order of time. What the record does not say is left out: it is unknown, not nothing."""
    return [] if record is None else sorted(_stretches(attempt, record), key=lambda one: one.start)


def _stretches(attempt: Attempt, record: AttemptRecord) -> Iterator[Window]:
    start, end = record.started, record.ended
    if start is not None and record.resumed is not None:
        yield from _stretch(Overhead.RESTART, start, min(record.resumed, end or record.resumed))
    if attempt.recalled is not Cause.SUSPENDED or end is None or record.stopping is None:
        return
    if record.saved is not None and start is not None:
        yield from _stretch(Overhead.LOST, max(record.saved, record.resumed or start), record.stopping)
    yield from _stretch(Overhead.SAVING, record.stopping, end)


def _stretch(kind: Overhead, start: float, end: float) -> Iterator[Window]:
    """A clock that was set, or a state saved after the stop, leaves none."""
    if end > start:
        yield Window(kind.value, from_epoch(start), from_epoch(end), {})
