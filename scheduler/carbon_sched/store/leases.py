"""Leases in the database: who may do something alone, until when by its clock, and in which term."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, insert, select, update

from carbon_sched.store.tables import leases

if TYPE_CHECKING:
    from carbon_sched.store.session import Session

_BY_NAME = select(leases).where(leases.c.name == bindparam("name"))
_OF = leases.c.name == bindparam("its_name")
_KEEP = (
    update(leases)
    .where(_OF)
    .values(holder=bindparam("holder"), term=bindparam("term"), expires_at=bindparam("expires_at"))
)
_DROP = update(leases).where(_OF, leases.c.term == bindparam("its_term")).values(expires_at=bindparam("now"))


class LeaseRows:
    """The part of `ports.Transaction` about leases."""

    _db: Session

    def take_lease(self, name: str, holder: str, *, lease_s: float, seize: bool = False) -> int | None:
        """Renew, begin a new term, or None; see `ports.Transaction`."""
        now = self._db.now()
        row = self._db.first(_BY_NAME, {"name": name})
        values = {"holder": holder, "expires_at": now + timedelta(seconds=lease_s)}
        if row is None:
            self._db.write(insert(leases), values | {"name": name, "term": 1})
            return 1
        mine = row.holder == holder
        if not (mine or seize) and row.expires_at > now:
            return None
        term = int(row.term) + (0 if mine and not seize else 1)
        self._db.write(_KEEP, values | {"its_name": name, "term": term})
        return term

    def lease_term(self, name: str) -> int:
        """The last term."""
        row = self._db.first(_BY_NAME, {"name": name})
        return 0 if row is None else int(row.term)

    def drop_lease(self, name: str, term: int) -> None:
        """End it now, if it is still this term's."""
        self._db.write(_DROP, {"its_name": name, "its_term": term, "now": self._db.now()})
