"""The worked example of ENERGY-ATTRIBUTION.md section 7: of what an independent meter watched its word is booked."""

from __future__ import annotations

import itertools

import pytest

from carbon_sched.domain.facts import FactKind
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.receipt import receipt
from tests.fakes.ledger import WrittenLedger, span


def at(clock: str) -> str:
    return f"2026-03-01T{clock}Z"


def joules(start: str, end: str, energy_j: int, reporter: str, **more):
    spanned = span(at(start), at(end), energy_j * 1_000_000)
    return {**spanned, "machine": "m", "kind": "cpu", "reporter": reporter, "owner": "cs-j-a1", **more}


INDEPENDENT, SELF = "independent", "self-reported"
EVIDENCE = {
    "meter": joules("12:00:00", "12:00:30", 900, INDEPENDENT, device="cpu:package-0"),
    "overlapping": joules("12:00:29", "12:00:59", 5000, SELF, device="cpu:model"),
    "adjoining": joules("12:00:30", "12:01:00", 400, SELF, device="cpu:model"),
    "another kind": joules("12:00:00", "12:00:30", 70, SELF, kind="gpu", device="gpu:a"),
    "another machine": joules("12:00:00", "12:00:30", 7, SELF, machine="n"),
}


def record(ledger: WrittenLedger, name: str) -> None:
    ledger.energy("cs-j-a1", EVIDENCE[name])
    if name == "meter":
        idle = joules("12:00:00", "12:00:30", 11, INDEPENDENT, owner="idle")
        watched = {"start": at("12:00:00"), "end": at("12:00:30"), "kinds": ["cpu"]}
        ledger.add(
            FactKind.MACHINE_ENERGY_RECORDED, machine="m", cluster="north", segment="m-1#key", sha256="2" * 64,
            spans=[idle], watched=watched,
        )  # fmt: skip
    else:
        idle = {**EVIDENCE[name], "owner": "idle", "energy_uj": 13_000_000}
        ledger.machine_energy(idle["machine"], idle)


@pytest.mark.parametrize("order", list(itertools.permutations(EVIDENCE))[::7])
def test_whichever_came_first_the_same_is_booked(order):
    ledger = WrittenLedger()
    ledger.cluster("north", "SE", 1_200_000, meter_keys=["ed25519:x"])
    ledger.job("j")
    ledger.opened("j")
    for name in order:
        record(ledger, name)
    book = read_book(ledger.entries)
    attempt = book.jobs["j"].attempts["cs-j-a1"]

    assert sum(one.energy_uj for one in attempt.spans) == (900 + 400 + 70 + 7) * 1_000_000
    assert len(attempt.recorded) == len(EVIDENCE)
    assert book.machine_energy_uj == {("m", "idle"): (11 + 13 + 13) * 1_000_000, ("n", "idle"): 13_000_000}
    notes = receipt(book, "j")["notes"]
    assert any(note.startswith("5000 J that the job's own side reported are evidence only") for note in notes)
