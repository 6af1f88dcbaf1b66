"""Energy spans: joules of one device for one owner, with the evidence behind them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime


class SourceClass(str, Enum):
    """How the joules were found, best first."""

    COUNTER = "counter"
    INTEGRATED = "integrated"
    ESTIMATED = "estimated"


class Reporter(str, Enum):
    """Who wrote the evidence: the job's own uid, a separately owned machine meter, or (no reader there) Ray itself."""

    SELF_REPORTED = "self-reported"
    INDEPENDENT = "independent"
    RAY = "ray"


IDLE = "idle"
UNATTRIBUTED = "unattributed"


_new = tuple.__new__


class _Fields(NamedTuple):
    owner: str
    cluster: str
    machine: str
    device: str
    device_kind: str
    start: datetime
    end: datetime
    energy_uj: int
    source: SourceClass
    reporter: Reporter
    scope: str
    rule: str
    error_ppm: int
    segment_sha256: str
    flags: tuple[str, ...] = ()


class EnergySpan(_Fields):
    """Energy of one device for one owner over `[start, end)`.

    `owner` is an attempt id, `idle` or `unattributed`. `error_ppm` bounds the meter's relative error. `segment_sha256`
    is the hash of the raw journal segment the span was read from. A tuple, for there are millions in a statement.
    Raises ValueError for negative energy and for a stretch without length.
    """

    __slots__ = ()

    def __new__(cls, *fields: Any, **named: Any) -> EnergySpan:  # noqa: PYI034 - Self is Python 3.11's
        """From the fields in their order, or by name."""
        return cls.of(_Fields(*fields, **named))

    @classmethod
    def of(cls, fields: tuple[Any, ...]) -> EnergySpan:
        """The same from all fifteen fields, twice as fast."""
        span = _new(cls, fields)
        if span.energy_uj < 0 or span.end <= span.start:
            message = f"not an energy span: {span.energy_uj} uJ over [{span.start!r}, {span.end!r})"
            raise ValueError(message)
        return span


class Channel(NamedTuple):
    """What one reporter says of one device for one owner: all of an energy span but its time and its joules."""

    owner: str
    cluster: str
    machine: str
    device: str
    device_kind: str
    source: SourceClass
    reporter: Reporter
    scope: str
    rule: str
    error_ppm: int
    flags: tuple[str, ...] = ()


class Stretch(NamedTuple):
    """Spans of one segment that share `[start, end)`: the microjoules of each channel, in their order.

    A ledger has millions of spans and few channels: what is the same for many is kept once, and looked at once.
    """

    channels: tuple[Channel, ...]
    start: datetime
    end: datetime
    energy_uj: tuple[int, ...]
    segment_sha256: str

    @classmethod
    def of(cls, fields: tuple[Any, ...]) -> Stretch:
        """From its fields. Raises ValueError as an energy span does."""
        stretch = _new(cls, fields)
        _, start, end, energy_uj, _ = fields
        if min(energy_uj) < 0 or end <= start:
            message = f"not an energy span: one of {energy_uj} uJ over [{start!r}, {end!r})"
            raise ValueError(message)
        return stretch

    @property
    def spans(self) -> Iterator[EnergySpan]:
        """One by one."""
        for channel, energy_uj in zip(self.channels, self.energy_uj, strict=True):
            yield EnergySpan.of(
                (*channel[:5], self.start, self.end, energy_uj, *channel[5:10], self.segment_sha256, channel.flags)
            )

    def only(self, kept: Sequence[bool]) -> Stretch | None:
        """Without the channels that are not kept; None when none is left."""
        if all(kept):
            return self
        energy_uj = tuple(compress(self.energy_uj, kept))
        return self._replace(channels=_only(self.channels, tuple(kept)), energy_uj=energy_uj) if energy_uj else None


@lru_cache(maxsize=256)
def _only(channels: tuple[Channel, ...], kept: tuple[bool, ...]) -> tuple[Channel, ...]:
    """The same object for the same channels, as for those that were read."""
    return tuple(compress(channels, kept))


QUALITY = "quality"
"""The name of a window that holds what came out of a job (`accuracy`, `loss`) in place of work done."""
REQUESTS = "requests"
"""The name of the window that holds what an attempt's service answered."""
BATCH = "batch"
"""The name of the window that holds what an attempt did of its job's batch."""


