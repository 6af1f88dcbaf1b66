"""Answers that are kept: as of how many entries, for how long, and what happens to those nobody waited for."""

from __future__ import annotations

from concurrent.futures import wait
from types import SimpleNamespace

import pytest

from carbon_sched.domain.errors import NotFound
from carbon_sched.service.answers import KEPT, REST, Answer, Answers
from tests.fakes.world import FakeClock


class Ledger:
    """A book of so many entries that takes so long to read, by a clock that stands still otherwise."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.size, self.took_s, self.read = 1, 0.0, 0

    def __call__(self, question):
        self.read += 1
        self.clock.pass_s(self.took_s)
        return question(SimpleNamespace(size=self.size))


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ledger(clock):
    return Ledger(clock)


@pytest.fixture
def answers(clock):
    made = Answers(clock, patience_s=9.0)
    yield made
    made.close()


def test_an_answer_is_computed_once_until_the_ledger_grows(answers, ledger):
    for size in (1, 1, 2):
        ledger.size = size
        assert answers.of("key", ledger, lambda book: book.size, size=size) == Answer(size, size)
    assert ledger.read == 2


def test_what_takes_long_is_good_for_some_times_that_time(answers, ledger, clock):
    ledger.took_s = 10.0
    answers.of("key", ledger, lambda book: book.size, size=1)
    ledger.size = 2
    clock.pass_s(10.0 * REST - 0.1)
    assert answers.of("key", ledger, lambda book: book.size, size=2) == Answer(1, 1)
    clock.pass_s(0.1)
    assert answers.of("key", ledger, lambda book: book.size, size=2) == Answer(2, 2)


def test_what_is_quick_is_always_the_newest(answers, ledger):
    ledger.took_s = 9.0
    answers.of("key", ledger, lambda book: book.size, size=1)
    ledger.size = 2
    assert answers.of("key", ledger, lambda book: book.size, size=2) == Answer(2, 2)


def test_an_answer_for_which_nobody_waited_is_there_at_the_next_asking(ledger, clock):
    answers = Answers(clock, patience_s=0.0)
    assert answers.of("key", ledger, lambda book: book.size, size=1) is None
    wait(list(answers._coming.values()))
    assert answers.of("key", ledger, lambda book: book.size, size=1) == Answer(1, 1)
    assert ledger.read == 1
    answers.close()


def test_what_goes_wrong_is_told_once_and_then_tried_again(answers, ledger):
    def wrong(_book):
        raise NotFound("no such model")

    for _ in range(2):
        with pytest.raises(NotFound, match="no such model"):
            answers.of("key", ledger, wrong, size=1)
    assert ledger.read == 2


def test_only_so_many_are_kept(answers, ledger):
    for number in range(KEPT + 1):
        answers.of(number, ledger, lambda book: book.size, size=1)
    answers.of(KEPT, ledger, lambda book: book.size, size=1)
    assert ledger.read == KEPT + 1
    answers.of(0, ledger, lambda book: book.size, size=1)
    assert ledger.read == KEPT + 2
