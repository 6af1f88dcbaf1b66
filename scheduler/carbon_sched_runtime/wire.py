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
microjoules; every number is an integer. What goes without saying is left out: times of a row that are its span's, of a
span that are the segment's, no flags, nothing known. A record is one JSON object per line, one line per event of one
attempt.

Everything here reads bytes that a hostile job may have written: sizes, types, ranges, order and the sum of the rows
are checked before anything is returned, and every refusal is a `WireError`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Union

from carbon_sched_runtime.fields import BOOT, LARGEST, OWNER, TEXT_LIMIT, WORD, Fields, WireError, ascii_text, refuse
from carbon_sched_runtime.records import RECORD_LIMIT, Event, Record, parse_record, record_name

__all__ = [
    "COUNTER", "ESTIMATED", "FORMAT", "IDLE", "INTEGRATED", "KINDS", "LARGEST", "OWNER", "RECORD_LIMIT",
    "SEGMENT_LIMIT", "SOURCES", "UNATTRIBUTED", "Device", "Event", "Note", "Record", "Row", "Segment", "SegmentName",
    "Signature", "Span", "WireError", "append_signature", "format_segment", "parse_record", "parse_segment",
    "parse_segment_name", "record_name",
]  # fmt: skip

FORMAT = "carbon-sched-segment 1"
SEGMENT_LIMIT = 60 * 1024

IDLE = "idle"
UNATTRIBUTED = "unattributed"

COUNTER = "counter"
INTEGRATED = "integrated"
ESTIMATED = "estimated"
SOURCES = (COUNTER, INTEGRATED, ESTIMATED)
KINDS = ("gpu", "cpu", "dram")

_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,99}")
_NAME = re.compile(r"carbon-sched-([0-9a-f]{12})-([0-9a-f]{8})-([0-9a-f]{8})-([0-9]{6})\.seg")
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{86}==")

Scalar = Union[str, int, None, list[str]]


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
    lines += [_dump(_lean(_span_line(span, ids[span.device]), segment)) for span in segment.spans]
    for row in segment.rows:
        index = spans[(row.device, row.epoch, row.source)]
        lines.append(_dump(_lean(_row_line(row, index), segment.spans[index])))
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


def _lean(line: dict[str, Scalar], around: Segment | Span) -> dict[str, Scalar]:
    """The line without what goes without saying."""
    said: dict[str, Scalar] = {"t0": around.start_us, "t1": around.end_us, "f": []}
    return {key: value for key, value in line.items() if value is not None and value != said.get(key)}


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
        refuse("not the name of a segment")
    return SegmentName(match.group(1), match.group(2), match.group(3), int(match.group(4)))


def parse_segment(data: bytes, name: str | None = None) -> Segment:
    """Read and check a whole segment; with `name`, also that the content belongs to that file name.

    Raises WireError for anything but a complete, unaltered, plausible segment whose rows add up to its counters.
    """
    if len(data) > SEGMENT_LIMIT:
        refuse(f"a segment of {len(data)} bytes; at most {SEGMENT_LIMIT}")
    body, signature = _verified_body(data)
    lines = ascii_text(body).split("\n")[:-1]
    if lines[0] != FORMAT or len(lines) < 2:
        refuse("not a segment of format 1")
    segment = _assemble(Fields(lines[1]), [Fields(line) for line in lines[2:]], signature)
    if name is not None and str(segment.name) != name:
        refuse("the content belongs to another file name")
    return segment


def _verified_body(data: bytes) -> tuple[bytes, Signature | None]:
    """Cut off and check the `end` line and, where there is one, the `sig` line."""
    if not data.endswith(b"\n"):
        refuse("the segment has no end: it is torn")
    start, signature = data.rfind(b"\n", 0, -1) + 1, None
    if data[start : start + 4] == b"sig ":
        signature = _signature(data[:start], data[start:])
        data = data[:start]
        start = data.rfind(b"\n", 0, -1) + 1
    body, end = data[:start], data[start:]
    if end != b"end " + hashlib.sha256(body).hexdigest().encode() + b"\n":
        refuse("the segment does not match its checksum: it is torn or altered")
    return body, signature


def _signature(signed: bytes, line: bytes) -> Signature:
    words = ascii_text(line).rstrip("\n").split(" ")
    if len(words) != 4 or words[1] != "ed25519" or not _KEY.fullmatch(words[2]) or not _BASE64.fullmatch(words[3]):
        refuse("not a signature line")
    return Signature(key_id=words[2], value_base64=words[3], signed=signed)


def _assemble(head: Fields, lines: list[Fields], signature: Signature | None) -> Segment:
    start, end = head.integer("t0"), head.integer("t1")
    mono_start, mono_end = head.integer("m0"), head.integer("m1")
    if end <= start or mono_end < mono_start:
        refuse("the segment ends before it starts")
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
        boot=head.text("boot", BOOT),
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


def _parse_device(line: Fields) -> Device:
    return Device(
        id=line.text("id", _DEVICE),
        kind=line.choice("kind", KINDS),
        name=line.text("name", limit=100),
        scope=line.text("scope", WORD),
        limit_mw=line.optional_integer("limit_mw", 1),
    )


def _parse_span(line: Fields, devices: list[Device], bounds: tuple[int, int]) -> Span:
    device = devices[line.integer("d", 0, len(devices) - 1)]
    start, end = _times(line, bounds)
    first, last = line.integer("c0"), line.integer("c1")
    if end <= start or last < first or start < bounds[0] or end > bounds[1]:
        refuse("a span runs backwards or outside its segment")
    return Span(
        device=device.id, epoch=line.integer("e", 0, 2**31), source=line.choice("src", SOURCES),
        start_us=start, end_us=end, first_uj=first, last_uj=last, integral_uj=line.optional_integer("p"),
        samples=line.integer("n", 0, 2**31), flags=line.words("f"),
    )  # fmt: skip


def _parse_row(line: Fields, spans: list[Span]) -> Row:
    span = spans[line.integer("s", 0, len(spans) - 1)]
    start, end = _times(line, (span.start_us, span.end_us))
    if end <= start or start < span.start_us or end > span.end_us:
        refuse("a row runs backwards or outside its span")
    return Row(
        device=span.device, epoch=span.epoch, source=span.source, owner=line.text("o", OWNER),
        start_us=start, end_us=end, energy_uj=line.integer("uj"), rule=line.text("r", WORD),
        error_ppm=line.integer("err", 0, 1_000_000), flags=line.words("f"),
    )  # fmt: skip


def _times(line: Fields, around: tuple[int, int]) -> tuple[int, int]:
    """A line's own beginning and end, or those of what it belongs to."""
    start, end = line.optional_integer("t0"), line.optional_integer("t1")
    return around[0] if start is None else start, around[1] if end is None else end


def _parse_note(line: Fields) -> Note:
    return Note(
        time_us=line.integer("t"),
        kind=line.text("n", WORD),
        text=line.text("x"),
        device=line.optional_text("d", _DEVICE),
    )


def _require_unique(segment: Segment, devices: int) -> None:
    spans = {(span.device, span.epoch, span.source) for span in segment.spans}
    if len(segment.devices) != devices or len(spans) != len(segment.spans):
        refuse("a device or span stands twice")


def _require_sums(segment: Segment) -> None:
    sums = {(s.device, s.epoch, s.source): s.last_uj - s.first_uj for s in segment.spans}
    for row in segment.rows:
        sums[(row.device, row.epoch, row.source)] -= row.energy_uj
    if any(sums.values()):
        refuse("the rows do not add up to the counters")
