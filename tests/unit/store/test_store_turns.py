"""Whose turn it is to write: in the order in which they asked."""

from __future__ import annotations

import threading

from carbon_sched.store.turns import Turns


def queue_up(turns: Turns, number: int, order: list[int]) -> threading.Thread:
    """A thread that waits for its turn; returned once it is in the queue."""

    def take() -> None:
        assert turns.take(60)
        order.append(number)
        turns.give()

    before = len(turns._waiting)
    thread = threading.Thread(target=take)
    thread.start()
    while len(turns._waiting) == before:
        thread.join(0.001)
    return thread


def test_who_asked_first_is_first():
    turns, order = Turns(), []
    assert turns.take(0)
    waiting = [queue_up(turns, number, order) for number in range(5)]
    turns.give()
    for thread in waiting:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_who_gives_it_back_and_asks_again_is_behind_those_who_waited():
    turns, order = Turns(), []
    assert turns.take(0)
    waiting = queue_up(turns, 1, order)
    turns.give()
    assert turns.take(60)
    assert order == [1]
    waiting.join()


def test_who_does_not_get_it_in_time_is_out_of_the_queue():
    turns = Turns()
    assert turns.take(0)
    assert not turns.take(0)
    turns.give()
    assert turns.take(0)
