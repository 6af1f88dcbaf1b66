"""Applied policies in the database: appended, never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, insert, select

from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.domain.policy_version import PolicyVersion
from carbon_sched.store.tables import policies

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Row

    from carbon_sched.store.session import Session

_LAST = select(func.max(policies.c.version).label("version"))
_NEWEST = select(func.max(policies.c.version)).group_by(policies.c.name)
_IN_FORCE = select(policies).where(policies.c.version.in_(_NEWEST)).order_by(policies.c.name)
_OF_NAME = select(policies).where(policies.c.name == bindparam("its_name")).order_by(policies.c.version.desc())
_ONE = select(policies).where(policies.c.version == bindparam("version"))


class PolicyRows:
    """The part of `ports.Transaction` about policies."""

    _db: Session

    def add_policy(
        self,
        name: str,
        content: str,
        *,
        at: datetime,
        by: str,
        reason: str = "",
        restored: int | None = None,
        after: int | None = None,
    ) -> PolicyVersion:
        """Append; Conflict when `after` is given and is not the last version of all."""
        last = self.last_policy_version()
        if after is not None and after != last:
            raise Conflict(f"policies changed meanwhile (version {last}, not {after}). Look at them again, then apply")
        row = {
            "name": name,
            "content": content,
            "applied_at": at,
            "applied_by": by,
            "reason": reason,
            "restored": restored,
        }
        number = self._db.insert_one(insert(policies), row)
        return PolicyVersion(number, name, content, at, by, reason, restored)

    def last_policy_version(self) -> int:
        """0 where none was applied."""
        row = self._db.first(_LAST)
        return 0 if row is None else row.version or 0

    def policies_in_force(self) -> list[PolicyVersion]:
        """The newest version of each name, by name."""
        return [_version(row) for row in self._db.rows(_IN_FORCE)]

    def policy_versions(self, name: str) -> list[PolicyVersion]:
        """Newest first."""
        return [_version(row) for row in self._db.rows(_OF_NAME, {"its_name": name})]

    def policy_version(self, version: int) -> PolicyVersion:
        """One version, or NotFound."""
        row = self._db.first(_ONE, {"version": version})
        if row is None:
            raise NotFound(f"there is no policy version {version}. `carbon-sched policy list` shows those there are")
        return _version(row)


def _version(row: Row[Any]) -> PolicyVersion:
    return PolicyVersion(row.version, row.name, row.content, row.applied_at, row.applied_by, row.reason, row.restored)
