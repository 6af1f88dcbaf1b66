"""The facts of an online service: what was asked for, where it went and why, from when it answered, when it left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.units import MG_PER_G

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from carbon_sched.domain.serve_app import ServeApp, Site

LABELS = ("model", "project", "team")


def deployed(app: ServeApp, spec_sha256: str, by: str, at: datetime) -> Fact:
    """A service was taken in or changed, as its request with this digest asks; `by` is a pseudonym."""
    labels = {label: str(app.spec.request.get(label, "")) for label in LABELS}
    body = {"service": app.name, **labels, "by": by, "spec_sha256": spec_sha256}
    return Fact(FactKind.SERVICE_DEPLOYED, at, body)


def placed(
    app: ServeApp, site: Site, reason: str, rates: Mapping[str, float], reasons: Mapping[str, str], at: datetime
) -> Fact:
    """A cluster was chosen. `rates` are expected gCO2e per kWh of IT energy where it could be, `reasons` why not."""
    candidates = [
        {"cluster": name, "expected_mg_per_kwh": _mg(rates.get(name)), "reason": reasons.get(name, "")}
        for name in sorted({*rates, *reasons})
    ]
    origin = app.current.cluster if app.current else None
    return _of_site(
        FactKind.SERVICE_PLACED, app, site, at, {"from": origin, "reason": reason, "candidates": candidates}
    )


def answers(app: ServeApp, site: Site, at: datetime) -> Fact:
    """Clients are told this site's address from now on; they may keep the one before for `max_age_s`."""
    return _of_site(FactKind.SERVICE_ANSWERS, app, site, at, {"from": app.current.cluster if app.current else None})


def left(app: ServeApp, site: Site, at: datetime) -> Fact:
    """It is gone from a site, or the site is metered by another job from now on."""
    return _of_site(FactKind.SERVICE_LEFT, app, site, at, {"reason": site.leaves_for})


def deleted(app: ServeApp, by: str, at: datetime) -> Fact:
    """A person asked for its end."""
    return Fact(FactKind.SERVICE_DELETED, at, {"service": app.name, "by": by})


def _of_site(kind: FactKind, app: ServeApp, site: Site, at: datetime, more: Mapping[str, Any]) -> Fact:
    body = {"service": app.name, "number": site.number, "cluster": site.cluster, "job": site.job_id}
    return Fact(kind, at, {**body, **more})


def _mg(g_per_kwh: float | None) -> int | None:
    return None if g_per_kwh is None else round(g_per_kwh * MG_PER_G)
