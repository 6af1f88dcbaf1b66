"""Credentials in the database: hashes of secrets, never the secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, insert, select, update

from carbon_sched.domain.access import Credential, Kind, Role
from carbon_sched.domain.errors import NotFound
from carbon_sched.store.tables import credentials

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Row

    from carbon_sched.store.session import Session

_parents = credentials.alias("parents")
_BY_HASH = (
    select(credentials, _parents.c.revoked_at.label("parent_revoked_at"))
    .outerjoin(_parents, _parents.c.token_id == credentials.c.parent)
    .where(credentials.c.sha256 == bindparam("sha256"))
)
_BY_ID = select(credentials).where(credentials.c.token_id == bindparam("token_id"))
_API = select(credentials).where(credentials.c.kind == Kind.API.value).order_by(credentials.c.created_at)
_NOT_YET = and_(credentials.c.token_id == bindparam("its_id"), credentials.c.revoked_at.is_(None))
_REVOKE = update(credentials).where(_NOT_YET).values(revoked_at=bindparam("at"))
_PURGE = delete(credentials).where(credentials.c.kind != Kind.API.value, credentials.c.expires_at < bindparam("now"))


class AccessRows:
    """The part of `ports.Transaction` about who may do what."""

    _db: Session

    def add_credential(self, credential: Credential, *, sha256: str) -> None:
        """Insert; codes and sessions that expired are removed on the way."""
        self._db.write(_PURGE, {"now": credential.created_at})
        teams = None if credential.teams is None else sorted(credential.teams)
        values = vars(credential) | {
            "kind": credential.kind.value,
            "role": credential.role.value,
            "teams": teams,
            "sha256": sha256,
        }
        self._db.write(insert(credentials), values)

    def credential(self, sha256: str) -> Credential | None:
        """By the hash of its secret; revoked with its parent."""
        row = self._db.first(_BY_HASH, {"sha256": sha256})
        return None if row is None else _credential(row, row.revoked_at or row.parent_revoked_at)

    def api_tokens(self) -> list[Credential]:
        """Oldest first."""
        return [_credential(row, row.revoked_at) for row in self._db.rows(_API)]

    def revoke_credential(self, token_id: str, *, at: datetime) -> bool:
        """Once; NotFound where there is none."""
        if self._db.first(_BY_ID, {"token_id": token_id}) is None:
            raise NotFound(f"there is no token {token_id!r}. `carbon-sched token list` shows those there are")
        return self._db.write(_REVOKE, {"its_id": token_id, "at": at}) == 1


def _credential(row: Row[Any], revoked_at: datetime | None) -> Credential:
    return Credential(
        token_id=row.token_id,
        kind=Kind(row.kind),
        name=row.name,
        role=Role(row.role),
        teams=None if row.teams is None else frozenset(row.teams),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=revoked_at,
        parent=row.parent,
    )
