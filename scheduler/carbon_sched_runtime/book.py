"""The open segment: rows and spans as they grow tick by tick, and how they are sealed into segments.

Everything here is plain data that travels in the checkpoint, so that a reader that dies loses no joule: the next one
goes on with the same book.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Optional

from carbon_sched_runtime.attribution import RULE_ERROR_PPM, Share
from carbon_sched_runtime.counters import Meterable
from carbon_sched_runtime.wire import KINDS, Device, Note, Row, Segment, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from carbon_sched_runtime.counters import Step

Presence = tuple[int, Optional[int]]
"""From when until when an attempt was on the machine (ns of the boot clock); no end while it is there."""
LEAST_ROW_NS = 1_000_000  # the wire counts microseconds; what is shorter keeps the interval's own borders
UNCERTAIN = "uncertain-owner"
ROWS_PER_SEGMENT = 140
SPANS_PER_SEGMENT = 48
NOTES_PER_SEGMENT = 24
NOTE_TEXT = 160
NOTES_KEPT = 200


@dataclass
class OpenRow:
    """A row still growing; times on the boot clock."""

    device: str
    epoch: int
    source: str
    owner: str
    rule: str
    flags: tuple[str, ...]
    start_ns: int
    end_ns: int
    energy_uj: int


@dataclass
class OpenSpan:
    """A span still growing; times on the boot clock. `integral_uj` is None once a power reading was missing."""

    device: str
    epoch: int
    source: str
    start_ns: int
    end_ns: int
    first_uj: int
    last_uj: int
    integral_uj: int | None
    samples: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """Who seals: the machine, its boot, this reader's random id, and the user id it runs as."""

    machine: str
    boot: str
    reader: str
    uid: int


