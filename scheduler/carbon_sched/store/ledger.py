"""The ledger's entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, insert, select

from carbon_sched.domain.facts import Entry
from carbon_sched.ledger.chain import GENESIS, next_entry
from carbon_sched.store.tables import ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.domain.facts import Fact
    from carbon_sched.store.session import Session

_INSERT = insert(ledger)
_HEAD = select(ledger.c.seq, ledger.c.hash).order_by(ledger.c.seq.desc()).limit(1)
_PAGE = select(ledger).where(ledger.c.seq > bindparam("after")).order_by(ledger.c.seq).limit(bindparam("count"))


class LedgerRows:
    """The part of `ports.Transaction` about the ledger."""

    _db: Session
    _appended: tuple[int, str] | None = None
    """The ledger's head once this transaction has written it: nobody else does before it ends."""

    def append_fact(self, fact: Fact) -> Entry:
        """Chain to the head. Raises TypeError or ValueError for a fact without canonical form."""
        return self.append_facts([fact])[0]

    def append_facts(self, facts: Sequence[Fact]) -> list[Entry]:
        """Chain one to the other and the first to the head."""
        head, entries = self._appended or self.ledger_head(), list[Entry]()
        for fact in facts:
            entries.append(next_entry(*head, fact))
            head = entries[-1].seq, entries[-1].hash
        self._db.write_many(_INSERT, [entry._asdict() for entry in entries])
        self._appended = head
        return entries

    def entries(self, *, after_seq: int = 0, limit: int = 10_000) -> list[Entry]:
        """In order of `seq`."""
        rows = self._db.rows(_PAGE, {"after": after_seq, "count": limit})
        return [Entry._make(row) for row in rows]

    def ledger_head(self) -> tuple[int, str]:
        """Size, and hash of the last entry."""
        row = self._db.first(_HEAD)
        return (0, GENESIS) if row is None else (row.seq, row.hash)
