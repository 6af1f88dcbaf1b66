"""The end of a long text inside a JSON answer, without holding the whole of it."""

from __future__ import annotations

import codecs
import json
import re
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEX = "[0-9a-fA-F]"
_HIGH = rf"[dD][89abAB]{_HEX}{{2}}"
_LOW = rf"[dD][c-fC-F]{_HEX}{{2}}"
# One whole escape. A high surrogate is whole together with its low one, or alone once what follows is known.
_ESCAPE = rf"\\(?:[^u]|u(?:{_HIGH}\\u{_LOW}|{_HIGH}(?=.{{6}})|(?!{_HIGH}){_HEX}{{4}}))"
_WHOLE = re.compile(rf'[^"\\]*(?:{_ESCAPE}[^"\\]*)*', re.DOTALL)
_LONGEST_ESCAPE = 12
_AHEAD = " " * 6
_START_CHARACTERS = 4096


def tail_of_json_text(pieces: Iterable[bytes], field: str, limit: int) -> bytes:
    """The last `limit` bytes (UTF-8) of the string in `{"<field>": "..."}`; b'' where it is null or absent.

    Raises ValueError when the pieces are anything but such an object. Holds `limit` bytes and one piece more.
    """
    kept: deque[bytes] = deque()
    size = 0
    for text in _strings(_texts(pieces), field):
        kept.append(text.encode("utf-8", "replace"))
        size += len(kept[-1])
        while size - len(kept[0]) >= limit:
            size -= len(kept.popleft())
    return b"".join(kept)[-limit:]


def _texts(pieces: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        yield decoder.decode(piece)
    # Blanks after JSON mean nothing, and let a surrogate at the very end be told from half of a pair.
    yield decoder.decode(b"", final=True) + _AHEAD


def _strings(texts: Iterator[str], field: str) -> Iterator[str]:
    """The unescaped string piece by piece."""
    start = re.compile(rf'\s*\{{\s*"{re.escape(field)}"\s*:\s*"')
    rest = ""
    for text in texts:
        rest += text
        opening = start.match(rest)
        if opening:
            yield from _until_quote(rest[opening.end() :], texts)
            return
        if len(rest) > _START_CHARACTERS:
            break
    value = json.loads(rest)
    if not isinstance(value, dict) or value.get(field) is not None:
        raise ValueError(f"not an object with the text {field!r}")


def _until_quote(rest: str, texts: Iterator[str]) -> Iterator[str]:
    while True:
        match = _WHOLE.match(rest)
        end = match.end() if match else 0
        yield json.loads(f'"{rest[:end]}"', strict=False)
        rest = rest[end:]
        if rest.startswith('"'):
            break
        if len(rest) > _LONGEST_ESCAPE + len(_AHEAD):
            raise ValueError("a broken escape")
        following = next(texts, None)
        if following is None:
            raise ValueError("it ends inside the text")
        rest += following
    if (rest[1:] + "".join(texts)).strip() != "}":
        raise ValueError("more than one text")
