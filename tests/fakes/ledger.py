"""A ledger written fact by fact, with the bodies that the services write, for tests of statements."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from carbon_sched.domain.facts import Entry, Fact, FactKind
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.ledger.chain import GENESIS, next_entry

AT = from_rfc3339("2026-03-01T09:00:00Z")
KWH = 3_600_000_000_000


def at(clock: str) -> str:
    """`10:50` on the day of the tests."""
    return f"2026-03-01T{clock}:00Z"


def text(value: datetime | str) -> str:
    return value if isinstance(value, str) else to_rfc3339(value)


class WrittenLedger:
    """Entries so far; each method appends one fact."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.segments = 0

    def add(self, kind: FactKind, **body: Any) -> None:
        head = (self.entries[-1].seq, self.entries[-1].hash) if self.entries else (0, GENESIS)
        self.entries.append(next_entry(*head, Fact(kind, AT + timedelta(seconds=head[0]), body)))

    def cluster(self, name: str, zone: str, pue_ppm: int, **more: Any) -> None:
        body = {"pue_period": "2025", "pue_source": "measured", "local": False, "home": False, "residency": []} | more
        self.add(FactKind.CLUSTER_REGISTERED, name=name, zone=zone, pue_ppm=pue_ppm, **body)

    def job(self, job: str, submitted_at: str = "09:30", **more: Any) -> None:
        labels = {"name": "train", "phase": "other", "stage": "", "model": "", "project": "", "team": ""} | more
        self.add(
            FactKind.JOB_ACCEPTED, job=job, submitter="person-1", submitted_at=at(submitted_at), spec_sha256="0" * 64,
            policy="balanced", **labels,
        )  # fmt: skip

    def decided(self, job: str, verdict: str = "place", expected_co2e_ug: int | None = None) -> None:
        self.add(
            FactKind.JOB_DECIDED, job=job, verdict=verdict, cluster="north", start=None, reason="cleanest",
            expected_energy_uj=None, expected_co2e_ug=expected_co2e_ug, estimate_source="", candidates=[],
            references={}, policy="balanced",
        )  # fmt: skip

    def opened(
        self,
        job: str,
        number: int = 1,
        cluster: str = "north",
        zone: str = "SE",
        pue_ppm: int = 1_200_000,
        **more: Any,
    ) -> str:
        attempt = f"cs-{job}-a{number}"
        self.add(
            FactKind.ATTEMPT_OPENED, attempt=attempt, job=job, number=number, cluster=cluster, zone=zone,
            pue_ppm=pue_ppm, pue_source="measured", start_by=at("12:00"), **more,
        )  # fmt: skip
        return attempt

    def energy(self, attempt: str, *spans: dict[str, Any], cluster: str = "north", **more: Any) -> None:
        self.segments += 1
        owned = [{"owner": attempt} | span for span in spans]
        self.add(
            FactKind.ENERGY_RECORDED, attempt=attempt, cluster=cluster, segment=f"segment-{self.segments}",
            sha256="1" * 64, spans=owned, **more,
        )  # fmt: skip

    def machine_energy(self, machine: str, *spans: dict[str, Any], cluster: str = "north") -> None:
        self.segments += 1
        self.add(
            FactKind.MACHINE_ENERGY_RECORDED, machine=machine, cluster=cluster, segment=f"segment-{self.segments}",
            sha256="1" * 64, spans=list(spans),
        )  # fmt: skip

    def used(
        self,
        attempt: str,
        role: str,
        cluster: str,
        zone: str,
        pue_ppm: int,
        *readings: dict[str, Any],
        shift_s: int = 0,
        **more: Any,
    ) -> None:
        self.add(
            FactKind.READINGS_USED, job=attempt[3:-3], attempt=attempt, role=role, cluster=cluster, zone=zone,
            pue_ppm=pue_ppm, pue_source="measured", shift_us=shift_s * 1_000_000, provider="grid",
            readings=list(readings), **more,
        )  # fmt: skip

    def ended(
        self,
        attempt: str,
        outcome: str = "succeeded",
        start: str | None = None,
        end: str | None = None,
        missing: tuple[str, ...] = (),
    ) -> None:
        self.add(
            FactKind.ATTEMPT_ENDED, attempt=attempt, job=attempt[3:-3], outcome=outcome,
            started_at=at(start) if start else None, ended_at=at(end) if end else None, exit_code=0, reason="",
            missing=list(missing),
        )  # fmt: skip

    def collected(self, attempt: str, *missing: str, windows: tuple[dict[str, Any], ...] = ()) -> None:
        self.add(
            FactKind.ATTEMPT_COLLECTED, attempt=attempt, job=attempt[3:-3], missing=list(missing), segments=1,
            windows=list(windows),
        )  # fmt: skip

    def job_ended(self, job: str, state: str = "succeeded", attempts: int = 1) -> None:
        self.add(FactKind.JOB_ENDED, job=job, state=state, exit_code=0, reason="", attempts=attempts)


def span(
    start: datetime | str, end: datetime | str, energy_uj: int, device: str = "gpu-0", **more: Any
) -> dict[str, Any]:
    values = {
        "machine": "m1", "device": device, "kind": "gpu", "source": "counter", "reporter": "self-reported",
        "scope": "board", "rule": "sole-owner", "error_ppm": 50_000, "flags": [],
    } | more  # fmt: skip
    return values | {"start": text(start), "end": text(end), "energy_uj": energy_uj}


def reading(start: datetime | str, end: datetime | str, g_per_kwh: int, **more: Any) -> dict[str, Any]:
    values = {
        "signal": "average", "basis": "lifecycle", "perimeter": "consumption", "kind": "measured",
        "grade": "A-live", "provider": "grid", "model_version": "", "issued_at": at("12:00"),
        "fetched_at": at("12:00"), "sha256": "2" * 64, "licence": "CC-BY-4.0",
    } | more  # fmt: skip
    return values | {"start": text(start), "end": text(end), "mg_per_kwh": 1000 * g_per_kwh}


def window(name: str, start: str = "10:00", end: str = "11:00", **units: float) -> dict[str, Any]:
    amounts = {unit: round(amount * 1_000_000) for unit, amount in units.items()}
    return {"name": name, "start": at(start), "end": at(end), "units_millionths": amounts}


class Worked(WrittenLedger):
    """A ledger of jobs of an hour, each from 10:00 on `north` at PUE 1.2 and 50 g/kWh: 1 kWh is 60 g."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster("north", "SE", 1_200_000)

    def ran(
        self,
        job: str,
        kwh: float,
        *windows: dict[str, Any],
        end: str = "11:00",
        spans: list[dict[str, Any]] | None = None,
        collected: bool = True,
        known: bool = True,
        **labels: str,
    ) -> None:
        self.job(job, **labels)
        attempt = self.opened(job)
        self.energy(attempt, *(spans or [span(at("10:00"), at("11:00"), round(kwh * KWH))]))
        self.ended(attempt, start="10:00", end=end)
        self.job_ended(job)
        if known:
            self.used(attempt, "actual", "north", "SE", 1_200_000, reading(at("10:00"), at("11:00"), 50))
        if collected:
            self.collected(attempt, windows=windows)
