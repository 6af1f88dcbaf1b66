"""The wire: energy segments and job records as bytes, written on the cluster and read by the server.

A segment is UTF-8 text, one JSON object per line, at most 60 KiB:

    carbon-sched-segment 1
    {"machine":…,"boot":…,"reader":…,"seq":…,"t0":…,"t1":…,"m0":…,"m1":…,"uid":…}
    {"k":"device",…}    one per device, in order of first use
    {"k":"span",…}      the device's cumulative counter at two moments of one epoch: what the rows must add up to
    {"k":"row",…}       energy of one span for one owner
    {"k":"note",…}      what a reader of the numbers must know: gaps, resets, failures
    end <sha256 of every byte before this line>
    sig ed25519 <key id> <base64>       only from a separately owned machine meter; over every byte before this line

Times `t*` are UTC microseconds since the Unix epoch, `m*` nanoseconds of the machine's boot clock, energies
microjoules; every number is an integer. A record is one JSON object per line, one line per event of one attempt.

Everything here reads bytes that a hostile job may have written: sizes, types, ranges, order and the sum of the rows
are checked before anything is returned, and every refusal is a `WireError`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn, Union

FORMAT = "carbon-sched-segment 1"
SEGMENT_LIMIT = 60 * 1024
RECORD_LIMIT = 60 * 1024
LINE_LIMIT = 4096
TEXT_LIMIT = 400
LARGEST = 2**63 - 1

IDLE = "idle"
UNATTRIBUTED = "unattributed"

COUNTER = "counter"
INTEGRATED = "integrated"
ESTIMATED = "estimated"
SOURCES = (COUNTER, INTEGRATED, ESTIMATED)
KINDS = ("gpu", "cpu", "dram")

OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,99}")
_WORD = re.compile(r"[a-z0-9][a-z0-9+_-]{0,39}")
_HEX = re.compile(r"[0-9a-f]{1,64}")
_BOOT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NAME = re.compile(r"carbon-sched-([0-9a-f]{12})-([0-9a-f]{8})-([0-9a-f]{8})-([0-9]{6})\.seg")
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{86}==")

Scalar = Union[str, int, None, list[str]]


class WireError(ValueError):
    """Bytes that are not a segment or record of ours. The message says what is wrong, never echoes the bytes."""


@dataclass(frozen=True)
class SegmentName:
    """What a segment's file name says; the same four facts stand inside and must agree.

    `(machine, boot8, reader, seq)` identifies a segment for ever: the same identity always has the same bytes.
    """

    machine: str
    boot8: str
    reader: str
    seq: int

    def __str__(self) -> str:
        return f"carbon-sched-{self.machine}-{self.boot8}-{self.reader}-{self.seq:06d}.seg"


@dataclass(frozen=True)
class Device:
    """One thing with an energy counter. `id` is `gpu:<UUID>`, `cpu:package-0`, `dram:package-0` or `cpu:model`.

    `scope` says what the joules cover (`board`, `module`, `package`, `dram`, `server-share`). `limit_mw` is the power
    in milliwatts that plausibility is checked against, None when nothing states one.
    """

    id: str
    kind: str
    name: str
    scope: str
    limit_mw: int | None = None


@dataclass(frozen=True)
class Span:
    """A device's cumulative energy (uJ, wraps undone) at two moments of one counter epoch.

    The rows of the same `(device, epoch, source)` in this segment add up to `last_uj - first_uj` exactly.
    `integral_uj` is the instant power integrated over the same time, the cross-check; None without a power reading.
    """

    device: str
    epoch: int
    source: str
    start_us: int
    end_us: int
    first_uj: int
    last_uj: int
    integral_uj: int | None = None
    samples: int = 0
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """Energy of one device for one owner over `[start_us, end_us)`, at most about 30 s long unless flagged `gap`.

    `owner` is an attempt id, `idle` or `unattributed`. `rule` names how the owner's share was found, `error_ppm`
    bounds the relative error of `energy_uj` (1_000_000 = the owner is a guess). Kind, scope and device name are in
    `Segment.devices[device]`.
    """

    device: str
    epoch: int
    source: str
    owner: str
    start_us: int
    end_us: int
    energy_uj: int
    rule: str
    error_ppm: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Note:
    """Something that happened at `time_us`: `kind` is a word from ENERGY-ATTRIBUTION.md, `text` is for people."""

    time_us: int
    kind: str
    text: str
    device: str | None = None


@dataclass(frozen=True)
class Signature:
    """An Ed25519 signature line; `signed` are the bytes it covers. Checking it is the caller's business."""

    key_id: str
    value_base64: str
    signed: bytes = field(repr=False)


