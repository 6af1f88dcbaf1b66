"""The fact of an attempt's energy, which is most of a ledger, read straight into spans.

msgspec reads it into structs of known fields and writes it back from them: where these are the very bytes that were
read, the fact is canonical and holds these fields alone. Any other fact, and every fact on a bare Python, is read by
the general reader (`encoding.py`), a third as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

from carbon_sched.domain.energy import EnergySpan, Reporter, SourceClass
from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.ledger.json_bytes import FAST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_TAIL = f'"kind":"{FactKind.ENERGY_RECORDED.value}","v":1}}'.encode()
_SOURCES = {source.value: source for source in SourceClass}
_REPORTERS = {reporter.value: reporter for reporter in Reporter}
_in_order = itemgetter(
    "device", "end", "energy_uj", "error_ppm", "flags", "kind", "machine", "owner", "reporter", "rule", "scope",
    "source", "start",
)  # fmt: skip
"""The fields of a span in the order of the alphabet, as they stand in a fact."""


class Compared(NamedTuple):
    """What a machine's counters said of a segment, beside the integral of its power."""

    counter_uj: int
    integral_uj: int
    machine: str


@dataclass(frozen=True)
class Energy:
    """One segment of an attempt's journal."""

    attempt: str
    segment: str
    sha256: str
    spans: list[EnergySpan]
    compared: Compared | None


def energy_of(payload: bytes) -> Energy | None:
    """The energy in canonical bytes; None for what the general reader is to look at."""
    if not FAST or not payload.endswith(_TAIL):
        return None
    try:
        fact = _READER.decode(payload)
    except msgspec.MsgspecError:
        return None
    if _WRITER.encode(fact) != payload or not _canonical_time(fact.at):
        return None
    body = fact.body
    spans = [_span(astuple(item), body.cluster, body.sha256) for item in body.spans]
    return Energy(
        body.attempt,
        body.segment,
        body.sha256,
        spans,
        None if body.compared is msgspec.UNSET else Compared(*astuple(body.compared)),
    )


def energy_in(body: Mapping[str, Any]) -> Energy:
    """The same from a fact's body."""
    told = body.get("compared")
    compared = Compared(told["counter_uj"], told["integral_uj"], told["machine"]) if told else None
    return Energy(body["attempt"], body["segment"], body["sha256"], spans_in(body), compared)


def spans_in(body: Mapping[str, Any]) -> list[EnergySpan]:
    """The spans of a body that holds some."""
    return [_span(_in_order(item), body["cluster"], body["sha256"]) for item in body["spans"]]


def _span(fields: tuple[Any, ...], cluster: str, sha256: str) -> EnergySpan:
    """A span from its fields in that order. Words and times are kept once, for millions of spans share them."""
    device, end, energy_uj, error_ppm, flags, kind, machine, owner, reporter, rule, scope, source, start = fields
    return EnergySpan.of(
        (
            intern(owner),
            intern(cluster),
            intern(machine),
            intern(device),
            intern(kind),
            instant(start),
            instant(end),
            energy_uj,
            _SOURCES[source],
            _REPORTERS[reporter],
            intern(scope),
            intern(rule),
            error_ppm,
            sha256,
            tuple(flags),
        )
    )


@lru_cache(maxsize=4096)
def instant(text: str) -> datetime:
    """`from_rfc3339`, of which few are asked again and again."""
    return from_rfc3339(text)


@lru_cache(maxsize=4096)
def _canonical_time(text: str) -> bool:
    try:
        return to_rfc3339(from_rfc3339(text)) == text
    except ValueError:
        return False


if FAST:
    import msgspec
    from msgspec.structs import astuple

    class _Item(msgspec.Struct, gc=False):
        device: str
        end: str
        energy_uj: int
        error_ppm: int
        flags: tuple[str, ...]
        kind: str
        machine: str
        owner: str
        reporter: str
        rule: str
        scope: str
        source: str
        start: str

    class _Compared(msgspec.Struct, gc=False):
        counter_uj: int
        integral_uj: int
        machine: str

    class _Body(msgspec.Struct, gc=False, kw_only=True):
        attempt: str
        cluster: str
        compared: _Compared | msgspec.UnsetType = msgspec.UNSET
        segment: str
        sha256: str
        spans: list[_Item]

    class _Fact(msgspec.Struct, gc=False):
        at: str
        body: _Body
        kind: str
        v: int

    _READER, _WRITER = msgspec.json.Decoder(_Fact), msgspec.json.Encoder()
