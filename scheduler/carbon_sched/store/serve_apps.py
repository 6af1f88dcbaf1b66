"""Services in the database, and what their replicas counted."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from carbon_sched.domain.errors import Conflict, NotFound, StaleVersion
from carbon_sched.domain.serve_app import AppSpec, ServeApp, Site
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.store.tables import request_counts, serve_apps
from carbon_sched_runtime.request_counts import Counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Row

    from carbon_sched.store.session import Session

_INSTANTS = ("chosen_at", "healthy_at", "leaves_at")
_UPDATE = (
    update(serve_apps)
    .where(serve_apps.c.name == bindparam("its_name"), serve_apps.c.version == bindparam("as_read"))
    .values(document=bindparam("document"), version=bindparam("version"))
)


class ServeAppRows:
    """The part of `ports.Transaction` about services."""

    _db: Session

    def add_app(self, app: ServeApp) -> None:
        """Insert; Conflict where one of this name is."""
        if self._db.first(select(serve_apps.c.name).where(serve_apps.c.name == app.name)) is not None:
            raise Conflict(f"there is a service {app.name!r} already. Delete it first, or deploy under another name")
        row = {"name": app.name, "document": _to_json(app), "version": app.version}
        self._db.write(insert(serve_apps), row)

    def apps(self) -> list[ServeApp]:
        """Every service, by name."""
        return [_app(row) for row in self._db.rows(select(serve_apps).order_by(serve_apps.c.name))]

    def app(self, name: str) -> ServeApp:
        """One of them; NotFound where there is none."""
        row = self._db.first(select(serve_apps).where(serve_apps.c.name == name))
        if row is None:
            raise NotFound(f"there is no service {name!r}. `carbon-sched serve-app list` shows those there are")
        return _app(row)

    def put_app(self, app: ServeApp) -> ServeApp:
        """Write, guarded by `app.version`."""
        new = replace(app, version=app.version + 1)
        values = {"its_name": app.name, "as_read": app.version, "document": _to_json(new), "version": new.version}
        if self._db.write(_UPDATE, values) == 0:
            self.app(app.name)  # NotFound where it is that
            raise StaleVersion(f"the service {app.name} changed since it was read. Load it again")
        return new

    def remove_app(self, name: str) -> None:
        """Forget it."""
        self._db.write(delete(serve_apps).where(serve_apps.c.name == name))

    def add_request_counts(self, attempt_id: str, at: datetime, replicas: Mapping[str, Counts]) -> None:
        """Keep what the replicas had answered by then; the same instant is kept once."""
        mine, then = request_counts.c.attempt_id == attempt_id, request_counts.c.at == at
        if self._db.first(select(request_counts.c.at).where(mine, then)) is None:
            document = {name: asdict(counts) for name, counts in replicas.items()}
            self._db.write(insert(request_counts), {"attempt_id": attempt_id, "at": at, "replicas": document})

    def request_counts(
        self, attempt_ids: Sequence[str], *, since: datetime | None = None
    ) -> dict[str, list[tuple[datetime, dict[str, Counts]]]]:
        """By attempt, oldest first; with `since`, the newest before it and all that came after."""
        found: dict[str, list[tuple[datetime, dict[str, Counts]]]] = {}
        for attempt_id in attempt_ids:
            query = select(request_counts).where(request_counts.c.attempt_id == attempt_id)
            if since is not None:
                query = query.where(request_counts.c.at >= self._newest_before(attempt_id, since))
            rows = self._db.rows(query.order_by(request_counts.c.at))
            if rows:
                found[attempt_id] = [(row.at, _counts(row.replicas)) for row in rows]
        return found

    def forget_request_counts(self, attempt_id: str, *, before: datetime) -> None:
        """Forget an attempt's counts before an instant, but for the newest ones that there are."""
        mine = request_counts.c.attempt_id == attempt_id
        newest = self._db.first(select(func.max(request_counts.c.at).label("at")).where(mine))
        if newest is not None and newest.at is not None:
            self._db.write(delete(request_counts).where(mine, request_counts.c.at < min(before, newest.at)))

    def _newest_before(self, attempt_id: str, since: datetime) -> datetime:
        mine, earlier = request_counts.c.attempt_id == attempt_id, request_counts.c.at < since
        row = self._db.first(select(func.max(request_counts.c.at).label("at")).where(mine, earlier))
        return since if row is None or row.at is None else row.at


def _counts(document: Mapping[str, Mapping[str, Any]]) -> dict[str, Counts]:
    return {
        name: Counts(**{**one, "latencies": {int(key): value for key, value in one["latencies"].items()}})
        for name, one in document.items()
    }


def _to_json(app: ServeApp) -> dict[str, Any]:
    return {
        "spec": asdict(app.spec),
        "submitter": app.submitter,
        "created_at": to_rfc3339(app.created_at),
        "sites": app.sites,
        "current": _site_to_json(app.current),
        "coming": _site_to_json(app.coming),
        "leaving": [_site_to_json(site) for site in app.leaving],
        "problem": app.problem,
        "deleted": app.deleted,
    }


def _app(row: Row[Any]) -> ServeApp:
    j = row.document
    leaving = (_site(site) for site in j["leaving"])
    return ServeApp(
        spec=AppSpec(**j["spec"]),
        submitter=j["submitter"],
        created_at=from_rfc3339(j["created_at"]),
        sites=j["sites"],
        current=_site(j["current"]),
        coming=_site(j["coming"]),
        leaving=tuple(site for site in leaving if site is not None),
        problem=j["problem"],
        deleted=j["deleted"],
        version=row.version,
    )


def _site_to_json(site: Site | None) -> dict[str, Any] | None:
    if site is None:
        return None
    return {name: to_rfc3339(value) if name in _INSTANTS and value else value for name, value in vars(site).items()}


def _site(j: dict[str, Any] | None) -> Site | None:
    if j is None:
        return None
    values: dict[str, Any] = {**j, **{name: from_rfc3339(j[name]) for name in _INSTANTS if j[name]}}
    return Site(**values)
