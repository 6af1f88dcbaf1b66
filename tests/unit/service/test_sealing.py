"""The loop that seals: only what grew, to every place, and what a place missed is made up for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.errors import StoreError
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.ledger.seal import read_seals
from carbon_sched.service.seal import Sealing
from carbon_sched.signing import PrivateKey
from carbon_sched.store.engine import open_store
from tests.fakes.world import START, FakeClock


class Place:
    def __init__(self):
        self.lines, self.broken = [], False

    def append(self, lines):
        if self.broken:
            raise StoreError("no route to host")
        self.lines += lines


@pytest.fixture
def sealing(tmp_path):
    clock = FakeClock()
    store = open_store(f"sqlite:///{tmp_path / 'store.sqlite'}", clock)
    places = {"near": Place(), "far": Place()}
    made = Sealing(store, places, PrivateKey(tmp_path / "ledger.key"), clock, every_s=600)
    made.test_places = places
    yield made
    store.close()


def grow(sealing):
    with sealing._store.transaction() as tx:
        return tx.append_fact(Fact(FactKind.CLUSTER_REMOVED, START, {"name": "a"}))


def test_a_seal_holds_size_head_and_time_and_is_made_when_the_ledger_grew(sealing):
    entry = grow(sealing)
    assert sealing.step() == 600
    assert sealing.step() == 600
    (one,) = read_seals(sealing.test_places["far"].lines, "far", sealing.key)
    assert (one.checkpoint.size, one.checkpoint.head, one.at) == (1, entry.hash, START)
    grow(sealing)
    sealing._clock.at += timedelta(minutes=10)
    sealing.step()
    assert [seal.checkpoint.size for seal in read_seals(sealing.test_places["near"].lines, "near")] == [1, 2]


def test_a_place_that_was_away_gets_what_it_missed_and_the_other_does_not_wait(sealing):
    far = sealing.test_places["far"]
    far.broken = True
    for _ in range(2):
        grow(sealing)
        assert sealing.step() == 60
    assert "no route to host" in sealing.problems["far"]
    assert len(sealing.test_places["near"].lines) == 2
    far.broken = False
    assert sealing.step() == 600
    assert sealing.problems == {}
    assert far.lines == sealing.test_places["near"].lines
