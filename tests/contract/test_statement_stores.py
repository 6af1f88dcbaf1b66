"""The same facts in either database give the same statement, byte by byte."""

from __future__ import annotations

import gc
import weakref
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from carbon_sched.domain.errors import NotFound
from carbon_sched.domain.time import from_rfc3339
from carbon_sched.ledger.account import Period, actual
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.copy import entries_of
from carbon_sched.ledger.encoding import decode_fact
from carbon_sched.ledger.receipt import receipt
from carbon_sched.ledger.report import report
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ledger.statement.formats import MEDIA_TYPES, render
from carbon_sched.service.statements import Statements
from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]

LEDGER = Path(__file__).resolve().parents[2] / "examples" / "audit" / "ledger.jsonl"


@pytest.fixture
def entries(store):
    copied = list(entries_of(LEDGER.read_bytes().splitlines(keepends=True)))
    for entry in copied:
        with store.transaction() as tx:
            tx.append_fact(decode_fact(entry.payload))
    return copied


def test_a_statement_from_a_database_is_that_from_the_copy(store, entries):
    here = statement(read_book(entries), Selection())
    there = Statements(store).ask(lambda book: statement(book, Selection()))
    for form in MEDIA_TYPES:
        assert render(there, form) == render(here, form), form


def test_a_period_is_answered_from_what_it_needs(store, entries):
    whole, statements = read_book(entries), Statements(store)
    hours = [from_rfc3339("2026-03-01T06:00:00Z") + number * timedelta(hours=3) for number in range(6)]
    for since, until in pairwise(hours):
        selection = Selection(period=Period(since, until))
        assert statements.over(selection.period, lambda book, this=selection: statement(book, this)) == statement(
            whole, selection
        )
        assert statements.report(selection) == report(whole, selection)


def test_a_receipt_and_an_attempt_are_answered_from_what_they_need(store, entries):
    whole, statements = read_book(entries), Statements(store)
    for job_id, job in whole.jobs.items():
        assert statements.of([job_id], lambda book, this=job_id: receipt(book, this)) == receipt(whole, job_id)
        for attempt_id in job.attempts:
            assert actual(statements.attempt(attempt_id)).parts == actual(whole.attempt(attempt_id)).parts
    with pytest.raises(NotFound):
        statements.attempt("cs-nobody-a1")


def test_no_book_outlives_its_question(store, entries):
    statements, jobs = Statements(store), list(read_book(entries).jobs)
    kept = [
        statements.of(jobs, weakref.ref),
        statements.over(Period(from_rfc3339("2026-03-01T06:00:00Z")), weakref.ref),
        statements.ask(weakref.ref),
    ]
    gc.collect()
    assert [book() for book in kept] == [None] * 3
