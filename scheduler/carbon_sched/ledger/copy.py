r"""A copy of the ledger: one JSON object in a line for each entry, which holds the very bytes that were hashed.

    {"seq":1,"prev":"...","hash":"...","payload":{"at":...,"body":{...},"kind":"...","v":1}}

The payload stands in the line as it was stored, so that a verification hashes a slice of the line and parses no JSON. A
payload given as text (`"payload":"{\"at\":..."`), as copies once had it, is read too. See `scheduler/LEDGER.md`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from carbon_sched.domain.facts import Entry

_HEAD = re.compile(
    rb'\{"seq": ?([1-9][0-9]{0,17}), ?"prev": ?"([0-9a-f]{64})", ?"hash": ?"([0-9a-f]{64})", ?"payload": ?(?=\{)'
)
_FIELDS = {"seq": int, "prev": str, "hash": str, "payload": str}


def line_of(entry: Entry) -> bytes:
    """One line with its end. A payload that is no fact's bytes goes as text: tampered with, it must still be shown."""
    payload = entry.payload
    sound = payload[:1] == b"{" and payload[-1:] == b"}" and b"\n" not in payload and b"\r" not in payload
    shown = "" if sound else payload.decode(errors="replace")
    row = {"seq": entry.seq, "prev": entry.prev, "hash": entry.hash, "payload": shown}
    line = json.dumps(row, separators=(",", ":")).encode()
    return line[:-3] + payload + b"}\n" if sound else line + b"\n"


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
