"""Store a segment's spans and their facts, once, whoever delivers it and however often."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import IDLE, UNATTRIBUTED
from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from carbon_sched.domain.energy import EnergySpan
    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import Clock, Store, Transaction
    from carbon_sched.service.journal import Segment

MACHINE_POTS = frozenset({IDLE, UNATTRIBUTED})


class Keep:
    """Writes to the store it is given."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def segment(self, attempt: Attempt, segment: Segment) -> list[str]:
        """Rows of attempts on the attempt's cluster, and the machine's idle rows; who of them was booked before.

        A segment speaks for the whole machine, so the same one arrives through every attempt that ran there. Through
        one local head come the rows of the others too: they share this machine and its user, and of a head that was
        killed the last segment is sealed by whoever meters next. An attempt that was booked before is opened again:
        what outlives it comes late, and wants its readings too. Conflict when the segment is known with other content.
        """
        late: list[str] = []
        with self._store.transaction() as tx:
            machine = [span for span in segment.spans if span.owner in MACHINE_POTS]
            for cluster, mine in _by_cluster(tx, attempt.cluster, segment).items():
                if not self._add(tx, attempt, segment, f"{cluster}/{segment.identity}", mine):
                    continue
                owners = dict.fromkeys(span.owner for span in mine)
                late += _reopened(tx, owners)
                for number, owner in enumerate(owners):
                    body = {"attempt": owner, "cluster": cluster, **_evidence(segment, mine, {owner})}
                    body |= _compared(segment) if number == 0 else {}
                    tx.append_fact(Fact(FactKind.ENERGY_RECORDED, self._clock.now(), body))
            if self._add(tx, attempt, segment, segment.identity, machine) and (machine or segment.independent):
                body = {"machine": segment.machine, "cluster": attempt.cluster, **_watched(segment)}
                body |= _evidence(segment, machine, MACHINE_POTS)
                tx.append_fact(Fact(FactKind.MACHINE_ENERGY_RECORDED, self._clock.now(), body))
        return late

    def _add(self, tx: Transaction, attempt: Attempt, segment: Segment, key: str, spans: Sequence[EnergySpan]) -> bool:
        """Store once; True when it is new."""
        try:
            return tx.add_segment(
                segment_id=key,
                sha256=segment.sha256,
                cluster=attempt.cluster,
                attempt_id=attempt.attempt_id,
                spans=spans,
                received_at=self._clock.now(),
            )
        except Conflict:
            raise Conflict(
                f"{segment.name} was delivered before with other content. Nothing of it was booked"
            ) from None


def _by_cluster(tx: Transaction, cluster: str, segment: Segment) -> dict[str, list[EnergySpan]]:
    """The rows of attempts that a segment delivered on this cluster may speak for, by their own cluster."""
    homes = {owner: found for owner in segment.owners if (found := _cluster_of(tx, owner)) is not None}
    local = {one.name for one in tx.clusters() if one.local is not None} if set(homes.values()) - {cluster} else set()
    rows: dict[str, list[EnergySpan]] = {cluster: []}
    for span in segment.spans:
        home = homes.get(span.owner)
        if home is not None and (home == cluster or {home, cluster} <= local):
            rows.setdefault(home, []).append(span._replace(cluster=home))
    return rows


def _reopened(tx: Transaction, owners: Iterable[str]) -> list[str]:
    found = [attempt for attempt in map(tx.attempt, owners) if attempt.collected]
    for attempt in found:
        tx.put_attempt(replace(attempt, collected=False))
    return [attempt.attempt_id for attempt in found]


def _cluster_of(tx: Transaction, owner: str) -> str | None:
    """The cluster of an attempt; None for owners that are no attempts of ours."""
    try:
        return tx.attempt(owner).cluster
    except NotFound:
        return None


def _evidence(segment: Segment, spans: Sequence[EnergySpan], owners: Collection[str]) -> dict[str, object]:
    """What a fact says of one segment's energy for these owners."""
    rows = [_span(span) for span in spans if span.owner in owners]
    return {"segment": segment.identity, "sha256": segment.sha256, "spans": rows}


def _compared(segment: Segment) -> dict[str, object]:
    """Counters against power, of the whole machine: said once, whoever had energy there."""
    if segment.compared_uj is None:
        return {}
    counter_uj, integral_uj = segment.compared_uj
    return {"compared": {"machine": segment.machine, "counter_uj": counter_uj, "integral_uj": integral_uj}}


def _watched(segment: Segment) -> dict[str, object]:
    """What an independent segment speaks for: of these devices at this time nobody else's word is booked."""
    if not segment.independent:
        return {}
    times = {"start": to_rfc3339(segment.start), "end": to_rfc3339(segment.end)}
    return {"watched": {**times, "kinds": list(segment.kinds)}}


def _span(span: EnergySpan) -> dict[str, object]:
    return {
        "owner": span.owner,
        "machine": span.machine,
        "device": span.device,
        "kind": span.device_kind,
        "start": to_rfc3339(span.start),
        "end": to_rfc3339(span.end),
        "energy_uj": span.energy_uj,
        "source": span.source.value,
        "reporter": span.reporter.value,
        "scope": span.scope,
        "rule": span.rule,
        "error_ppm": span.error_ppm,
        "flags": list(span.flags),
    }
