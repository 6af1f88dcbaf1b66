"""The same facts in either database give the same statement, byte by byte."""

from __future__ import annotations

from pathlib import Path

from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.copy import entry_of
from carbon_sched.ledger.encoding import decode_fact
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ledger.statement.formats import MEDIA_TYPES, render
from carbon_sched.service.statements import Statements
from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]

LEDGER = Path(__file__).resolve().parents[2] / "examples" / "audit" / "ledger.jsonl"


def test_a_statement_from_a_database_is_that_from_the_copy(store):
    entries = [entry_of(line) for line in LEDGER.read_bytes().splitlines()]
    for entry in entries:
        with store.transaction() as tx:
            tx.append_fact(decode_fact(entry.payload))
    here = statement(read_book(entries), Selection())
    there = Statements(store).ask(lambda book: statement(book, Selection()))
    for form in MEDIA_TYPES:
        assert render(there, form) == render(here, form), form
