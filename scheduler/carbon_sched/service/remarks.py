"""What a receipt must say of how an attempt was metered: the runtime's notes and the wrapper's record, in our words.

A job may have written either: of a segment's notes only kinds, device names and numbers are taken, and a record's own
words are quoted as the wrapper's, cut short.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import BATCH, QUALITY, REQUESTS, VARIANT
from carbon_sched_runtime import wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from carbon_sched.domain.energy import Window
    from carbon_sched.service.journal import AttemptRecord, NodeJournal

LINES = 20
"""So many sentences of one sort stand in a receipt; the rest are counted."""
NO_RECORD = "the wrapper left no record"
QUOTED = 200
WINDOWS = 100
_OUTLIVED = re.compile(r"([0-9]{1,9}) processes outlive the entrypoint")
_ALTERED = re.compile(r"journal files were altered or removed, and put back: ([0-9]{1,9})")
_UNDELIVERED = re.compile(r"segments that did not reach the (server|journal store): ([0-9]{1,9})")
_RUN = re.compile(r"([0-9a-f]{8}):([0-9]{1,6})-([0-9]{1,6})")
_HEAD = re.compile(r"([A-Za-z0-9_.-]+): ([0-9]{1,15}) ms before the first reading.*")
_SQUATTER = re.compile(r"([A-Za-z0-9_.-]+) uses what (?:([A-Za-z0-9_.-]+) holds|it does not hold)")
_BOOKED_FROM_POWER = ("reset", "jump", "stuck", "unstuck", "wrap-unknown", "counter-missing", "counter-returned")
_KNOWN = {
    "unreadable": "{device} could not be read for a time; what its counter moved meanwhile is marked as a gap",
    "clock-step": "the machine's clock was set while it was metered: times before and after may be off",
    "not-shared": "another user held the machine's meeting place: jobs of other users there are not told apart",
    "counter-disagrees": "the energy counter of {device} and its power differ by over 10 %: the counter is booked, and "
    "its error may be larger than said (sensors of some GPUs look a part of the time)",
    "notes-dropped": "the meter had more to remark than a segment holds",
}


@dataclass(frozen=True)
class Remark:
    """A note of a segment: its kind, the device it is about (empty: the machine), and the attempt it is about.

    `missed_ms` is the length of an unmetered head, `holder` the attempt whose GPU was used by others.
    """

    kind: str
    device: str = ""
    attempt: str = ""
    missed_ms: int = 0
    holder: str = ""


def remark(note: wire.Note) -> Remark:
    """What we keep of a note."""
    head = _HEAD.fullmatch(note.text) if note.kind == "unmetered-head" else None
    if head:
        return Remark(note.kind, attempt=head.group(1), missed_ms=int(head.group(2)))
    squat = _SQUATTER.fullmatch(note.text) if note.kind == "squatter" else None
    if squat:
        return Remark(note.kind, note.device or "", attempt=squat.group(1), holder=squat.group(2) or "")
    return Remark(note.kind, note.device or "")


@dataclass
class Findings:
    """What is known to be missing from an attempt's energy, and what its reader should know beside that.

    `missing` may still arrive and is waited for; `gaps` were never measured, and no waiting brings them. `windows` are
    the stretches that the job's code named, `overhead` those that suspensions took beside its work. `unread` counts
    files still to be read of readers that proved good.
    """

    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    unread: int = 0
    overhead: list[Window] = field(default_factory=list)

    def capped(self) -> Findings:
        """The same, each sentence once, at most so many of each, and the first windows."""
        notes, more = self.notes, len(self.windows) - WINDOWS
        if more > 0:
            notes = [f"{more} more windows of the job's code are not listed", *notes]
        kept = sorted(self.windows, key=lambda one: (not _kept(one.name), one.start, one.end))[:WINDOWS]
        windows = sorted(kept, key=lambda one: (one.start, one.end))
        return Findings(_capped(self.missing), _capped(notes), _capped(self.gaps), windows, overhead=self.overhead)


def _kept(name: str) -> bool:
    """Whether a window of this name is kept whatever else there is."""
    return name in (QUALITY, BATCH, REQUESTS) or name.startswith(VARIANT)


def of_remarks(attempt: str, remarks: Iterable[Remark]) -> Findings:
    """What the notes of the segments that hold this attempt's energy come to."""
    found, counted = Findings(), Counter(remarks)
    for one, times in counted.items():
        often = f" ({times} times)" if times > 1 else ""
        device = one.device or "a device"
        if one.kind == "unmetered-head":
            if one.attempt == attempt:
                found.gaps.append(
                    f"the first {one.missed_ms / 1000:g} s, before the machine's first reading since boot"
                )
        elif one.kind == "squatter":
            if one.holder == attempt:
                words = f"{device}, which this job held, was used by processes of another job or of nobody"
                found.notes.append(f"{words}; who uses a GPU pays for it [squatter]")
        elif one.kind in _BOOKED_FROM_POWER:
            words = f"the counter of {device} could not be believed for a time: booked from power [{one.kind}]"
            found.notes.append(words + often)
        elif one.kind.endswith("-unknown"):
            found.gaps.append(f"energy of {device} for a time, which could not be read [{one.kind}]{often}")
        elif one.kind in _KNOWN:
            found.notes.append(_KNOWN[one.kind].format(device=device) + often)
    return found


