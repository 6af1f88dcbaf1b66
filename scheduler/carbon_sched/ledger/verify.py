"""Verification: walk the entries once, in constant memory, and name the first bad one and what is wrong with it.

The chain alone shows edits, gaps and swaps. That the tail was cut off, or that everything was hashed anew, shows only
against a checkpoint: the size and head hash that somebody wrote down elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import LedgerBroken
from carbon_sched.ledger.chain import GENESIS, entry_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from carbon_sched.domain.facts import Entry


@dataclass(frozen=True, order=True)
class Checkpoint:
    """What the ledger looked like once: `size` entries, the last with hash `head`."""

    size: int
    head: str


@dataclass(frozen=True)
class Verification:
    """The outcome: `size` and `head` of the part that verifies, and the first bad entry when there is one.

    `first_bad_seq` is where the ledger stops being what it was: the place of an entry that is wrong, or of one that
    should be there. Of a ledger that was hashed anew it is the first entry that a checkpoint denies; what was changed
    lies behind the last one that a checkpoint confirms, and the problem names both.
    """

    size: int
    head: str
    first_bad_seq: int | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether every entry verifies and every checkpoint is met."""
        return self.first_bad_seq is None

    def require(self) -> Checkpoint:
        """Size and head of a sound ledger; raises LedgerBroken otherwise."""
        if self.first_bad_seq is not None:
            raise LedgerBroken(self.first_bad_seq, self.problem)
        return Checkpoint(self.size, self.head)


def verify_entries(entries: Iterable[Entry], *, checkpoints: Iterable[Checkpoint] = ()) -> Verification:
    """Check all `entries`, from the first one on and in the order given, against the chain and the `checkpoints`."""
    expected: dict[int, set[str]] = {}
    for point in checkpoints:
        expected.setdefault(point.size, set()).add(point.head)
    rest = iter(entries)
    size, head, confirmed = 0, GENESIS, 0
    if problem := _denied(expected, size, head, confirmed):
        return Verification(size, head, 0, problem)
    for entry in rest:
        seq, prev, own, payload = entry
        if seq != size + 1 or prev != head or entry_hash(seq, prev, payload) != own:
            return Verification(size, head, size + 1, _wrong(entry, size, head, rest))
        if seq in expected:
            if problem := _denied(expected, seq, own, confirmed):
                return Verification(size, head, seq, problem)
            confirmed = seq
        size, head = seq, own
    longest = max(expected, default=0)
    if longest > size:
        problem = f"missing: a checkpoint names {longest} entries, the ledger ends at {size}"
        return Verification(size, head, size + 1, problem)
    return Verification(size, head)


def _wrong(entry: Entry, size: int, head: str, rest: Iterator[Entry]) -> str:
    """What is wrong with `entry` behind the head `(size, head)`."""
    if entry.seq != size + 1:
        return _misplaced(entry.seq, size + 1, rest)
    if entry.prev != head:
        return f"replaced: it does not follow entry {size}, whose hash is {head}"
    return "edited: its hash does not cover its content"


def _misplaced(found: int, expected: int, rest: Iterator[Entry]) -> str:
    if found < expected:
        return f"repeated or reordered: entry {found} stands in its place"
    if any(entry.seq == expected for entry in rest):
        return f"reordered: entry {found} stands before it"
    return f"missing: entry {found} stands in its place"


def _denied(expected: dict[int, set[str]], size: int, head: str, confirmed: int) -> str:
    """The contradiction with a checkpoint of this size, or empty."""
    others = expected.get(size, set()) - {head}
    if not others:
        return ""
    where = f"; what differs lies in entries {confirmed + 1} to {size}" if size else ""
    found = f"a checkpoint names {min(others)} as the hash of entry {size}, the ledger has {head}{where}"
    return f"forked or hashed anew: {found}"