@dataclass(frozen=True)
class Segment:
    """Up to 30 s of one machine's energy. `uid` is the user id of the process that metered."""

    machine: str
    boot: str
    reader: str
    seq: int
    start_us: int
    end_us: int
    start_mono_ns: int
    end_mono_ns: int
    uid: int
    devices: dict[str, Device]
    spans: tuple[Span, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...] = ()
    signature: Signature | None = None

    @property
    def name(self) -> SegmentName:
        """The file name that belongs to this content."""
        return SegmentName(self.machine, self.boot[:8], self.reader, self.seq)


# Writing -----------------------------------------------------------------------------------------------------------


def format_segment(segment: Segment) -> bytes:
    """The segment's bytes, without a signature. WireError when they would not be read back (too big, out of range)."""
    ids = {device: index for index, device in enumerate(segment.devices)}
    spans = {(s.device, s.epoch, s.source): index for index, s in enumerate(segment.spans)}
    lines = [FORMAT, _dump(_header(segment))]
    lines += [_dump(_device_line(device)) for device in segment.devices.values()]
    lines += [_dump(_span_line(span, ids[span.device])) for span in segment.spans]
    lines += [_dump(_row_line(row, spans[(row.device, row.epoch, row.source)])) for row in segment.rows]
    lines += [_dump(_note_line(note)) for note in segment.notes]
    body = ("\n".join(lines) + "\n").encode()
    data = body + f"end {hashlib.sha256(body).hexdigest()}\n".encode()
    parse_segment(data)
    return data


def append_signature(data: bytes, key_id: str, value_base64: str) -> bytes:
    """The segment's bytes with a signature line over all of them (the meter's owner made the signature)."""
    signed = data + f"sig ed25519 {key_id} {value_base64}\n".encode()
    parse_segment(signed)
    return signed


def _header(s: Segment) -> dict[str, Scalar]:
    return {
        "machine": s.machine, "boot": s.boot, "reader": s.reader, "seq": s.seq, "t0": s.start_us, "t1": s.end_us,
        "m0": s.start_mono_ns, "m1": s.end_mono_ns, "uid": s.uid,
    }  # fmt: skip


def _device_line(d: Device) -> dict[str, Scalar]:
    return {"k": "device", "id": d.id, "kind": d.kind, "name": d.name, "scope": d.scope, "limit_mw": d.limit_mw}


def _span_line(s: Span, device: int) -> dict[str, Scalar]:
    return {
        "k": "span", "d": device, "e": s.epoch, "src": s.source, "t0": s.start_us, "t1": s.end_us,
        "c0": s.first_uj, "c1": s.last_uj, "p": s.integral_uj, "n": s.samples, "f": list(s.flags),
    }  # fmt: skip


def _row_line(r: Row, span: int) -> dict[str, Scalar]:
    return {
        "k": "row", "s": span, "o": r.owner, "t0": r.start_us, "t1": r.end_us, "uj": r.energy_uj, "r": r.rule,
        "err": r.error_ppm, "f": list(r.flags),
    }  # fmt: skip


def _note_line(n: Note) -> dict[str, Scalar]:
    return {"k": "note", "t": n.time_us, "n": n.kind, "x": n.text[:TEXT_LIMIT], "d": n.device}


def _dump(value: dict[str, Scalar]) -> str:
    return json.dumps(value, separators=(",", ":"))


