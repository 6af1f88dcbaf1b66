"""What people read of online services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from carbon_sched.cli import figures
from carbon_sched.cli.clock import local_zone, now
from carbon_sched.cli.render import fact_line, listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from carbon_sched.wire import AppView, RequestsView, SiteView

STYLES = {"running": "green", "waiting": "yellow"}


def apps(views: Sequence[AppView]) -> RenderableType:
    """One line per service."""
    table = listing(("name", 20), ("state", 10), ("cluster", 14), ("address", 34))
    for view in views:
        cluster = view["current"]["cluster"] if view["current"] else "-"
        table.add_row(view["name"], Text(view["state"], STYLES.get(view["state"], "")), cluster, view["address"] or "-")
    return table


def app(view: AppView, requests: RequestsView | None, none_yet: str) -> RenderableType:
    """One service: where it is, where it goes, and its figures per request."""
    state = Text(view["state"], f"bold {STYLES.get(view['state'], '')}".strip())
    parts: list[RenderableType] = [Text.assemble((view["name"], "bold"), "  ", state)]
    parts.append(fact_line("address", view["address"] or "none yet"))
    sites = [
        ("runs on", view["current"]),
        ("coming on", view["coming"]),
        *(("leaving", one) for one in view["leaving"]),
    ]
    parts += [fact_line(word, _site(site)) for word, site in sites if site is not None]
    if view["problem"]:
        parts.append(fact_line("problem", Text(view["problem"], "yellow")))
    parts += _requests(requests) if requests else [fact_line("requests", none_yet)]
    return Group(*parts)


def _site(site: SiteView) -> str:
    since = figures.moment(site["healthy_at"] or site["chosen_at"], local_zone(), now())
    until = f", until {figures.moment(site['leaves_at'], local_zone(), now())}" if site["leaves_at"] else ""
    expected = f"{site['expected_g_per_kwh']:.0f} gCO2e/kWh expected"
    return f"{site['cluster']} since {since}{until}; {expected}; metered by job {site['job_id']}"


def _requests(view: RequestsView) -> list[RenderableType]:
    """Every figure per request with what belongs to it: window, boundary, batch size, tokens, latency."""
    zone, at = local_zone(), now()
    window = f"{figures.moment(view['since'], zone, at)} to {figures.moment(view['until'], zone, at)}"
    failed = f", {view['failed']:,} failed" if view["failed"] else ""
    tokens = f"{view['input_tokens']:,} in, {view['output_tokens']:,} out"
    return [
        fact_line("requests", f"{view['requests']:,}{failed}, {window}, {view['replicas']} replicas"),
        fact_line("by Ray Serve", _by_serve(view)),
        fact_line("per request", _each(view["j_per_request"], view["co2e_g_per_request"])),
        fact_line("per token", _each(view["j_per_output_token"], view["co2e_g_per_output_token"]) + " (output)"),
        fact_line("tokens", tokens),
        fact_line("batch size", "-" if view["batch_size"] is None else figures.digits(view["batch_size"])),
        fact_line("latency", f"p50 {_seconds(view['p50_s'])}, p95 {_seconds(view['p95_s'])}"),
        fact_line("boundary", view["boundary"]),
    ]


def _by_serve(view: RequestsView) -> str:
    """Serve's own count beside the middleware's."""
    told = view["serve_requests"]
    if told is None:
        return "its own metrics are not read (Ray names no agents there, or none yet)"
    if not view["replicas"]:
        return "counted these: no replica has our middleware, so that tokens and latencies are unknown"
    apart = told - view["requests"]
    return f"{told:,} requests, {apart:+,} against the middleware's; its metrics come up to 20 s late"


def _each(energy_j: float | None, co2e_g: float | None) -> str:
    return "-" if energy_j is None else f"{figures.digits(energy_j)} J, {figures.grams(co2e_g)} CO2e"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{figures.digits(value * 1000)} ms"
