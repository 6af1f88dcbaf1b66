"""External actions, committed before they are done; claimed with a lease and a fence."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, select, update

from carbon_sched.ports import OutboxItem
from carbon_sched.store.tables import outbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carbon_sched.store.session import Session

_BY_KEY = select(outbox.c.id).where(outbox.c.kind == bindparam("kind"), outbox.c.key == bindparam("key"))
_DUE = (
    select(outbox)
    .where(outbox.c.kind.in_(bindparam("kinds", expanding=True)), outbox.c.due_at <= bindparam("now"))
    .order_by(outbox.c.id)
    .limit(bindparam("count"))
)
_CLAIM = (
    update(outbox).where(outbox.c.id == bindparam("item")).values(due_at=bindparam("until"), claims=outbox.c.claims + 1)
)
_HELD = (outbox.c.id == bindparam("item"), outbox.c.claims == bindparam("token"))
_FINISH = delete(outbox).where(*_HELD)
_DELAY = (
    update(outbox).where(*_HELD).values(due_at=bindparam("until"), claims=outbox.c.claims + 1, tries=outbox.c.tries + 1)
)
_RELEASE = (
    update(outbox)
    .where(outbox.c.kind.in_(bindparam("kinds", expanding=True)))
    .values(due_at=bindparam("now"), claims=outbox.c.claims + 1)
)

_SIZE = select(func.count()).select_from(outbox)


class OutboxRows:
    """The part of `ports.Transaction` about the outbox.

    A claim's token is the row's count of claims; ids and counts are never given twice, so a token fences.
    """

    _db: Session

    def enqueue(self, kind: str, key: str, payload: Mapping[str, Any]) -> None:
        """Add, unless the same (kind, key) waits already."""
        if self._db.first(_BY_KEY, {"kind": kind, "key": key}) is not None:
            return
        now = self._db.now()
        row = {"kind": kind, "key": key, "payload": dict(payload), "tries": 0, "due_at": now, "claims": 0}
        self._db.write(outbox.insert(), row)

    def claim_outbox(self, kinds: Sequence[str], *, limit: int, lease_s: float) -> list[OutboxItem]:
        """Take due actions, oldest first, for `lease_s` seconds of database time."""
        now = self._db.now()
        rows = self._db.rows(_DUE, {"kinds": list(kinds), "now": now, "count": limit})
        until = now + timedelta(seconds=lease_s)
        self._db.write_many(_CLAIM, [{"item": row.id, "until": until} for row in rows])
        return [OutboxItem(row.id, row.kind, row.key, row.payload, row.tries, str(row.claims + 1)) for row in rows]

    def finish_outbox(self, item: OutboxItem) -> bool:
        """Remove what this claim still holds."""
        return self._db.write(_FINISH, {"item": item.item_id, "token": int(item.token)}) == 1

    def delay_outbox(self, item: OutboxItem, *, seconds: float) -> bool:
        """Give back what this claim still holds, due again after `seconds`."""
        until = self._db.now() + timedelta(seconds=seconds)
        held = {"item": item.item_id, "token": int(item.token)}
        return self._db.write(_DELAY, held | {"until": until}) == 1

    def outbox_size(self) -> int:
        """Of all kinds."""
        row = self._db.first(_SIZE)
        return 0 if row is None else int(row[0])

    def release_outbox(self, kinds: Sequence[str]) -> int:
        """Void all claims on actions of these kinds and make them due now."""
        return self._db.write(_RELEASE, {"kinds": list(kinds), "now": self._db.now()})
