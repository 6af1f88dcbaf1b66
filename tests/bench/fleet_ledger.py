"""A ledger as a fleet of GPUs leaves it: jobs of equal size and length, one fact of energy per job and five minutes.

Every fact has the body that the services write. Energy is encoded once and its figures filled in, so that making a
ledger costs little beside reading it; a reader refuses what is not canonical.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.facts import Entry, FactKind
from carbon_sched.domain.time import UTC, to_rfc3339
from carbon_sched.ledger.chain import GENESIS, entry_hash
from carbon_sched.ledger.encoding import VERSION, decode_fact, encode_fact
from carbon_sched.ledger.json_bytes import canonical
from tests.fakes.ledger import reading, span

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)
ZONES = ("DE", "SE", "US-CAL-CISO")


@dataclass(frozen=True)
class Fleet:
    """`slots` jobs at a time, each on `gpus` of one machine and for `hours`, one after another without a break."""

    slots: int
    gpus: int
    hours: int

    def entries(self, steps: int) -> Iterator[Entry]:
        """The chain over `steps` times five minutes."""
        head = GENESIS
        for seq, payload in enumerate(self._payloads(steps), start=1):
            own = entry_hash(seq, head, payload)
            yield Entry(seq, head, own, payload)
            head = own

    def _payloads(self, steps: int) -> Iterator[bytes]:
        for number, zone in enumerate(ZONES):
            yield _encoded(BEGIN, FactKind.CLUSTER_REGISTERED, _cluster(number, zone))
        template = _Template(self.gpus)
        length = self.hours * (timedelta(hours=1) // STEP)
        for step in range(steps):
            now = BEGIN + step * STEP
            texts = to_rfc3339(now), to_rfc3339(now + STEP)
            for slot in range(self.slots):
                turn, since = divmod(step + slot * length // self.slots, length)
                job = f"{slot:05x}{turn:05x}"
                if since == 0 or step == 0:
                    yield from _opening(job, slot, now)
                yield template.energy(job, slot, step, *texts)
                if since == length - 1:
                    yield from _closing(job, slot, now + STEP, self.hours)


class _Template:
    """The fact of one step's energy, cut where its figures stand."""

    MARKS = ("@job@", "@machine@", "@start@", "@end@", "@segment@", "@cluster@", "@sha@")

    def __init__(self, gpus: int) -> None:
        devices = [
            *((f"gpu:GPU-@machine@-{n:018x}", "gpu") for n in range(gpus)),
            ("cpu:package-0", "cpu"),
            ("dram:0", "dram"),
        ]
        spans = [
            span("@start@", "@end@", 10**8 + n, device, kind=kind, owner="cs-@job@-a1", machine="@machine@")
            for n, (device, kind) in enumerate(devices)
        ]
        body = {
            "attempt": "cs-@job@-a1", "cluster": "@cluster@", "segment": "@segment@", "sha256": "@sha@", "spans": spans,
        }  # fmt: skip
        text = json.dumps(
            {"at": "@end@", "body": body, "kind": FactKind.ENERGY_RECORDED.value, "v": VERSION},
            sort_keys=True,
            separators=(",", ":"),
        ).replace("%", "%%")
        for mark in self.MARKS:
            text = text.replace(mark, f"%({mark.strip('@')})s")
        self._text = text
        sample = self.energy("0" * 10, 0, 0, to_rfc3339(BEGIN), to_rfc3339(BEGIN + STEP))
        assert encode_fact(decode_fact(sample)) == sample

    def energy(self, job: str, slot: int, step: int, start: str, end: str) -> bytes:
        values = {
            "job": job, "machine": f"machine-{slot:05}", "cluster": f"cluster-{slot % len(ZONES)}",
            "segment": f"{slot:05x}-{step:08x}", "sha": f"{slot * 2**32 + step:064x}", "start": start, "end": end,
        }  # fmt: skip
        return (self._text % values).encode()


