"""People and their pseudonyms, which alone stand in the ledger; and how a person's name leaves the database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import Text, bindparam, delete, insert, select, type_coerce, update

from carbon_sched.domain.access import Kind
from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.store.columns import clean_text
from carbon_sched.store.tables import (
    RUNNING,
    budget_approvals,
    credentials,
    jobs,
    people,
    policies,
    ray_packages,
    schedules,
)

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.store.session import Session

_PERSON = select(people.c.id).where(people.c.person == bindparam("its_name"))
_VALID_TOKENS = select(credentials.c.token_id).where(
    credentials.c.name == bindparam("its_name"),
    credentials.c.kind == Kind.API.value,
    credentials.c.revoked_at.is_(None),
    credentials.c.expires_at > bindparam("now"),
)
_THEIR_SCHEDULES = select(schedules.c.schedule_id).where(RUNNING, schedules.c.submitter == bindparam("its_name"))
_NAMES = (
    schedules.c.submitter,
    credentials.c.name,
    credentials.c.created_by,
    policies.c.applied_by,
    budget_approvals.c.approved_by,
)


class PeopleRows:
    """The part of `ports.Transaction` about people."""

    _db: Session

    def pseudonym(self, person: str) -> str:
        """`person-N`, N counted up at first use.

        A number says no more about a person than the order in which people first appear, which the ledger shows anyway.
        """
        known = self._db.first(_PERSON, {"its_name": person})
        number = known.id if known is not None else self._db.insert_one(insert(people), {"person": person})
        return f"person-{number}"

    def erase_person(self, person: str, *, now: datetime) -> str:
        """The pseudonym takes the name's place in every row that told whose it was."""
        known = self._db.first(_PERSON, {"its_name": person}) if clean_text(person) == person else None
        if known is None:
            raise NotFound(f"nobody named {person!r} stands in the ledger")
        if tokens := self._db.rows(_VALID_TOKENS, {"its_name": person, "now": now}):
            held = ", ".join(row.token_id for row in tokens)
            raise Conflict(
                f"{person!r} still has tokens, whose next use would tell the name again. Revoke {held} first"
            )
        if running := self._db.rows(_THEIR_SCHEDULES, {"its_name": person}):
            named = ", ".join(row.schedule_id for row in running)
            raise Conflict(f"{person!r} has schedules that go on: {named}. Stop them first")
        pseudonym = f"person-{known.id}"
        self._rename_jobs(person, pseudonym)
        for column in _NAMES:
            self._db.write(update(column.table).where(column == person).values({column: pseudonym}))
        self._db.write(delete(ray_packages).where(ray_packages.c.owner == person))
        self._db.write(delete(people).where(people.c.id == known.id))
        return pseudonym

    def _rename_jobs(self, person: str, pseudonym: str) -> None:
        """Their finished jobs; a live one is still decided about by whose it is. Its idempotency key holds the name."""
        said = f'"submitter":{json.dumps(person)}'
        of_theirs = type_coerce(jobs.c.spec, Text).contains(said, autoescape=True)
        rows = self._db.rows(select(jobs.c.job_id, jobs.c.spec, jobs.c.finished_at).where(of_theirs))
        mine = [row for row in rows if row.spec["submitter"] == person]
        if live := [row.job_id for row in mine if row.finished_at is None]:
            raise Conflict(
                f"{person!r} has jobs that have not ended: {', '.join(live)}. Wait for them, or stop them first"
            )
        for row in mine:
            values = {"spec": row.spec | {"submitter": pseudonym}, "idempotency_key": None}
            self._db.write(update(jobs).where(jobs.c.job_id == row.job_id).values(values))
