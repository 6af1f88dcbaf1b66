"""Energy spans and grid readings in the database."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select

from carbon_sched.domain.energy import EnergySpan, Reporter, SourceClass
from carbon_sched.domain.errors import Conflict
from carbon_sched.domain.intensity import Basis, Grade, Kind, Perimeter, Reading, Signal
from carbon_sched.store.columns import to_micros
from carbon_sched.store.tables import readings, segments, spans

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Row

    from carbon_sched.store.session import Session

BATCH = 500
"""Values in one IN (...): well below SQLite's limit of variables."""
_SEGMENT = select(segments.c.sha256).where(segments.c.segment_id == bindparam("segment_id"))
_KNOWN_CONTENT = select(readings.c.content_sha256).where(
    readings.c.content_sha256.in_(bindparam("contents", expanding=True))
)


class EnergyRows:
    """The part of `ports.Transaction` about energy and readings."""

    _db: Session

    def add_segment(
        self,
        *,
        segment_id: str,
        sha256: str,
        cluster: str,
        attempt_id: str,
        spans: Sequence[EnergySpan],
        received_at: datetime,
    ) -> bool:
        """Store a segment's spans once; False when it is known already, Conflict when with other content."""
        known = self._db.first(_SEGMENT, {"segment_id": segment_id})
        if known is not None:
            if known.sha256 != sha256:
                message = f"energy segment {segment_id} is known with hash {known.sha256}, and came with {sha256}"
                raise Conflict(f"{message}. Nothing of it was booked")
            return False
        row = {"segment_id": segment_id, "sha256": sha256, "cluster": cluster, "attempt_id": attempt_id}
        self._db.write(insert(segments), row | {"received_at": received_at})
        self._db.write_many(_ADD_SPANS, [_span_values(span) | {"segment_id": segment_id} for span in spans])
        return True

    def segment_ids(self, cluster: str, *, received_before: datetime) -> set[str]:
        """Those of a cluster that were stored before a moment."""
        query = select(segments.c.segment_id).where(
            segments.c.cluster == cluster, segments.c.received_at < received_before
        )
        return {row.segment_id for row in self._db.rows(query)}

    def spans(self, owners: Sequence[str]) -> list[EnergySpan]:
        """Ordered by (start, device)."""
        found: list[EnergySpan] = []
        for first in range(0, len(owners), BATCH):
            query = select(spans).where(spans.c.owner.in_(owners[first : first + BATCH]))
            found += [_span(row) for row in self._db.rows(query)]
        return sorted(found, key=lambda span: (span.start, span.device, span.machine, span.owner, span.end))

    def add_readings(self, new: Sequence[Reading]) -> int:
        """Append those whose content is new; see `content_sha256`."""
        by_content = {content_sha256(reading): reading for reading in new}
        for known in self._known(list(by_content)):
            del by_content[known]
        rows = [_reading_values(reading) | {"content_sha256": key} for key, reading in by_content.items()]
        self._db.write_many(insert(readings), rows)
        return len(rows)

    def readings(
        self, zone: str, start: datetime, end: datetime, *, as_of: datetime | None = None, known: bool = False
    ) -> list[Reading]:
        """All that overlap `[start, end)`, ordered by (start, issued_at)."""
        query = (
            select(readings)
            .where(readings.c.zone == zone, readings.c.end_at > start, readings.c.start_at < end)
            .order_by(readings.c.start_at, readings.c.issued_at, readings.c.id)
        )
        if as_of is not None:
            query = query.where(readings.c.issued_at <= as_of)
        if known:
            query = query.where(readings.c.kind != Kind.FORECAST.value)
        return [_reading(row) for row in self._db.rows(query)]

    def _known(self, contents: list[str]) -> list[str]:
        known: list[str] = []
        for first in range(0, len(contents), BATCH):
            rows = self._db.rows(_KNOWN_CONTENT, {"contents": contents[first : first + BATCH]})
            known += [row.content_sha256 for row in rows]
        return known


_ADD_SPANS = insert(spans)


def content_sha256(reading: Reading) -> str:
    """Identity of what a provider said: everything but when we fetched it and the answer it came in.

    So the same value asked for every five minutes is one row, with its first answer as evidence.
    """
    values = _reading_values(reading)
    for name in ("fetched_at", "payload_sha256"):
        del values[name]
    plain = {name: to_micros(value) if name in _INSTANTS else value for name, value in values.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


_INSTANTS = {"start_at", "end_at", "issued_at"}


def _span_values(span: EnergySpan) -> dict[str, Any]:
    return {
        "owner": span.owner,
        "cluster": span.cluster,
        "machine": span.machine,
        "device": span.device,
        "device_kind": span.device_kind,
        "start_at": span.start,
        "end_at": span.end,
        "energy_uj": span.energy_uj,
        "source": span.source.value,
        "reporter": span.reporter.value,
        "scope": span.scope,
        "rule": span.rule,
        "error_ppm": span.error_ppm,
        "segment_sha256": span.segment_sha256,
        "flags": list(span.flags),
    }


def _span(row: Row[Any]) -> EnergySpan:
    return EnergySpan(
        owner=row.owner,
        cluster=row.cluster,
        machine=row.machine,
        device=row.device,
        device_kind=row.device_kind,
        start=row.start_at,
        end=row.end_at,
        energy_uj=row.energy_uj,
        source=SourceClass(row.source),
        reporter=Reporter(row.reporter),
        scope=row.scope,
        rule=row.rule,
        error_ppm=row.error_ppm,
        segment_sha256=row.segment_sha256,
        flags=tuple(row.flags),
    )


def _reading_values(reading: Reading) -> dict[str, Any]:
    return {
        "zone": reading.zone,
        "start_at": reading.start,
        "end_at": reading.end,
        "intensity_mg_per_kwh": reading.intensity_mg_per_kwh,
        "signal": reading.signal.value,
        "basis": reading.basis.value,
        "perimeter": reading.perimeter.value,
        "kind": reading.kind.value,
        "grade": reading.grade.value,
        "provider": reading.provider,
        "issued_at": reading.issued_at,
        "fetched_at": reading.fetched_at,
        "low_mg_per_kwh": reading.low_mg_per_kwh,
        "high_mg_per_kwh": reading.high_mg_per_kwh,
        "model_version": reading.model_version,
        "payload_sha256": reading.payload_sha256,
        "licence": reading.licence,
        "retention": reading.retention,
    }


def _reading(row: Row[Any]) -> Reading:
    return Reading(
        zone=row.zone,
        start=row.start_at,
        end=row.end_at,
        intensity_mg_per_kwh=row.intensity_mg_per_kwh,
        signal=Signal(row.signal),
        basis=Basis(row.basis),
        perimeter=Perimeter(row.perimeter),
        kind=Kind(row.kind),
        grade=Grade(row.grade),
        provider=row.provider,
        issued_at=row.issued_at,
        fetched_at=row.fetched_at,
        low_mg_per_kwh=row.low_mg_per_kwh,
        high_mg_per_kwh=row.high_mg_per_kwh,
        model_version=row.model_version,
        payload_sha256=row.payload_sha256,
        licence=row.licence,
        retention=row.retention,
    )
