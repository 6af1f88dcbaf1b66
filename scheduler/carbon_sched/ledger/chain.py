"""The hash chain: every entry's hash covers its place, its predecessor's hash and the stored bytes of its fact.

    hash(n) = SHA-256(domain || n as 8 bytes big-endian || hash(n-1) as 32 bytes || payload)
    domain  = "carbon-sched ledger entry v1" and one zero byte

The domain keeps these hashes apart from any other use of SHA-256; `n` and the fixed widths make the input unambiguous.
hash(0) is 32 zero bytes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import LedgerBroken
from carbon_sched.domain.facts import Entry
from carbon_sched.ledger.encoding import encode_fact

if TYPE_CHECKING:
    from carbon_sched.domain.facts import Fact

GENESIS = "0" * 64
"""The hash before the first entry, and the head of an empty ledger."""
DOMAIN = b"carbon-sched ledger entry v1\0"


def entry_hash(seq: int, prev: str, payload: bytes) -> str:
    """SHA-256 in lowercase hexadecimal, as in the module's formula; `prev` is 64 hexadecimal digits."""
    return hashlib.sha256(b"".join((DOMAIN, seq.to_bytes(8, "big"), bytes.fromhex(prev), payload))).hexdigest()


def next_entry(head_seq: int, head_hash: str, fact: Fact) -> Entry:
    """The entry that puts `fact` behind the head `(head_seq, head_hash)`; `(0, GENESIS)` for an empty ledger.

    Raises TypeError or ValueError when the fact has no canonical form.
    """
    seq, payload = head_seq + 1, encode_fact(fact)
    return Entry(seq, head_hash, entry_hash(seq, head_hash, payload), payload)


def continues(entry: Entry, size: int, head: str) -> None:
    """Raise LedgerBroken unless `entry` follows the head `(size, head)`, and its hash covers it."""
    if entry.seq != size + 1 or entry.prev != head or not covers(entry):
        raise LedgerBroken(size + 1, f"entry {entry.seq} does not continue the chain")


def covers(entry: Entry) -> bool:
    """Whether the entry's hash covers its place, its predecessor's hash and its bytes."""
    return entry_hash(entry.seq, entry.prev, entry.payload) == entry.hash
