"""Where an online service ran, from when to when, and why: each stay on a cluster, with what it used there so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import NotFound
from carbon_sched.domain.facts import FactKind
from carbon_sched.ledger.account import actual

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.records import Body


@dataclass(frozen=True)
class Considered:
    """A cluster as it stood when the service was placed; the rate (PUE included) is None where it could not be."""

    cluster: str
    expected_mg_per_kwh: int | None
    reason: str


@dataclass(frozen=True)
class Stay:
    """One stay, metered by `job`; times are RFC 3339, None for what has not come. `co2e_ug` None: not booked yet.

    It was placed there for `reason`, coming from a cluster or from nowhere, and left for `left_reason`.
    """

    number: int
    cluster: str
    job: str
    came_from: str | None
    placed_at: str
    reason: str
    considered: tuple[Considered, ...]
    answers_since: str | None
    left_at: str | None
    left_reason: str
    energy_uj: int
    co2e_ug: int | None


@dataclass(frozen=True)
class Change:
    """Somebody deployed the service, or changed or deleted it; `spec_sha256` is of the request, empty for an end."""

    at: str
    by: str
    spec_sha256: str


@dataclass(frozen=True)
class ServiceHistory:
    """A service from its first deploy on; of a name that was used again after its end, all of it."""

    service: str
    team: str
    model: str
    changes: tuple[Change, ...]
    stays: tuple[Stay, ...]
    ledger_size: int
    ledger_head: str


def service_history(book: Book, name: str, sees: Callable[[str], bool]) -> ServiceHistory:
    """All that the ledger says of it. NotFound where it says nothing, or where `sees(team)` forbids a look."""
    told = book.services.get(name, [])
    asked = [body for body in told if body["kind"] == FactKind.SERVICE_DEPLOYED.value]
    if not asked or not all(sees(body["team"]) for body in asked):
        raise NotFound(f"the ledger knows no service {name!r}. `carbon-sched serve-app list` shows those that run now")
    return ServiceHistory(
        service=name,
        team=asked[-1]["team"],
        model=asked[-1]["model"],
        changes=tuple(Change(b["at"], b["by"], b.get("spec_sha256", "")) for b in told if "by" in b),
        stays=tuple(_stay(book, body, told) for body in told if body["kind"] == FactKind.SERVICE_PLACED.value),
        ledger_size=book.size,
        ledger_head=book.head,
    )


def _stay(book: Book, placed: Body, told: Sequence[Body]) -> Stay:
    mine = {body["kind"]: body for body in told if body.get("job") == placed["job"]}
    answers, left = mine.get(FactKind.SERVICE_ANSWERS.value, {}), mine.get(FactKind.SERVICE_LEFT.value, {})
    job = book.jobs[placed["job"]]
    accounts = [actual(attempt) for attempt in job.attempts.values()]
    return Stay(
        number=placed["number"],
        cluster=placed["cluster"],
        job=placed["job"],
        came_from=placed["from"],
        placed_at=placed["at"],
        reason=placed["reason"],
        considered=tuple(Considered(**one) for one in placed["candidates"]),
        answers_since=answers.get("at"),
        left_at=left.get("at"),
        left_reason=left.get("reason", ""),
        energy_uj=sum(one.energy_uj for one in accounts),
        co2e_ug=sum(one.co2e_ug for one in accounts) if job.settled else None,
    )
