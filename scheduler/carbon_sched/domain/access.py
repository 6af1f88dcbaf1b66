"""Who may do what: roles, what each grants, and credentials. Nothing is granted that the table does not name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Permission(str, Enum):
    """What a route asks for."""

    READ = "read"
    """See clusters and the grid, and the jobs, receipts and reports of one's teams."""
    SUBMIT = "submit"
    """Submit and stop jobs of one's teams."""
    OPERATE = "operate"
    """Register, check and remove clusters; make the server ask grid providers."""
    AUDIT = "audit"
    """Read the whole ledger, and verify it."""
    ADMINISTER = "administer"
    """Give and revoke tokens; end the server."""


class Role(str, Enum):
    """What a credential is for."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


_P = Permission
GRANTS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({_P.READ}),
    Role.SUBMITTER: frozenset({_P.READ, _P.SUBMIT}),
    Role.OPERATOR: frozenset({_P.READ, _P.SUBMIT, _P.OPERATE}),
    Role.AUDITOR: frozenset({_P.READ, _P.AUDIT}),
    Role.ADMIN: frozenset(_P),
}


@dataclass(frozen=True)
class Principal:
    """Who makes a request. `teams` None means every team, and jobs without one.

    `owner` is the user the server runs as, who may read on that machine whatever the server may.
    """

    name: str
    role: Role
    teams: frozenset[str] | None
    token_id: str = ""
    owner: bool = False

    def require(self, permission: Permission) -> None:
        """Raise Forbidden unless the role grants it."""
        if permission not in GRANTS[self.role]:
            grants = ", ".join(role.value for role in Role if permission in GRANTS[role])
            raise Forbidden(
                f"{self.name!r} has the role {self.role.value}, which may not {permission.value}; "
                f"ask an admin for a token of another role ({grants})"
            )

    def sees(self, team: str) -> bool:
        """Whether jobs of this team are theirs to see."""
        return self.teams is None or team in self.teams

    def team_of(self, asked: str | None) -> str | None:
        """The one team to narrow a question or a job to: the one asked for, or their only one; None means all.

        Raises Forbidden for a team that is not theirs, and where they have several and named none.
        """
        if self.teams is None:
            return asked or None
        if not asked and len(self.teams) == 1:
            return next(iter(self.teams))
        if not asked or asked not in self.teams:
            theirs = ", ".join(sorted(self.teams)) or "none"
            raise Forbidden(f"team {asked or ''!r} is not one of {self.name!r}; name one of: {theirs}")
        return asked


class Kind(str, Enum):
    """What a credential is presented as: in a header, once to log a browser in, or in that browser's cookie."""

    API = "api"
    CODE = "code"
    SESSION = "session"


@dataclass(frozen=True)
class Credential:
    """A stored credential; its secret is known to its holder only. `parent` is the token it was derived from."""

    token_id: str
    kind: Kind
    name: str
    role: Role
    teams: frozenset[str] | None
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None = None
    parent: str | None = None

    def valid(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and now < self.expires_at

    def principal(self) -> Principal:
        """Whom it stands for."""
        return Principal(self.name, self.role, self.teams, self.parent or self.token_id)
