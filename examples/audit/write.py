"""Write ledger.jsonl: the ledger of the worked example in README.md, fact by fact.

Run:  python examples/audit/write.py > examples/audit/ledger.jsonl
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import from_rfc3339
from carbon_sched.ledger.chain import GENESIS, next_entry
from carbon_sched.ledger.copy import line_of

if TYPE_CHECKING:
    from carbon_sched.domain.facts import Entry

KWH = 3_600_000_000_000  # microjoules
HOURS_OF_LIFE = 35_040  # four years
entries: list[Entry] = []


def at(clock: str) -> str:
    """A time of the example's day."""
    return f"2026-03-01T{clock}:00Z"


def fact(clock: str, kind: FactKind, **body: Any) -> None:
    """Append one."""
    head = (entries[-1].seq, entries[-1].hash) if entries else (0, GENESIS)
    entries.append(next_entry(*head, Fact(kind, from_rfc3339(at(clock)), body)))


def cluster(clock: str, name: str, zone: str, pue_ppm: int, **pue: str) -> None:
    """Register a cluster, or register it anew."""
    more = {"local": False, "home": name == "south", "residency": [], "meter_keys": []}
    fact(clock, FactKind.CLUSTER_REGISTERED, name=name, zone=zone, pue_ppm=pue_ppm, **pue, **more)


def job(clock: str, name: str, phase: str) -> None:
    """Accept a job and place it."""
    labels = {"stage": "", "model": "tiny", "project": "demo", "team": "ml"}
    fact(
        clock, FactKind.JOB_ACCEPTED, job=name, name=name, phase=phase, submitter="person-1", submitted_at=at(clock),
        spec_sha256="0" * 64, policy="balanced", **labels,
    )  # fmt: skip
    fact(
        clock, FactKind.JOB_DECIDED, job=name, verdict="place", cluster="north", start=None, reason="the cleanest",
        expected_energy_uj=None, expected_co2e_ug=100_000_000, estimate_source="said by the user", candidates=[],
        references={}, policy="balanced",
    )  # fmt: skip


def opened(clock: str, name: str, where: str, zone: str, pue_ppm: int, source: str, **reserved: Any) -> None:
    """Open the job's first attempt."""
    fact(
        clock, FactKind.ATTEMPT_OPENED, attempt=f"cs-{name}-a1", job=name, number=1, cluster=where, zone=zone,
        pue_ppm=pue_ppm, pue_source=source, start_by=at("23:00"), **reserved,
    )  # fmt: skip


def span(name: str, start: str, end: str, energy_uj: int, **more: Any) -> dict[str, Any]:
    """Energy of one device."""
    values = {
        "owner": f"cs-{name}-a1", "machine": "m1", "device": "gpu-0", "kind": "gpu", "source": "counter",
        "reporter": "independent", "scope": "board", "rule": "sole-owner", "error_ppm": 50_000, "flags": [],
    }  # fmt: skip
    return values | {"start": at(start), "end": at(end), "energy_uj": energy_uj} | more


def energy(clock: str, name: str, where: str, *spans: dict[str, Any]) -> None:
    """Record a journal segment."""
    segment = f"{name}-1"
    fact(
        clock, FactKind.ENERGY_RECORDED, attempt=f"cs-{name}-a1", cluster=where, segment=segment, sha256="1" * 64,
        spans=list(spans),
    )  # fmt: skip


def value(start: str, end: str, g_per_kwh: int, **more: str) -> dict[str, Any]:
    """One intensity."""
    values = {
        "signal": "average", "basis": "lifecycle", "perimeter": "consumption", "kind": "measured", "grade": "A-live",
        "provider": "grid.example", "model_version": "", "issued_at": at("15:00"), "fetched_at": at("15:00"),
        "sha256": "2" * 64, "licence": "CC BY 4.0",
    }  # fmt: skip
    return values | {"start": at(start), "end": at(end), "mg_per_kwh": 1000 * g_per_kwh} | more


def used(
    clock: str,
    name: str,
    role: str,
    place: tuple[str, str, int, str],
    *values: dict[str, Any],
    back_min: int = 0,
    **more: Any,
) -> None:
    """Which intensities book the attempt, or would under another choice, `back_min` minutes earlier."""
    where, zone, pue_ppm, source = place
    fact(
        clock, FactKind.READINGS_USED, job=name, attempt=f"cs-{name}-a1", role=role, cluster=where, zone=zone,
        pue_ppm=pue_ppm, pue_source=source, shift_us=-back_min * 60_000_000, provider="grid.example",
        readings=list(values), **more,
    )  # fmt: skip


def ended(clock: str, name: str, start: str, end: str) -> None:
    """The attempt ended, its journal is read, and the job is over."""
    attempt = {"attempt": f"cs-{name}-a1", "job": name}
    fact(
        clock, FactKind.ATTEMPT_ENDED, **attempt, outcome="succeeded", started_at=at(start), ended_at=at(end),
        exit_code=0, reason="", cause="", missing=[],
    )  # fmt: skip
    fact(clock, FactKind.ATTEMPT_COLLECTED, **attempt, missing=[], notes=[], segments=1, windows=[])
    fact(clock, FactKind.JOB_ENDED, job=name, state="succeeded", exit_code=0, reason="", attempts=1)