class Overhead(str, Enum):
    """What a suspension takes of an attempt's energy beside its work."""

    LOST = "lost-work"
    """Work since the last saved state: the next attempt does it again."""
    SAVING = "saving"
    """From the stop to the end."""
    RESTART = "restart"
    """From the start of a resumed attempt until it has its state back."""


VARIANT = "variant:"
"""How the names of windows begin that tell what became of a job's variant (domain/variant.py)."""


@dataclass(frozen=True)
class Window:
    """A stretch `[start, end)` of an attempt that its own code named; `units` is work done in it, in millionths."""

    name: str
    start: datetime
    end: datetime
    units: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.end <= self.start:
            message = f"not a window: [{self.start!r}, {self.end!r})"
            raise ValueError(message)


class IndependentCover:
    """When independent meters watched which kinds of devices of which machines, and readers of ours which GPUs.

    What a job's own side reports of a watched kind at a watched time is evidence only: it is never booked, whichever of
    the two arrived first (ENERGY-ATTRIBUTION.md, section 7). So is what Ray's gauge shows of a GPU at a time that
    anybody else speaks of (section 14): it knows the GPU's UUID, and not the machine.
    """

    def __init__(self) -> None:
        self._spans: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
        self.notes = 0
        """How many were made: what is superseded by now stays so until there are more."""

    def add(self, machine: str, kinds: Iterable[str], start: datetime, end: datetime) -> None:
        """Note one independent segment over `[start, end)`; overlapping and adjoining ones are joined."""
        self.notes += 1
        for kind in kinds:
            spans = self._spans.setdefault((machine, kind), [])
            if spans and spans[-1][1] == start:  # as they come, one after the other
                spans[-1] = (spans[-1][0], end)
                continue
            low, high = start, end
            index = bisect_right(spans, (low, low))
            if index and spans[index - 1][1] >= low:
                index -= 1
            last = index
            while last < len(spans) and spans[last][0] <= high:
                low, high = min(low, spans[last][0]), max(high, spans[last][1])
                last += 1
            spans[index:last] = [(low, high)]

    def add_read(self, channels: Iterable[Channel | EnergySpan], start: datetime, end: datetime) -> None:
        """Note that readers of ours read GPUs; no machine has an empty name, so that these times stand apart."""
        read = [one.device for one in channels if one.device_kind == "gpu" and one.reporter is not Reporter.RAY]
        if read:
            self.add("", read, start, end)

    def supersedes(self, span: EnergySpan) -> bool:
        """Whether any of a span's time was watched by somebody whose word goes before that of its reporter."""
        return self._speaks_before(span, span.start, span.end)

    def _speaks_before(self, channel: Channel | EnergySpan, start: datetime, end: datetime) -> bool:
        spans = self._before(channel)
        index = bisect_right(spans, (start, start))
        before = index > 0 and spans[index - 1][1] > start
        return before or (index < len(spans) and spans[index][0] < end)

    def _before(self, channel: Channel | EnergySpan) -> list[tuple[datetime, datetime]]:
        """When somebody spoke whose word goes before that of the channel's reporter."""
        if channel.reporter is Reporter.INDEPENDENT:
            return []
        key = ("", channel.device) if channel.reporter is Reporter.RAY else (channel.machine, channel.device_kind)
        return self._spans.get(key, [])

    def counting(self, stretches: list[Stretch], channels: Iterable[Channel]) -> list[Stretch]:
        """What of them counts, without what others' word goes before; no other `channels` than these are in them."""
        if not any(map(self._before, channels)):
            return stretches
        counting = (
            stretch.only([not self._speaks_before(one, stretch.start, stretch.end) for one in stretch.channels])
            for stretch in stretches
        )
        return [stretch for stretch in counting if stretch is not None]


def booked(spans: Sequence[EnergySpan]) -> list[EnergySpan]:
    """Spans of one owner without what spans among them say themselves whose word goes before theirs.

    An approximation for estimates, where segments are not at hand: the ledger knows the whole time that was watched.
    """
    cover = IndependentCover()
    for span in spans:
        cover.add_read([span], span.start, span.end)
        if span.reporter is Reporter.INDEPENDENT:
            cover.add(span.machine, [span.device_kind], span.start, span.end)
    return [span for span in spans if not cover.supersedes(span)]
