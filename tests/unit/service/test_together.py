"""Writes that share a transaction: one commit for all, and nobody pays for another one's mistake."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from carbon_sched.domain.errors import Conflict, StoreError
from carbon_sched.service.together import Together


class FakeStore:
    """Keeps what was appended in a committed transaction; the first transaction waits until it is let go."""

    def __init__(self, let_go: threading.Event) -> None:
        self.kept: list[str] = []
        self.commits = self.begins = 0
        self.let_go, self.begun = let_go, threading.Event()
        self.commit_fails = False

    @contextmanager
    def transaction(self):
        self.begins += 1
        self.begun.set()
        self.let_go.wait()
        pending: list[str] = []
        yield pending
        if self.commit_fails:
            raise StoreError("the database cannot be used right now")
        self.kept += pending
        self.commits += 1


def append(tx, words):
    if "gone" in words:
        raise StoreError("the database is gone")
    if "bad" in words:
        raise Conflict("bad")
    tx.extend(words)
    return [word.upper() for word in words]


def run_all(words, *, commit_fails=False):
    """What became of each word when all are asked for while the first waits for its turn; and the store."""
    let_go, found = threading.Event(), {}
    store = FakeStore(let_go)
    store.commit_fails = commit_fails
    together = Together(store, append)

    def ask(word):
        try:
            found[word] = together.run(word)
        except (Conflict, StoreError) as error:
            found[word] = type(error)

    threads = []
    for number, word in enumerate(words, 1):
        threads.append(threading.Thread(target=ask, args=(word,)))
        threads[-1].start()
        while len(together._asked) < number:
            threads[-1].join(0.001)
    let_go.set()
    for thread in threads:
        thread.join()
    return found, store


def test_all_who_asked_before_the_turn_came_share_one_commit_and_get_their_own_answer():
    found, store = run_all(["a", "b", "c"])
    assert found == {"a": "A", "b": "B", "c": "C"}
    assert store.kept == ["a", "b", "c"]
    assert store.commits == 1


def test_one_that_fails_fails_alone():
    found, store = run_all(["a", "bad", "c"])
    assert found == {"a": "A", "bad": Conflict, "c": "C"}
    assert sorted(store.kept) == ["a", "c"]


def test_a_commit_that_fails_is_everybodys_and_nothing_is_done_twice():
    found, store = run_all(["a", "b"], commit_fails=True)
    assert found == {"a": StoreError, "b": StoreError}
    assert store.kept == []
    assert store.commits == 0


def test_trouble_with_the_database_is_everybodys_and_is_not_met_again_by_each():
    found, store = run_all(["a", "gone", "c"])
    assert found == dict.fromkeys(["a", "gone", "c"], StoreError)
    assert store.begins == 1


def test_an_error_is_raised_where_the_work_was_asked_for():
    let_go = threading.Event()
    let_go.set()
    with pytest.raises(Conflict, match="bad"):
        Together(FakeStore(let_go), append).run("bad")
