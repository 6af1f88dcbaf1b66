"""Many small writes in one transaction, so that they share one turn to write and one wait for the disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.ports import Store, Transaction

Answer = TypeVar("Answer")


class _Asked(Generic[Answer]):
    """One write that waits to be done."""

    def __init__(self, work: Callable[[Transaction], Answer]) -> None:
        self.work = work
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.answer: Answer

    def end(self, error: BaseException | None) -> None:
        self.error = error
        self.ended.set()


class Together:
    """Writes that are asked for while another one is under way; each is answered only after the commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._asked: list[_Asked[Any]] = []

    def run(self, work: Callable[[Transaction], Answer]) -> Answer:
        """What `work` returned, committed; or its error, with nothing of it kept and the others unharmed.

        Where several share a transaction and one of them fails, every one is done anew in a transaction of its own.
        """
        mine = _Asked(work)
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
        """The work of all who ask until the turn to write comes."""
        group, worked = list[_Asked[Any]](), False
        error: BaseException | None = None
        try:
            with self._store.transaction() as tx:
                group = self._taken()
                for one in group:
                    one.answer = one.work(tx)
                worked = True
        except BaseException as caught:  # noqa: BLE001 - whatever it is, it is raised where the work was asked for
            error = caught
        group = group or self._taken()
        if error is not None and not worked and len(group) > 1:
            for one in group:
                one.end(self._commit(one))
        else:  # also when the commit failed: what became of it is not known then, and must not be done twice
            for one in group:
                one.end(error)

    def _commit(self, one: _Asked[Any]) -> BaseException | None:
        try:
            with self._store.transaction() as tx:
                one.answer = one.work(tx)
        except BaseException as error:  # noqa: BLE001 - as above
            return error
        return None

    def _taken(self) -> list[_Asked[Any]]:
        with self._lock:
            group, self._asked = self._asked, []
        return group