# Reading -----------------------------------------------------------------------------------------------------------


def parse_segment_name(name: str) -> SegmentName:
    """Read a file name (no folder); WireError if it is not one of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        _refuse("not the name of a segment")
    return SegmentName(match.group(1), match.group(2), match.group(3), int(match.group(4)))


def parse_segment(data: bytes, name: str | None = None) -> Segment:
    """Read and check a whole segment; with `name`, also that the content belongs to that file name.

    Raises WireError for anything but a complete, unaltered, plausible segment whose rows add up to its counters.
    """
    if len(data) > SEGMENT_LIMIT:
        _refuse(f"a segment of {len(data)} bytes; at most {SEGMENT_LIMIT}")
    body, signature = _verified_body(data)
    lines = _text(body).split("\n")[:-1]
    if lines[0] != FORMAT or len(lines) < 2:
        _refuse("not a segment of format 1")
    segment = _assemble(_Fields(lines[1]), [_Fields(line) for line in lines[2:]], signature)
    if name is not None and str(segment.name) != name:
        _refuse("the content belongs to another file name")
    return segment


def _verified_body(data: bytes) -> tuple[bytes, Signature | None]:
    """Cut off and check the `end` line and, where there is one, the `sig` line."""
    if not data.endswith(b"\n"):
        _refuse("the segment has no end: it is torn")
    start, signature = data.rfind(b"\n", 0, -1) + 1, None
    if data[start : start + 4] == b"sig ":
        signature = _signature(data[:start], data[start:])
        data = data[:start]
        start = data.rfind(b"\n", 0, -1) + 1
    body, end = data[:start], data[start:]
    if end != b"end " + hashlib.sha256(body).hexdigest().encode() + b"\n":
        _refuse("the segment does not match its checksum: it is torn or altered")
    return body, signature


def _signature(signed: bytes, line: bytes) -> Signature:
    words = _text(line).rstrip("\n").split(" ")
    if len(words) != 4 or words[1] != "ed25519" or not _KEY.fullmatch(words[2]) or not _BASE64.fullmatch(words[3]):
        _refuse("not a signature line")
    return Signature(key_id=words[2], value_base64=words[3], signed=signed)


def _text(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        _refuse("bytes outside ASCII (text is escaped)")


class _Fields:
    """One line's flat JSON object; each field is taken once, by type and range."""

    def __init__(self, line: str) -> None:
        if len(line) > LINE_LIMIT:
            _refuse(f"a line of {len(line)} characters; at most {LINE_LIMIT}")
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            _refuse("a line is not JSON")
        if not isinstance(values, dict):
            _refuse("a line is not a JSON object")
        self._values: dict[str, Any] = values

    def text(self, key: str, pattern: re.Pattern[str] | None = None, limit: int = TEXT_LIMIT) -> str:
        value = self._take(key)
        if not isinstance(value, str) or len(value) > limit or (pattern and not pattern.fullmatch(value)):
            _refuse(f"field {key} is not the text expected")
        if not value.isprintable():
            _refuse(f"field {key} holds control characters")
        return value

    def optional_text(self, key: str, pattern: re.Pattern[str] | None = None) -> str | None:
        if self._values.get(key) is None:
            self._values.pop(key, None)
            return None
        return self.text(key, pattern)

    def integer(self, key: str, low: int = 0, high: int = LARGEST) -> int:
        value = self._take(key)
        if type(value) is not int or not low <= value <= high:
            _refuse(f"field {key} is not an integer in its range")
        return value

    def optional_integer(self, key: str, low: int = 0, high: int = LARGEST) -> int | None:
        if self._values.get(key) is None:
            self._values.pop(key, None)
            return None
        return self.integer(key, low, high)

    def words(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        if not isinstance(value, list) or len(value) > 16:
            _refuse(f"field {key} is not a list of words")
        if not all(isinstance(word, str) and _WORD.fullmatch(word) for word in value):
            _refuse(f"field {key} is not a list of words")
        return tuple(value)

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        value = self._take(key)
        if value not in allowed:
            _refuse(f"field {key} is not one of {', '.join(allowed)}")
        return str(value)

    def done(self) -> None:
        if self._values:
            _refuse("a line has fields of no meaning")

    def _take(self, key: str) -> Any:
        if key not in self._values:
            _refuse(f"field {key} is missing")
        return self._values.pop(key)


def _assemble(head: _Fields, lines: list[_Fields], signature: Signature | None) -> Segment:
    start, end = head.integer("t0"), head.integer("t1")
    mono_start, mono_end = head.integer("m0"), head.integer("m1")
    if end <= start or mono_end < mono_start:
        _refuse("the segment ends before it starts")
    devices: list[Device] = []
    spans: list[Span] = []
    rows: list[Row] = []
    notes: list[Note] = []
    for line in lines:
        kind = line.choice("k", ("device", "span", "row", "note"))
        if kind == "device":
            devices.append(_parse_device(line))
        elif kind == "span":
            spans.append(_parse_span(line, devices, (start, end)))
        elif kind == "row":
            rows.append(_parse_row(line, spans))
        else:
            notes.append(_parse_note(line))
        line.done()
    segment = Segment(
        machine=head.text("machine", re.compile("[0-9a-f]{12}")),
        boot=head.text("boot", _BOOT),
        reader=head.text("reader", re.compile("[0-9a-f]{8}")),
        seq=head.integer("seq", 0, 999_999),
        start_us=start, end_us=end, start_mono_ns=mono_start, end_mono_ns=mono_end,
        uid=head.integer("uid", 0, 2**32 - 1),
        devices={device.id: device for device in devices},
        spans=tuple(spans), rows=tuple(rows), notes=tuple(notes), signature=signature,
    )  # fmt: skip
    head.done()
    _require_unique(segment, len(devices))
    _require_sums(segment)
    return segment


def _parse_device(line: _Fields) -> Device:
    return Device(
        id=line.text("id", _DEVICE),
        kind=line.choice("kind", KINDS),
        name=line.text("name", limit=100),
        scope=line.text("scope", _WORD),
        limit_mw=line.optional_integer("limit_mw", 1),
    )


def _parse_span(line: _Fields, devices: list[Device], bounds: tuple[int, int]) -> Span:
    device = devices[line.integer("d", 0, len(devices) - 1)]
    start, end = line.integer("t0"), line.integer("t1")
    first, last = line.integer("c0"), line.integer("c1")
    if end <= start or last < first or start < bounds[0] or end > bounds[1]:
        _refuse("a span runs backwards or outside its segment")
    return Span(
        device=device.id, epoch=line.integer("e", 0, 2**31), source=line.choice("src", SOURCES),
        start_us=start, end_us=end, first_uj=first, last_uj=last, integral_uj=line.optional_integer("p"),
        samples=line.integer("n", 0, 2**31), flags=line.words("f"),
    )  # fmt: skip


def _parse_row(line: _Fields, spans: list[Span]) -> Row:
    span = spans[line.integer("s", 0, len(spans) - 1)]
    start, end = line.integer("t0"), line.integer("t1")
    if end <= start or start < span.start_us or end > span.end_us:
        _refuse("a row runs backwards or outside its span")
    return Row(
        device=span.device, epoch=span.epoch, source=span.source, owner=line.text("o", OWNER),
        start_us=start, end_us=end, energy_uj=line.integer("uj"), rule=line.text("r", _WORD),
        error_ppm=line.integer("err", 0, 1_000_000), flags=line.words("f"),
    )  # fmt: skip


def _parse_note(line: _Fields) -> Note:
    return Note(
        time_us=line.integer("t"),
        kind=line.text("n", _WORD),
        text=line.text("x"),
        device=line.optional_text("d", _DEVICE),
    )


def _require_unique(segment: Segment, devices: int) -> None:
    spans = {(span.device, span.epoch, span.source) for span in segment.spans}
    if len(segment.devices) != devices or len(spans) != len(segment.spans):
        _refuse("a device or span stands twice")


def _require_sums(segment: Segment) -> None:
    sums = {(s.device, s.epoch, s.source): s.last_uj - s.first_uj for s in segment.spans}
    for row in segment.rows:
        sums[(row.device, row.epoch, row.source)] -= row.energy_uj
    if any(sums.values()):
        _refuse("the rows do not add up to the counters")


# Records -----------------------------------------------------------------------------------------------------------

EVENTS = ("started", "refused", "spawned", "metering", "stopping", "ended", "fault", "closed")


@dataclass(frozen=True)
class Event:
    """One line of an attempt's record.

    Which fields are set depends on `event`:

    started   the wrapper is about to run the entrypoint (before any user code): pid, boot
    refused   nothing was run: `reason` (`fence` = too late, `started-before`, ...); exit_code 75
    spawned   the entrypoint runs as `child_pid`
    metering  energy is metered: machine, boot, role (`reader` or `follower`), `reason` says by which sources
    stopping  a stop signal came: signal
    ended     the entrypoint ended: exit_code (128 + signal, as a shell says it), signal if one ended it
    fault     metering failed or is incomplete: `reason`; the job is not touched by it
    closed    every segment of this attempt from this wrapper is in the folder: `segments`; exit_code as in `ended`
    """

    event: str
    attempt: str
    time_us: int
    job: str | None = None
    pid: int | None = None
    child_pid: int | None = None
    machine: str | None = None
    boot: str | None = None
    role: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    segments: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Record:
    """The events of one attempt in the order written; `problems` says which lines were not ours or were torn."""

    events: tuple[Event, ...]
    problems: tuple[str, ...] = ()

    def last(self, event: str) -> Event | None:
        """The newest event of that kind, or None."""
        return next((e for e in reversed(self.events) if e.event == event), None)


def record_name(attempt: str) -> str:
    """The file name of an attempt's record; WireError if the id could not be part of one."""
    if not OWNER.fullmatch(attempt):
        _refuse("not the id of an attempt")
    return f"carbon-sched-{attempt}.record"


def parse_record(data: bytes, attempt: str | None = None) -> Record:
    """Read an attempt's record; unreadable lines (torn, altered, of another attempt) become `problems`.

    Raises WireError only when the whole is over its size limit.
    """
    if len(data) > RECORD_LIMIT:
        _refuse(f"a record of {len(data)} bytes; at most {RECORD_LIMIT}")
    events: list[Event] = []
    problems: list[str] = []
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        found = _event_or_problem(line, attempt)
        if isinstance(found, Event):
            events.append(found)
        else:
            problems.append(f"line {number}: {found}")
    if rest:
        problems.append(f"line {len(lines) + 1}: torn")
    return Record(tuple(events), tuple(problems))


def _event_or_problem(line: bytes, attempt: str | None) -> Event | str:
    try:
        return _parse_event(_Fields(_text(line)), attempt)
    except WireError as error:
        return str(error)


def _parse_event(line: _Fields, attempt: str | None) -> Event:
    if line.integer("v") != 1:
        _refuse("an event of another format")
    event = Event(
        event=line.choice("event", EVENTS), attempt=line.text("attempt", OWNER), time_us=line.integer("t"),
        job=line.optional_text("job", OWNER), pid=line.optional_integer("pid"),
        child_pid=line.optional_integer("child_pid"), machine=line.optional_text("machine", _HEX),
        boot=line.optional_text("boot", _BOOT), role=line.optional_text("role", _WORD),
        exit_code=line.optional_integer("exit_code", 0, 255), signal=line.optional_integer("signal", 1, 64),
        segments=line.optional_integer("segments"), reason=line.optional_text("reason"),
    )  # fmt: skip
    line.done()
    if attempt is not None and event.attempt != attempt:
        _refuse("an event of another attempt")
    return event


def _refuse(message: str) -> NoReturn:
    raise WireError(message)
