"""Canonical bytes of a fact: the bytes that are stored, hashed and exported, the same on every machine.

A payload is one JSON object `{"at":...,"body":{...},"kind":...,"v":1}`: keys sorted by code point at every depth, no
white space, UTF-8 with only JSON's mandatory escapes, integers in plain decimal. Floats are refused: their text
differs between programs, so stored figures are integers. Lone surrogates in values, which are no text, become U+FFFD: a
cluster's odd message must not keep a fact from being booked. See `scheduler/LEDGER.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.ledger.json_bytes import canonical, parsed, plain_canonical

VERSION = 1
_FIELDS = {"at", "body", "kind", "v"}


def encode_fact(fact: Fact) -> bytes:
    """The canonical bytes of `fact`.

    Raises TypeError for what canonical JSON cannot hold (floats, keys that are no text, other objects) and ValueError
    for keys with lone surrogates and for naive times. The message names the place.
    """
    body = _plain(fact.body, fact.kind.value)
    return plain_canonical({"at": to_rfc3339(fact.at), "body": body, "kind": fact.kind.value, "v": VERSION})


def decode_fact(payload: bytes) -> Fact:
    """The fact in `payload`; ValueError when these are not the canonical bytes of a fact this version knows."""
    document = parsed(payload)
    if not isinstance(document, dict) or set(document) != _FIELDS or not isinstance(document["body"], dict):
        raise ValueError("the payload is not an object with at, body, kind and v")
    if type(document["v"]) is not int or document["v"] != VERSION:
        raise ValueError(f"the payload has version {document['v']!r}, this program reads {VERSION}")
    fact = Fact(FactKind(document["kind"]), from_rfc3339(document["at"]), document["body"])
    # what the parser gave holds plain types only: the encoder alone tells whether these are the canonical bytes
    if canonical(document) != payload or to_rfc3339(fact.at) != document["at"]:
        raise ValueError("the payload is JSON, but not in canonical form")
    return fact


def valid_text(value: str) -> str:
    """`value` with U+FFFD for lone surrogates, which no encoding of Unicode can hold; pairs become their character."""
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain(value: Any, place: str) -> Any:
    """`value` in the types the JSON encoder treats in one way only."""
    if isinstance(value, str):
        return valid_text(value)
    if value is None or isinstance(value, int):  # bool is an int, and JSON's own
        return value
    if isinstance(value, Mapping):
        return {_key(key, place): _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{place}: a fact cannot hold {type(value).__name__} {value!r}; use integers, text, lists, objects")


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{place}: key {key!r} is not text")
    if valid_text(key) != key:
        raise ValueError(f"{place}: key {key!r} holds a lone surrogate, which is no text")
    return key
