"""Credentials: given once, stored as hashes, valid for a time; and whom a request comes from."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.access import GRANTS, Credential, Kind, Permission, Principal, Role
from carbon_sched.domain.errors import Forbidden, InvalidInput, NotAllowed, NotFound

if TYPE_CHECKING:
    from carbon_sched.domain.job import Job
    from carbon_sched.ports import Clock, Ids, Store, Transaction

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
LONGEST = timedelta(days=366)
CODE_LIFE = timedelta(minutes=2)
SESSION_LIFE = timedelta(hours=12)
REMEDY = "set CARBON_SCHED_TOKEN or CARBON_SCHED_TOKEN_FILE"


class Access:
    """Gives, checks and revokes credentials.

    `owner_token` is the server's own, from the file that only its user can read: it has no row, and is not revoked.
    """

    def __init__(self, store: Store, clock: Clock, ids: Ids, *, owner: str, owner_token: str) -> None:
        self._store, self._clock, self._ids = store, clock, ids
        self._owner = Principal(owner, Role.ADMIN, None, owner=True)
        self._owner_token = owner_token

    def principal(self, secret: str, kind: Kind) -> Principal:
        """Whom this secret stands for; NotAllowed where it is not known, expired or revoked (which, is not told)."""
        return self.owner(secret, kind) or self._valid(secret, kind).principal()

    def owner(self, secret: str, kind: Kind) -> Principal | None:
        """The server's own user where this is their token; asks no database."""
        theirs = kind is Kind.API and hmac.compare_digest(secret.encode(), self._owner_token.encode())
        return self._owner if theirs else None

    def give(
        self, by: Principal, *, name: str, role: Role, teams: frozenset[str] | None, lifetime_s: float
    ) -> tuple[Credential, str]:
        """A new API token and its secret, which is not kept and cannot be shown again.

        Raises InvalidInput for a name that is none, for a lifetime that is not within (0, 366 days], and for an auditor
        or admin of some teams only: the ledger and the tokens are everybody's.
        """
        if not NAME.fullmatch(name):
            raise InvalidInput("name", name, "is not the name of a person or service", "Use letters, digits and ._@+-")
        if not 0 < lifetime_s <= LONGEST.total_seconds():
            remedy = f"Give more than 0 and at most {LONGEST.days}d"
            raise InvalidInput("expires", f"{lifetime_s:g} s", "is not a lifetime", remedy)
        if role in (Role.AUDITOR, Role.ADMIN) and teams is not None:
            remedy = "Give it for every team, or another role"
            raise InvalidInput("teams", ", ".join(sorted(teams)), f"cannot bound an {role.value}", remedy)
        now = self._clock.now()
        new = Credential(
            self._ids.job_id(now), Kind.API, name, role, teams, now, by.name, now + timedelta(seconds=lifetime_s)
        )
        return new, self._add(new)

    def tokens(self) -> list[Credential]:
        """Every API token ever given, oldest first."""
        with self._store.transaction(write=False) as tx:
            return tx.api_tokens()

    def require_submitter(self, name: str, team: str) -> None:
        """Raise Forbidden unless who goes by this name may still submit for the team, by any token valid now.

        The server's own user may, and so may a name that never had a token: that was its user when it ran as another.
        """
        theirs = [token for token in self.tokens() if token.name == name]
        if not theirs or name == self._owner.name:
            return
        valid = [token for token in theirs if token.valid(self._clock.now())]
        if not any(Permission.SUBMIT in GRANTS[one.role] and one.principal().sees(team) for one in valid):
            whose = f" for team {team!r}" if team else ""
            raise Forbidden(f"{name} has no valid token that may submit{whose}; an admin can give one")

    def revoke(self, token_id: str) -> None:
        """Make a token, and the browser sessions it began, worthless at once; NotFound where there is none."""
        with self._store.transaction() as tx:
            tx.revoke_credential(token_id, at=self._clock.now())

    def erase(self, person: str) -> str:
        """Forget who is behind a pseudonym, which is returned; see `ports.Transaction.erase_person`."""
        with self._store.transaction() as tx:
            return tx.erase_person(person, now=self._clock.now())

    def login_code(self, principal: Principal) -> str:
        """A secret that logs one browser in as this principal, once, within two minutes."""
        return self._add(self._derived(principal, Kind.CODE, CODE_LIFE))

    def log_in(self, code: str) -> str:
        """The secret of a new browser session for a code that was not used yet; NotAllowed otherwise."""
        used = self._valid(code, Kind.CODE)
        with self._store.transaction() as tx:
            if not tx.revoke_credential(used.token_id, at=self._clock.now()):
                raise refused(Kind.CODE)
        who = replace(used.principal(), token_id=used.parent or "")
        return self._add(self._derived(who, Kind.SESSION, SESSION_LIFE))

    def log_out(self, session: str) -> None:
        """End a browser session."""
        self.revoke(self._valid(session, Kind.SESSION).token_id)

    def _derived(self, principal: Principal, kind: Kind, life: timedelta) -> Credential:
        now = self._clock.now()
        parent = principal.token_id or None
        who = (principal.name, principal.role, principal.teams)
        return Credential(self._ids.job_id(now), kind, *who, now, principal.name, now + life, parent=parent)

    def _add(self, credential: Credential) -> str:
        secret = self._ids.token()
        with self._store.transaction() as tx:
            tx.add_credential(credential, sha256=_sha256(secret))
        return secret

    def _valid(self, secret: str, kind: Kind) -> Credential:
        with self._store.transaction(write=False) as tx:
            found = tx.credential(_sha256(secret))
        if found is None or found.kind is not kind or not found.valid(self._clock.now()):
            raise refused(kind)
        return found


def visible(tx: Transaction, who: Principal, job_id: str) -> Job:
    """The job, or NotFound - also where it is another team's, whose jobs are not to be told of."""
    job = tx.job(job_id)
    if not who.sees(job.spec.team):
        raise NotFound(f"there is no job {job_id!r}. `carbon-sched list` shows those there are")
    return job


def _sha256(secret: str) -> str:
    """Of a secret with 256 random bits, which no dictionary holds: no salt and no slow hash is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def refused(kind: Kind) -> NotAllowed:
    """What is said of a credential that is not there or does not hold; which of the two, is not told."""
    if kind is Kind.API:
        return NotAllowed(f"the server's token is missing, wrong, expired or revoked; {REMEDY}")
    return NotAllowed("this login is not valid any more; ask for a new one (POST /v1/login-codes)")