def contract(kind: str, name: str, share_ppm: int, mg_per_kwh: int) -> dict[str, Any]:
    """An instrument for electricity."""
    years = {"since": "2026-01-01T00:00:00Z", "until": "2027-01-01T00:00:00Z"}
    return {"kind": kind, "name": name, "share_ppm": share_ppm, "mg_per_kwh": mg_per_kwh, **years, "source": "contract"}


NORTH, NORTH_LATER = ("north", "SE", 1_200_000, "measured"), ("north", "SE", 1_100_000, "measured")
SOUTH = ("south", "DE", 1_500_000, "assumed")
CARD = {
    "hardware": "GPU (made up)", "share_ppm": 1_000_000, "low_g": 3 * HOURS_OF_LIFE, "high_g": 10 * HOURS_OF_LIFE,
    "life_s": 3600 * HOURS_OF_LIFE, "source": "made up: 3 and 10 g an hour",
}  # fmt: skip

cluster("08:00", "south", "DE", 1_500_000, pue_period="", pue_source="assumed")
cluster("08:00", "north", "SE", 1_200_000, pue_period="2025", pue_source="measured")

job("09:30", "train", "pretraining")
opened("10:30", "train", *NORTH, reserved={"gpus_milli": 1000, "parts": [CARD]})
energy("11:30", "train", "north", span("train", "10:30", "11:30", 2 * KWH))
first, second = value("10:00", "11:00", 30), value("11:00", "12:00", 50)
combustion = [value("10:00", "11:00", 10, basis="direct"), value("11:00", "12:00", 20, basis="direct")]
used("11:31", "train", "actual", NORTH, first, second, direct=combustion)
used("11:31", "train", "run-now-home", SOUTH, value("09:00", "11:00", 400), back_min=60)
used("11:31", "train", "best-fixed", NORTH, value("09:00", "11:00", 30), back_min=60)
used("11:31", "train", "best-in-hindsight", NORTH, value("09:00", "11:00", 20), back_min=30)
ended("11:31", "train", "10:30", "11:30")

job("09:50", "evaluate", "evaluation")
opened("10:00", "evaluate", *SOUTH)
energy("10:40", "evaluate", "south", span("evaluate", "10:00", "10:40", 6 * KWH // 10, reporter="self-reported"))
used("10:41", "evaluate", "actual", SOUTH, value("10:00", "10:20", 400))
ended("10:41", "evaluate", "10:00", "10:40")

cluster("12:00", "north", "SE", 1_100_000, pue_period="2026", pue_source="measured")

job("12:50", "tune", "finetuning")
opened("13:00", "tune", *NORTH_LATER)
estimate = span("tune", "13:00", "14:00", KWH // 2, device="cpu-0", kind="cpu", source="estimated", error_ppm=300_000)
energy("14:00", "tune", "north", span("tune", "13:00", "14:00", KWH), estimate)
used("14:11", "tune", "actual", NORTH_LATER, value("13:00", "14:00", 40),
     direct=[value("13:00", "14:00", 15, basis="direct")])  # fmt: skip
ended("14:11", "tune", "13:00", "14:10")

revised = value("11:00", "12:00", 60, issued_at=at("18:00"), fetched_at=at("18:00"), sha256="3" * 64)
used("18:00", "train", "actual", NORTH, first, revised, direct=combustion)

past = {"job": "5f3c9d1e00000000", "kind": "SUBMISSION", "state": "SUCCEEDED", "seen_at": at("18:30"),
        "lasted_us": 1_800_000_000}  # fmt: skip
listed = {"since": at("08:00"), "until": at("18:30")}
ours = ["cs-train-a1", "cs-tune-a1"]
fact("18:30", FactKind.CLUSTER_JOBS_LISTED, cluster="north", **listed, ours=ours, others=[past])
fact("18:30", FactKind.CLUSTER_JOBS_LISTED, cluster="south", **listed, ours=["cs-evaluate-a1"], others=[])
contracts = [contract("ppa", "Wind park", 500_000, 10_000), contract("residual-mix", "SE", 1_000_000, 200_000)]
fact(
    "19:00", FactKind.DECLARATION_MADE, by="person-2", organisation="Example Research", accountable="A. Lovelace",
    contact="carbon@example.org", boundary="All jobs on the clusters north and south.",
    clusters={
        "north": {"scope": "own", "instruments": contracts},
        "south": {"scope": "cloud", "instruments": [contract("residual-mix", "DE", 1_000_000, 500_000)]},
    },
    offsets=[{"kind": "offset", "name": "Peatland", "co2e_ug": 10**12, "energy_uj": None, "source": "registry"}],
)  # fmt: skip

sys.stdout.buffer.write(b"".join(map(line_of, entries)))