@dataclass
class Book:
    """All rows since the last seal. `current` maps a device to the indexes of its rows that may still grow."""

    rows: list[OpenRow] = field(default_factory=list)
    spans: list[OpenSpan] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    dropped_notes: int = 0
    _current: dict[str, tuple[object, list[int]]] = field(default_factory=dict, repr=False)

    def add(
        self,
        step: Step,
        device: str,
        shares: Iterable[Share],
        flags: tuple[str, ...],
        cut: object,
        presences: Mapping[str, Presence],
        marks: Mapping[str, Iterable[str]] = MappingProxyType({}),
    ) -> None:
        """Book one interval. Rows grow while `cut` (whatever names the owners) is as in the device's last interval.

        An attempt's row covers only the part of the interval that the attempt was there (`presences`, boot clock): its
        energy is joined with the grid of those moments, not of the time before it came. `marks` are flags of the
        rows of some owners alone.
        """
        self._extend_span(step, device, flags)
        key, growing = self._current.get(device, (None, []))
        if key != cut:
            growing = []
        for share in shares:
            if share.energy_uj:
                own = tuple(sorted({*flags, *marks.get(share.owner, ())}))
                self._extend_row(step, device, share, own, growing, _clipped(step, presences.get(share.owner)))
        self._current[device] = (cut, growing)

    def note(self, note: Note) -> None:
        """Add a note; beyond 200 in one segment they are counted, not kept."""
        if len(self.notes) < NOTES_KEPT:
            self.notes.append(replace(note, text=note.text[:NOTE_TEXT]))
        else:
            self.dropped_notes += 1

    def to_json(self) -> dict[str, Any]:
        """For the checkpoint. After loading, rows do not grow on: what one reader booked stays apart."""
        return {
            "rows": [list(asdict(row).values()) for row in self.rows],
            "spans": [list(asdict(span).values()) for span in self.spans],
            "notes": [[note.time_us, note.kind, note.text, note.device] for note in self.notes],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Book:
        """Read a checkpoint back; TypeError, KeyError or ValueError when it is not one."""
        rows = [OpenRow(*row) for row in data["rows"]]
        spans = [OpenSpan(*span) for span in data["spans"]]
        for row in rows:
            row.flags = tuple(row.flags)
        for span in spans:
            span.flags = tuple(span.flags)
        return cls(rows, spans, [Note(*note) for note in data["notes"]])

    def _extend_span(self, step: Step, device: str, flags: tuple[str, ...]) -> None:
        for span in reversed(self.spans):
            if (span.device, span.epoch, span.source) == (device, step.epoch, step.source):
                span.end_ns, span.last_uj, span.samples = step.end_ns, step.last_uj, span.samples + 1
                missing = span.integral_uj is None or step.integral_uj is None
                span.integral_uj = None if missing else (span.integral_uj or 0) + (step.integral_uj or 0)
                span.flags = tuple(sorted({*span.flags, *flags}))
                return
        self.spans.append(
            OpenSpan(
                device, step.epoch, step.source, step.start_ns, step.end_ns, step.first_uj, step.last_uj,
                step.integral_uj, 1, tuple(sorted(flags)),
            )
        )  # fmt: skip

    def _extend_row(
        self,
        step: Step,
        device: str,
        share: Share,
        flags: tuple[str, ...],
        growing: list[int],
        when: tuple[int, int],
    ) -> None:
        wanted = (step.epoch, step.source, share.owner, share.rule, flags)
        for index in growing:
            row = self.rows[index]
            if (row.epoch, row.source, row.owner, row.rule, row.flags) == wanted:
                row.end_ns = when[1]
                row.energy_uj += share.energy_uj
                return
        growing.append(len(self.rows))
        self.rows.append(
            OpenRow(
                device, step.epoch, step.source, share.owner, share.rule, flags, when[0], when[1], share.energy_uj,
            )
        )  # fmt: skip


def _clipped(step: Step, presence: Presence | None) -> tuple[int, int]:
    """The part of the interval that an owner was there; all of it for the machine's own pots."""
    if presence is None:
        return step.start_ns, step.end_ns
    start = max(step.start_ns, presence[0])
    end = step.end_ns if presence[1] is None else min(step.end_ns, presence[1])
    return (start, end) if end - start >= LEAST_ROW_NS else (step.start_ns, step.end_ns)


def seal(book: Book, reader: Reader, first_seq: int, offset_us: int, devices: Mapping[str, Meterable]) -> list[Segment]:
    """The book as segments numbered from `first_seq`, each small enough for the wire; none when it holds nothing.

    `offset_us` turns the boot clock into UTC: `utc_us = offset_us + mono_ns // 1000`.
    """
    notes = list(book.notes)
    if book.dropped_notes:
        last = notes[-1]
        notes.append(Note(last.time_us, "notes-dropped", f"{book.dropped_notes} more notes were not kept"))
    parts = list(_parts(book, notes))
    bounds = _bounds(book, notes, offset_us)
    return [_segment(part, reader, first_seq + number, offset_us, devices, bounds) for number, part in enumerate(parts)]


@dataclass
class _Part:
    """What goes into one segment: spans cut so that the rows beside them add up."""

    spans: list[OpenSpan] = field(default_factory=list)
    rows: list[OpenRow] = field(default_factory=list)
    notes: Sequence[Note] = ()


def _parts(book: Book, notes: list[Note]) -> Iterator[_Part]:
    """Cut a book that is too large for one segment: a span is cut at the energy of the rows that go with it."""
    part = _Part(notes=notes[:NOTES_PER_SEGMENT])
    rest_of_notes = notes[NOTES_PER_SEGMENT:]
    for span in book.spans:
        rows = [row for row in book.rows if _account(row) == _account(span)]
        value = span.first_uj
        while True:
            if len(part.spans) >= SPANS_PER_SEGMENT or len(part.rows) >= ROWS_PER_SEGMENT:
                yield part
                part = _Part(notes=rest_of_notes[:NOTES_PER_SEGMENT])
                rest_of_notes = rest_of_notes[NOTES_PER_SEGMENT:]
            room = ROWS_PER_SEGMENT - len(part.rows)
            now, rows = rows[:room], rows[room:]
            upto = value + sum(row.energy_uj for row in now)
            whole = value == span.first_uj and not rows
            part.spans.append(
                replace(span, first_uj=value, last_uj=upto, integral_uj=span.integral_uj if whole else None)
            )
            part.rows += now
            value = upto
            if not rows:
                break
    while part.spans or part.notes:
        yield part
        part = _Part(notes=rest_of_notes[:NOTES_PER_SEGMENT])
        rest_of_notes = rest_of_notes[NOTES_PER_SEGMENT:]


def _account(entry: OpenRow | OpenSpan) -> tuple[str, int, str]:
    return (entry.device, entry.epoch, entry.source)


def _bounds(book: Book, notes: Sequence[Note], offset_us: int) -> tuple[int, int]:
    """First and last nanosecond of the boot clock that the book speaks of."""
    starts = [span.start_ns for span in book.spans] or [(n.time_us - offset_us) * 1000 for n in notes]
    ends = [span.end_ns for span in book.spans] or starts
    return max(0, min(starts, default=0)), max(0, *ends, 0)


def _segment(
    part: _Part, reader: Reader, seq: int, offset_us: int, devices: Mapping[str, Meterable], bounds: tuple[int, int]
) -> Segment:
    def utc(mono_ns: int) -> int:
        return offset_us + mono_ns // 1000

    start_us, end_us = utc(bounds[0]), utc(bounds[1])
    end_us = max(end_us, start_us + 1)
    names = list(dict.fromkeys(span.device for span in part.spans))
    return Segment(
        machine=reader.machine, boot=reader.boot, reader=reader.reader, seq=seq, start_us=start_us, end_us=end_us,
        start_mono_ns=bounds[0], end_mono_ns=bounds[1], uid=reader.uid,
        devices={name: _device(devices[name]) for name in names},
        spans=tuple(_span(span, utc) for span in part.spans),
        rows=tuple(_row(row, devices[row.device], utc) for row in part.rows),
        notes=tuple(part.notes),
    )  # fmt: skip


def _device(device: Meterable) -> Device:
    name = "".join(c for c in device.name[:100] if c.isascii() and c.isprintable())
    return Device(device.id, device.kind, name, device.scope, device.limit_mw)


def _span(span: OpenSpan, utc: Callable[[int], int]) -> Span:
    start, end = _instants(span, utc)
    return Span(
        span.device, span.epoch, span.source, start, end, span.first_uj, span.last_uj, span.integral_uj,
        span.samples, span.flags,
    )  # fmt: skip


def _row(row: OpenRow, device: Meterable, utc: Callable[[int], int]) -> Row:
    start, end = _instants(row, utc)
    return Row(
        row.device, row.epoch, row.source, row.owner, start, end, row.energy_uj, row.rule,
        error_ppm(row, device), row.flags,
    )  # fmt: skip


def _instants(entry: OpenRow | OpenSpan, utc: Callable[[int], int]) -> tuple[int, int]:
    start = utc(entry.start_ns)
    return start, max(start + 1, utc(entry.end_ns))


def error_ppm(row: OpenRow, device: Meterable) -> int:
    """The row's error bar: device + counter quantum over the row's length + rule; at most everything."""
    if UNCERTAIN in row.flags:
        return 1_000_000
    length_ns = max(1, row.end_ns - row.start_ns)
    quantum = 1_000_000 * device.quantum_ns // length_ns
    return min(1_000_000, device.error_ppm + quantum + RULE_ERROR_PPM.get(row.rule, 1_000_000))


def vanished(device: str) -> Meterable:
    """A stand-in for a device that only an earlier reader could read (its driver went away)."""
    kind = device.split(":", 1)[0]
    return Meterable(id=device, kind=kind if kind in KINDS else "cpu", name="no longer readable", scope="unknown")
