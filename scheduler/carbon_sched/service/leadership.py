"""One of several servers on a database leads: it alone plans, dispatches, follows and books; every one serves the API.

Who leads is a lease on database time. Its term is a fence: what the leader writes is written only while the term is the
last one, checked in the same transaction, so that a leader that was paused past its lease changes nothing any more.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import NotLeading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime

    from carbon_sched.ports import Store, Transaction

log = logging.getLogger(__name__)

LEADER = "leader"
RENEWALS = 3
"""A lease is renewed this many times before it would run out."""
LISTEN_S = 0.25


class Leadership:
    """Takes and keeps the lease; `begun` is called at the start of every term of ours, before any loop works in it."""

    def __init__(
        self,
        store: Store,
        holder: str,
        lease_s: float,
        lead: Callable[[], None],
        *,
        begun: Callable[[Transaction], None],
        sole: bool,
    ) -> None:
        """`holder` names this process and no other one; `lead` wakes the leader's loops once a term is ours.

        `sole`: no other server can live, so the lease is seized.
        """
        self._store, self._holder, self._lease_s, self._lead = store, holder, lease_s, lead
        self._begun, self._seize = begun, sole
        self.term: int | None = None

    def step(self) -> float:
        """Renew the lease, or try to take it; returns the seconds until the next time."""
        before = self.term
        with self._store.transaction() as tx:
            term = tx.take_lease(LEADER, self._holder, lease_s=self._lease_s, seize=self._seize)
            if term is not None and term != before:
                self._begun(tx)
        self._seize = False
        self.term = term
        if term != before:
            log.info("leadership term=%s holder=%s", term or "none", self._holder)
            self._lead()
        return self._lease_s / RENEWALS

    def leads(self) -> bool:
        """Whether our term was the last one when we looked; what must be sure of it asks `require`."""
        return self.term is not None

    def require(self, tx: Transaction) -> None:
        """Raise NotLeading unless our term is the last one; true until this transaction's end."""
        if self.term is None or tx.lease_term(LEADER) != self.term:
            self.term = None
            raise NotLeading

    def resign(self) -> None:
        """Let another server lead at once."""
        term, self.term = self.term, None
        if term is not None:
            with self._store.transaction() as tx:
                tx.drop_lease(LEADER, term)

    def only(self, step: Callable[[], float]) -> Callable[[], float]:
        """The step of a loop that only the leader runs."""

        def run() -> float:
            return step() if self.leads() else self._lease_s

        return run


class FencedStore:
    """The store as the leader's loops see it: nothing is written in a term that is over."""

    def __init__(self, store: Store, leadership: Leadership) -> None:
        self._store, self._leadership = store, leadership

    def transaction(self, *, write: bool = True) -> AbstractContextManager[Transaction]:
        """As the store's; a writing one raises NotLeading when another server has begun a term."""
        return self._fenced() if write else self._store.transaction(write=False)

    @contextmanager
    def _fenced(self) -> Iterator[Transaction]:
        with self._store.transaction() as tx:
            self._leadership.require(tx)
            yield tx

    def database_now(self) -> datetime:
        """Database time."""
        return self._store.database_now()

    def close(self) -> None:
        """Release connections."""
        self._store.close()


class Listener:
    """Hears what other servers on the same database did, and wakes whoever waits for it here."""

    def __init__(self, store: Store, woken: Callable[[], None]) -> None:
        self._store, self._woken = store, woken
        self._seen: tuple[int, int] | None = None

    def step(self) -> float:
        """Look once."""
        with self._store.transaction(write=False) as tx:
            newest = tx.newest_change()
        if newest != self._seen:
            self._seen = newest
            self._woken()
        return LISTEN_S