def _encoded(at: datetime, kind: FactKind, body: dict) -> bytes:
    return canonical({"at": to_rfc3339(at), "body": body, "kind": kind.value, "v": VERSION})


def _cluster(number: int, zone: str) -> dict:
    return {
        "name": f"cluster-{number}", "zone": zone, "pue_ppm": 1_200_000, "pue_period": "2026", "pue_source": "measured",
        "local": False, "home": number == 0, "residency": [], "meter_keys": [],
    }  # fmt: skip


def _opening(job: str, slot: int, now: datetime) -> Iterator[bytes]:
    zone, cluster = ZONES[slot % len(ZONES)], f"cluster-{slot % len(ZONES)}"
    candidates = [
        {"cluster": f"cluster-{number}", "zone": other, "feasible": True, "reason": "", "start": to_rfc3339(now),
         "co2e_ug": 10**9, "now_co2e_ug": 10**9, "energy_uj": 10**12}
        for number, other in enumerate(ZONES)
    ]  # fmt: skip
    yield _encoded(now, FactKind.JOB_ACCEPTED, {
        "job": job, "name": "train", "phase": "finetuning", "stage": "sft", "model": f"m{slot % 7}", "project": "llm",
        "team": f"team-{slot % 5}", "submitter": f"person-{slot % 50}", "submitted_at": to_rfc3339(now),
        "spec_sha256": "0" * 64, "policy": "balanced",
    })  # fmt: skip
    yield _encoded(now, FactKind.JOB_DECIDED, {
        "job": job, "verdict": "place", "cluster": cluster, "start": to_rfc3339(now), "reason": "cleanest",
        "expected_energy_uj": 10**12, "expected_co2e_ug": 10**9, "estimate_source": "history",
        "candidates": candidates, "references": {"run-now-home": 2 * 10**9}, "policy": "balanced",
    })  # fmt: skip
    yield _encoded(now, FactKind.ATTEMPT_OPENED, {
        "attempt": f"cs-{job}-a1", "job": job, "number": 1, "cluster": cluster, "zone": zone, "pue_ppm": 1_200_000,
        "pue_source": "measured", "start_by": to_rfc3339(now + STEP),
    })  # fmt: skip


def _closing(job: str, slot: int, now: datetime, hours: int) -> Iterator[bytes]:
    attempt, start = f"cs-{job}-a1", now - timedelta(hours=hours)
    whole = start.replace(minute=0)
    yield _encoded(now, FactKind.ATTEMPT_ENDED, {
        "attempt": attempt, "job": job, "outcome": "succeeded", "started_at": to_rfc3339(start),
        "ended_at": to_rfc3339(now), "exit_code": 0, "reason": "", "missing": [],
    })  # fmt: skip
    yield _encoded(now, FactKind.JOB_ENDED, {
        "job": job, "state": "succeeded", "exit_code": 0, "reason": "", "attempts": 1,
    })  # fmt: skip
    for role, number in (("actual", slot % len(ZONES)), ("run-now-home", 0)):
        direct = _hourly(whole, hours, number, 30, basis="direct") if role == "actual" else []
        yield _encoded(now, FactKind.READINGS_USED, {
            "job": job, "attempt": attempt, "role": role, "cluster": f"cluster-{number}", "zone": ZONES[number],
            "pue_ppm": 1_200_000, "pue_source": "measured", "shift_us": 0, "provider": "grid",
            "readings": _hourly(whole, hours, number, 50), "direct": direct,
        })  # fmt: skip
    yield _encoded(now, FactKind.ATTEMPT_COLLECTED, {"attempt": attempt, "job": job, "missing": [], "segments": 1})


def _hourly(since: datetime, hours: int, number: int, least: int, **more: str) -> list[dict]:
    """Readings of a zone; another `number` is another course of the day."""
    starts = [since + timedelta(hours=hour) for hour in range(hours + 1)]
    return [reading(at, at + timedelta(hours=1), least + 37 * (at.hour + number) % 400, **more) for at in starts]
