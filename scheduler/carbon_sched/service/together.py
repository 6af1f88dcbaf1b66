"""Many small writes in one transaction, so that they share its statements, a turn to write and a wait for the disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from carbon_sched.domain.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from carbon_sched.ports import Store, Transaction

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Asked(Generic[Item, Answer]):
    """One write that waits to be done."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.answer: Answer


class Together(Generic[Item, Answer]):
    """Writes that are asked for while another one is under way; each is answered only after the commit."""

    def __init__(self, store: Store, work: Callable[[Transaction, Sequence[Item]], Sequence[Answer]]) -> None:
        """`work` writes some items and returns an answer for each."""
        self._store, self._work = store, work
        self._lock = threading.Lock()
        self._asked: list[_Asked[Item, Answer]] = []

    def run(self, item: Item) -> Answer:
        """What `work` answered for this item, committed; or its error, with nothing kept and the others unharmed.

        Where several share a transaction and one of them fails, each is done anew in one of its own; trouble with the
        database is everybody's.
        """
        mine = _Asked[Item, Answer](item)
        with self._lock:
            first = not self._asked
            self._asked.append(mine)
        if first:
            self._commit_all()
        mine.ended.wait()
        if mine.error is not None:
            raise mine.error
        return mine.answer

    def _commit_all(self) -> None:
        """The items of all who ask until the turn to write comes."""
        group, worked = list[_Asked[Item, Answer]](), False
        error: BaseException | None = None
        try:
            with self._store.transaction() as tx:
                group = self._taken()
                self._answer(tx, group)
                worked = True
        except BaseException as caught:  # noqa: BLE001 - whatever it is, it is raised where the work was asked for
            error = caught
        alone = error is not None and not worked and len(group) > 1 and not isinstance(error, StoreError)
        for one in group or self._taken():
            # what became of a commit that failed is not known, and must not be done twice
            one.error = self._commit(one) if alone else error
            one.ended.set()

    def _commit(self, one: _Asked[Item, Answer]) -> BaseException | None:
        try:
            with self._store.transaction() as tx:
                self._answer(tx, [one])
        except BaseException as error:  # noqa: BLE001 - as above
            return error
        return None

    def _answer(self, tx: Transaction, group: Sequence[_Asked[Item, Answer]]) -> None:
        for one, answer in zip(group, self._work(tx, [one.item for one in group]), strict=True):
            one.answer = answer

    def _taken(self) -> list[_Asked[Item, Answer]]:
        with self._lock:
            group, self._asked = self._asked, []
        return group
