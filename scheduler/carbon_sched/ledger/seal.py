"""Seals: what the ledger looked like at a moment, signed, one JSON object per line, to be kept away from the database.

A chain alone does not show that its end was cut off, or that everything was hashed anew by somebody who can write the
database. A seal that was written elsewhere shows both; its signature shows who wrote it. Fields and what is signed:
LEDGER.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.ledger.verify import Checkpoint
from carbon_sched.signing import PublicKey, raw_public_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from carbon_sched.signing import PrivateKey

DOMAIN = b"carbon-sched ledger seal v1\0"
VERSION = 1
FIELDS = {"v": int, "size": int, "head": str, "at": str, "key": str, "signature": str}


@dataclass(frozen=True)
class Seal:
    """`size` entries, the last with hash `head`, as `key` saw it at `at`."""

    checkpoint: Checkpoint
    at: datetime
    key: PublicKey
    signature: str

    def line(self) -> str:
        """As it is kept: one line, without its end."""
        return json.dumps(_body(self.checkpoint, self.at, self.key) | {"signature": self.signature}, sort_keys=True)

    @property
    def sound(self) -> bool:
        """Whether its key signed just this."""
        return self.key.verifies(_signed(self.checkpoint, self.at, self.key), self.signature)


def seal(checkpoint: Checkpoint, at: datetime, key: PrivateKey) -> Seal:
    """Sign what the ledger looks like at `at` (UTC)."""
    public = PublicKey(key.raw_public)
    return Seal(checkpoint, at, public, key.signature(_signed(checkpoint, at, public)))


def read_seals(lines: Iterable[str], source: str, trusted: PublicKey | None = None) -> list[Seal]:
    """Every seal of a file; empty lines are passed over.

    Raises InvalidInput, naming the line, for one that is not a seal, whose signature is wrong, or that another key than
    the `trusted` one made.
    """
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        one = _parsed(line, f"{source}, line {number}")
        if not one.sound:
            raise InvalidInput(
                "seal", f"{source}, line {number}", "is not signed by the key it names", "Ask who keeps it"
            )
        if trusted is not None and one.key != trusted:
            remedy = f"It names {one.key}; give that with --key only if you know it is the server's"
            raise InvalidInput("seal", f"{source}, line {number}", "was made by another key", remedy)
        found.append(one)
    return found


def _parsed(line: str, place: str) -> Seal:
    wrong = InvalidInput("seal", place, "is not a seal", "Give the file that the server or its sink wrote")
    try:
        value = json.loads(line)
    except ValueError:
        raise wrong from None
    if not isinstance(value, dict) or any(type(value.get(name)) is not kind for name, kind in FIELDS.items()):
        raise wrong
    raw = raw_public_key(value["key"])
    if value["v"] != VERSION or raw is None or value.keys() != FIELDS.keys():
        raise wrong
    try:
        at = from_rfc3339(value["at"])
    except ValueError:
        raise wrong from None
    return Seal(Checkpoint(value["size"], value["head"]), at, PublicKey(raw), value["signature"])


def _body(checkpoint: Checkpoint, at: datetime, key: PublicKey) -> dict[str, Any]:
    return {"v": VERSION, "size": checkpoint.size, "head": checkpoint.head, "at": to_rfc3339(at), "key": str(key)}


def _signed(checkpoint: Checkpoint, at: datetime, key: PublicKey) -> bytes:
    """The bytes under the signature: all fields but itself, keys sorted, no white space."""
    text = json.dumps(_body(checkpoint, at, key), sort_keys=True, separators=(",", ":"))
    return DOMAIN + text.encode("ascii")
