"""Seal the ledger on a schedule: sign size and head, and write the line to every place outside the database.

A place that cannot be written is tried again at the next turn, with all it missed; the others do not wait for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import CarbonSchedError
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.seal import Seal, seal
from carbon_sched.ledger.verify import Checkpoint
from carbon_sched.signing import PublicKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.ports import Clock, SealSink, Store
    from carbon_sched.signing import PrivateKey

log = logging.getLogger(__name__)

RETRY_S = 60.0


class Sealing:
    """One loop; seals only what grew. `last` is its newest seal, `problems` says which places are behind and why."""

    def __init__(
        self, store: Store, sinks: Mapping[str, SealSink], key: PrivateKey, clock: Clock, *, every_s: float
    ) -> None:
        self._store, self._sinks, self._private, self._clock = store, sinks, key, clock
        self.key, self.places = PublicKey(key.raw_public), list(sinks)
        self._every_s = every_s
        self._owed: dict[str, list[str]] = {name: [] for name in sinks}
        self._size = -1
        self.last: Seal | None = None
        self.problems: dict[str, str] = {}

    def step(self) -> float:
        """Seal once; returns the seconds until the next time."""
        with self._store.transaction(write=False) as tx:
            size, head = tx.ledger_head()
        if size != self._size:
            self.last = seal(Checkpoint(size, head), self._clock.now(), self._private)
            self._size = size
            for owed in self._owed.values():
                owed.append(self.last.line())
        self.problems = {name: problem for name in self._sinks if (problem := self._deliver(name))}
        return min(RETRY_S, self._every_s) if self.problems else self._every_s

    def _deliver(self, name: str) -> str:
        """Write what one place is owed; what is wrong with it, or nothing."""
        owed = self._owed[name]
        if not owed:
            return ""
        try:
            self._sinks[name].append(owed)
        except CarbonSchedError as error:
            log.warning("seal not written sink=%s code=%s: %s", name, error.code, error)
            return f"{error} (since {to_rfc3339(self._clock.now())})"
        owed.clear()
        return ""
