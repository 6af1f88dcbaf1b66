"""Declarations for statements: who is accountable, who runs each cluster, contracts for electricity, offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.facts import Fact, FactKind

if TYPE_CHECKING:
    from carbon_sched.ledger.declaration import Declaration
    from carbon_sched.ports import Clock, Store


class Declarations:
    """Puts what was declared into the ledger."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def declare(self, declaration: Declaration, person: str) -> None:
        """Append it under the person's pseudonym; it holds from then on, for every statement."""
        with self._store.transaction() as tx:
            body = {**declaration.body(), "by": tx.pseudonym(person)}
            tx.append_fact(Fact(FactKind.DECLARATION_MADE, self._clock.now(), body))
