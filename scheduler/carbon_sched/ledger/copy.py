r"""A copy of the ledger: one JSON object in a line for each entry, which holds the very bytes that were hashed.

    {"seq":1,"prev":"...","hash":"...","payload":{"at":...,"body":{...},"kind":"...","v":1}}

The payload stands in the line as it was stored, so that a verification hashes a slice of the line and parses no JSON. A
payload given as text (`"payload":"{\"at\":..."`), as copies once had it, is read too. See `scheduler/LEDGER.md`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.facts import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEAD = re.compile(
    rb'\{"seq": ?([1-9][0-9]{0,17}), ?"prev": ?"([0-9a-f]{64})", ?"hash": ?"([0-9a-f]{64})", ?"payload": ?(?=\{)'
)
_HEX = re.compile("[0-9a-f]{64}").fullmatch
_HASH, _PAYLOAD = 64, b'","payload":'
_FIELDS = {"seq": int, "prev": str, "hash": str, "payload": str}


def line_of(entry: Entry) -> bytes:
    """One line with its end. A payload that is no fact's bytes goes as text: tampered with, it must still be shown."""
    seq, prev, own, payload = entry
    sound = payload[:1] == b"{" and payload[-1:] == b"}" and b"\n" not in payload and b"\r" not in payload
    if sound and _HEX(prev) and _HEX(own):
        return b'{"seq":%d,"prev":"%s","hash":"%s","payload":%s}\n' % (seq, prev.encode(), own.encode(), payload)
    row = {"seq": seq, "prev": prev, "hash": own, "payload": "" if sound else payload.decode(errors="replace")}
    line = json.dumps(row, separators=(",", ":")).encode()
    return line[:-3] + payload + b"}\n" if sound else line + b"\n"


def entries_of(lines: Iterable[bytes]) -> Iterator[Entry]:
    """The entries of a whole copy. Raises ValueError, naming the line, for what is no entry.

    A line that begins as the one after the line before it must is taken apart at known places, twice as fast. Whether
    its hash is right is the chain's question.
    """
    seq, own = 0, ""
    for number, line in enumerate(lines, 1):
        start = b'{"seq":%d,"prev":"%s","hash":"' % (seq + 1, own.encode())
        told = len(start)
        fact = told + _HASH + len(_PAYLOAD)
        follows = line.startswith(start) and line[told + _HASH : fact] == _PAYLOAD
        if follows and line[fact] == ord("{") and line.endswith(b"}}\n"):
            entry = Entry(seq + 1, own, line[told : told + _HASH].decode("latin-1"), line[fact:-2])
        else:
            entry = _numbered(number, line)
        seq, own = entry.seq, entry.hash
        yield entry


def _numbered(number: int, line: bytes) -> Entry:
    try:
        return entry_of(line)
    except ValueError:
        raise ValueError(f"line {number} is not an entry of a ledger") from None


def entry_of(line: bytes) -> Entry:
    """Inverse of `line_of`. Raises ValueError for what is no entry; whether it verifies is another question."""
    line = line.rstrip()
    found = _HEAD.match(line)
    if found is not None and line.endswith(b"}}"):
        seq, prev, own = found.groups()
        return Entry(int(seq), prev.decode(), own.decode(), line[found.end() : -1])
    return _parsed(line)


def _parsed(line: bytes) -> Entry:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or any(type(row.get(name)) is not kind for name, kind in _FIELDS.items()):
        raise ValueError("the line is not an entry of a ledger")
    # a lone surrogate is no text and was never hashed: it stays wrong, and shows as an edited entry
    return Entry(row["seq"], row["prev"], row["hash"], row["payload"].encode("utf-8", "surrogatepass"))
