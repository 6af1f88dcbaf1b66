"""No kind of fact may be written that the book cannot read: every ledger that holds one would be said to be broken."""

from __future__ import annotations

from carbon_sched.domain.facts import FactKind
from carbon_sched.ledger.book import _READERS


def test_the_book_reads_every_kind_of_fact():
    assert {*_READERS, FactKind.ENERGY_RECORDED} == set(FactKind), "energy has a reader of its own"
