"""Receipts, reports and verification: reads the ledger in pages, computes in `ledger/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.ledger.verify import Verification, verify_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched.domain.facts import Entry
    from carbon_sched.ports import Store

PAGE = 10_000


class Statements:
    """What the ledger says, computed from its facts alone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def verify(self) -> Verification:
        """Walk the whole chain."""
        return verify_entries(self._entries())

    def _entries(self) -> Iterator[Entry]:
        seq = 0
        while True:
            with self._store.transaction(write=False) as tx:
                page = tx.entries(after_seq=seq, limit=PAGE)
            if not page:
                return
            yield from page
            seq = page[-1].seq