def of_record(record: AttemptRecord | None, held: Sequence[str]) -> Findings:
    """What the attempt's record says of its journal, and which of the segments it announces are not among `held`."""
    if record is None:
        return Findings([NO_RECORD])
    if not record.complete:
        return Findings(["the wrapper did not finish its energy journal", *map(_quoted, record.faults)])
    found = Findings(gaps=list(map(_quoted, record.faults)))  # it is done: what it could not meter does not come
    for part in record.remark.split("; "):
        outlived, altered, left = (one.fullmatch(part) for one in (_OUTLIVED, _ALTERED, _UNDELIVERED))
        if outlived:
            found.notes.append(f"{outlived.group(1)} processes of the job outlived its entrypoint")
        elif altered:
            words = "energy segments were altered or removed while the job ran; the wrapper put them back"
            found.notes.append(f"{altered.group(1)} {words}")
        elif left:
            words = f"energy segments did not reach the {left.group(1)} by the job's end"
            found.notes.append(f"{left.group(2)} {words}; they are booked where they were pulled from the node")
        elif part and part not in record.faults:
            found.gaps.append(_quoted(part))
    absent = _absent(record, held)
    if absent:
        found.missing.append(f"{absent} of {record.segments} energy segments that the wrapper announced")
    return found


def of_node(node: NodeJournal, held: Sequence[str]) -> Findings:
    """The same for another node of the job. That a journal was not closed is said by the wrapper, as a fault."""
    absent = _absent(node, held)
    words = f"{absent} of {node.segments} energy segments announced on node {node.node_id[:12]}"
    return Findings([words] if absent else [])


def _absent(record: AttemptRecord | NodeJournal, held: Sequence[str]) -> int:
    """How many announced segments we do not hold; by their names where the record gives them all, else by count."""
    named = _RUN.findall(record.journal)
    if not named or record.journal.endswith("..."):
        return max(0, record.segments - len(set(held)))  # one may have come several ways
    numbers: dict[str, set[int]] = {}
    for name in held:
        found = wire.parse_segment_name(name)
        numbers.setdefault(found.reader, set()).add(found.seq)
    absent = 0
    for reader, first, last in ((reader, int(first), int(last)) for reader, first, last in named):
        here = sum(first <= seq <= last for seq in numbers.get(reader, ()))
        absent += max(0, last - first + 1 - here)
    return absent


def _quoted(text: str) -> str:
    return f"the wrapper says: {text[:QUOTED]}"


def _capped(lines: Sequence[str]) -> list[str]:
    unique = list(dict.fromkeys(lines))
    more = len(unique) - LINES
    return [*unique[:LINES], f"and {more} more of the kind"] if more > 0 else unique
