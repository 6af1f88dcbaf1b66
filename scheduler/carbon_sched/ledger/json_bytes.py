"""JSON of integers and text, read and written fast: canonical bytes of facts, and the indented text of statements.

msgspec does it where it is installed. On a bare Python, such as an auditor's who has the source alone, the standard
library gives the same, several times slower. That both agree is a property under test.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any

FAST = importlib.util.find_spec("msgspec") is not None
"""Whether msgspec is there."""


def parsed(payload: bytes) -> Any:
    """The value; ValueError for what is no JSON, for fractions, and for what is nested too deeply."""
    if not FAST:
        return plain_parsed(payload)
    try:
        return _READER.decode(payload)
    except RecursionError:
        raise ValueError("the payload is nested too deeply to be a fact") from None
    except msgspec.MsgspecError as error:
        raise ValueError(f"the payload is no JSON of integers and text ({error})") from None


def canonical(value: Any) -> bytes:
    """Plain types as canonical JSON (`encoding.py`): keys sorted, no white space, UTF-8."""
    return _WRITER.encode(value) if FAST else plain_canonical(value)


def indented(value: Any) -> str:
    """Plain types and dataclasses for people: keys sorted, one space for each level."""
    return msgspec.json.format(canonical(value), indent=1).decode() if FAST else plain_indented(value)


def plain_parsed(payload: bytes) -> Any:
    """`parsed`, by the standard library."""
    try:
        return json.loads(payload.decode("utf-8"), parse_float=_refuse_float, parse_constant=_refuse_float)
    except RecursionError:
        raise ValueError("the payload is nested too deeply to be a fact") from None


def plain_canonical(value: Any) -> bytes:
    """`canonical`, by the standard library."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def plain_indented(value: Any) -> str:
    """`indented`, by the standard library."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, default=vars)


def _refuse_float(text: str) -> Any:
    raise ValueError(f"the payload holds {text}, which is not an integer")


if FAST:
    import msgspec

    _READER, _WRITER = msgspec.json.Decoder(float_hook=_refuse_float), msgspec.json.Encoder(order="sorted")
