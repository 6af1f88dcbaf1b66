"""The fact of an attempt's energy: both of its readers, and the spans that it holds."""

from __future__ import annotations

from datetime import datetime

import pytest

from carbon_sched.domain.energy import EnergySpan, Reporter, SourceClass
from carbon_sched.domain.facts import FactKind
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.encoding import decode_fact
from carbon_sched.ledger.energy_fact import energy_in, energy_of
from tests.fakes.ledger import WrittenLedger, at, span

ATTEMPT = "cs-jobaaaaaaa-a1"
GPU = span(at("10:00"), at("10:05"), 7, "gpu:a", kind="gpu", flags=["reset", "squatter"])
CPU = span(at("10:00"), at("10:05"), 3, "cpu:0", kind="cpu", error_ppm=9)
LATER = {**GPU, "start": "2026-03-01T10:05:00Z", "end": "2026-03-01T10:05:00.000001Z", "energy_uj": 0}


@pytest.fixture
def written():
    ledger = WrittenLedger()
    ledger.cluster("north", "SE", 1_200_000)
    ledger.job("jobaaaaaaa")
    ledger.opened("jobaaaaaaa")
    ledger.energy(ATTEMPT, GPU, CPU, LATER, {**CPU, "energy_uj": 4})
    return ledger


def spans_of(ledger):
    return read_book(ledger.entries).attempt(ATTEMPT).spans


def test_both_readers_read_the_same(written):
    payload = written.entries[-1].payload
    fast, general = energy_of(payload), energy_in(decode_fact(payload).body)
    assert fast is not None
    assert fast == general
    assert fast.stretches({}) == general.stretches({})


def test_the_spans_of_a_fact_come_back_whole_and_in_its_order(written):
    found = spans_of(written)
    assert [(one.device, one.energy_uj, one.error_ppm, one.flags) for one in found] == [
        ("gpu:a", 7, GPU["error_ppm"], ("reset", "squatter")),
        ("cpu:0", 3, 9, ()),
        ("gpu:a", 0, GPU["error_ppm"], ("reset", "squatter")),
        ("cpu:0", 4, 9, ()),
    ]
    moment = datetime.fromisoformat
    assert found[2] == EnergySpan(
        ATTEMPT, "north", GPU["machine"], "gpu:a", "gpu", moment("2026-03-01T10:05:00+00:00"),
        moment("2026-03-01T10:05:00.000001+00:00"), 0, SourceClass(GPU["source"]), Reporter(GPU["reporter"]),
        GPU["scope"], GPU["rule"], GPU["error_ppm"], found[0].segment_sha256, ("reset", "squatter"),
    )  # fmt: skip


def test_of_a_stretch_only_what_nobody_speaks_before_counts(written):
    watched = {"start": "2026-03-01T10:04:00Z", "end": "2026-03-01T10:06:00Z", "kinds": ["cpu"]}
    written.add(
        FactKind.MACHINE_ENERGY_RECORDED, machine=CPU["machine"], cluster="north", segment="m-1", sha256="2" * 64,
        spans=[], watched=watched,
    )  # fmt: skip
    found = spans_of(written)
    assert [(one.device, one.energy_uj) for one in found] == [("gpu:a", 7), ("gpu:a", 0)]
    assert [one.energy_uj for one in read_book(written.entries).attempt(ATTEMPT).superseded] == [3, 4]
