"""The fact of an attempt's energy, which is most of a ledger, read straight into stretches of spans.

msgspec reads it into structs of known fields and writes it back from them: where these are the very bytes that were
read, the fact is canonical and holds these fields alone. Any other fact, and every fact on a bare Python, is read by
the general reader (`encoding.py`), a third as fast.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from carbon_sched.domain.energy import Channel, EnergySpan, Reporter, SourceClass, Stretch
from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.ledger.json_bytes import FAST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

_TAIL = f'"kind":"{FactKind.ENERGY_RECORDED.value}","v":1}}'.encode()
_SOURCES = {source.value: source for source in SourceClass}
_REPORTERS = {reporter.value: reporter for reporter in Reporter}
_alphabetical = itemgetter(
    "device", "end", "energy_uj", "error_ppm", "flags", "kind", "machine", "owner", "reporter", "rule", "scope",
    "source", "start",
)  # fmt: skip
"""The fields of a span in the order of the alphabet, as they stand in a fact."""
_time = itemgetter(12, 1)
_energy = itemgetter(2)
_channel = itemgetter(0, 3, 4, 5, 6, 7, 8, 9, 10, 11)
"""What of these fields says when, how much, and the rest."""

Fields = tuple[Any, ...]
Known = dict[tuple[Any, ...], tuple[Channel, ...]]
"""Channels by their cluster and fields: segments of one attempt have the same ones."""


class Compared(NamedTuple):
    """What a machine's counters said of a segment, beside the integral of its power."""

    counter_uj: int
    integral_uj: int
    machine: str


class Energy(NamedTuple):
    """One segment of an attempt's journal."""

    attempt: str
    cluster: str
    segment: str
    sha256: str
    fields: list[Fields]
    compared: Compared | None

    def stretches(self, known: Known) -> list[Stretch]:
        """Its spans; `known` holds the attempt's channels and learns. Raises ValueError or KeyError."""
        return _stretches(self.fields, self.cluster, self.sha256, known)


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
    compared = None if body.compared is msgspec.UNSET else Compared(*astuple(body.compared))
    return Energy(body.attempt, body.cluster, body.segment, body.sha256, list(map(astuple, body.spans)), compared)


def energy_in(body: Mapping[str, Any]) -> Energy:
    """The same from a fact's body."""
    told = body.get("compared")
    compared = Compared(told["counter_uj"], told["integral_uj"], told["machine"]) if told else None
    fields = list(map(_in_order, body["spans"]))
    return Energy(body["attempt"], body["cluster"], body["segment"], body["sha256"], fields, compared)


def _in_order(item: Mapping[str, Any]) -> Fields:
    *before, flags, kind, machine, owner, reporter, rule, scope, source, start = _alphabetical(item)
    return (*before, tuple(flags), kind, machine, owner, reporter, rule, scope, source, start)


def spans_in(body: Mapping[str, Any]) -> list[EnergySpan]:
    """The spans of a body that holds some."""
    stretches = _stretches(map(_in_order, body["spans"]), body["cluster"], body["sha256"], {})
    return [span for stretch in stretches for span in stretch.spans]


def _stretches(spans: Iterable[Fields], cluster: str, sha256: str, known: Known) -> list[Stretch]:
    """Spans that follow one another and share their time, together."""
    found = []
    for (start, end), together in groupby(spans, key=_time):
        fields = list(together)
        told = (cluster, *map(_channel, fields))
        channels = known.get(told)
        if channels is None:
            channels = known[told] = tuple(_read(cluster, one) for one in told[1:])
        energy_uj = tuple(map(_energy, fields))
        found.append(Stretch.of((channels, instant(start), instant(end), energy_uj, sha256)))
    return found


def _read(cluster: str, fields: Fields) -> Channel:
    device, error_ppm, flags, kind, machine, owner, reporter, rule, scope, source = fields
    how = _SOURCES[source], _REPORTERS[reporter], scope, rule, error_ppm, flags
    return Channel(owner, cluster, machine, device, kind, *how)


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
