"""Commands about the grid: intensity now, expected and past, and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.output import json_option, print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.wire import ZoneReadings

NO_ZONE = "no cluster is registered and no zone was named; for example: carbon-sched grid now DE FR"


@click.group()
def grid() -> None:
    """See how clean the electricity is, and who says so.

    \b
    Example:
      carbon-sched grid now DE FR
    """


def _zones(command: Any) -> Any:
    """The arguments [ZONE]..."""
    return click.argument("zones", nargs=-1, metavar="[ZONE]...")(command)


def _chart_option(command: Any) -> Any:
    return click.option(
        "--chart",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Draw to FILE.svg or FILE.png too.",
    )(command)


@grid.command("now")
@_zones
@json_option
def show_now(zones: tuple[str, ...], as_json: bool) -> None:
    """Show the intensity that holds now, by default of the clusters' zones.

    A ZONE is an Electricity Maps key (DE, US-CAL-CISO) or a cloud region (aws:eu-west-3). All are counted alike, so
    they may be compared.

    \b
    Example:
      carbon-sched grid now DE FR GB
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.progress import Progress

    client = connect().client
    with Progress("asking providers"):
        view = client.grid_now(zones)
    if as_json:
        print_json(view)
    elif not view["readings"]:
        say(NO_ZONE)
    else:
        from carbon_sched.cli import render, render_grid

        render.show(render_grid.intensities(view))


@grid.command()
@_zones
@click.option("--hours", type=click.FloatRange(0, 168, min_open=True), default=48.0, show_default=True, help="How far.")
@_chart_option
@json_option
def forecast(zones: tuple[str, ...], hours: float, chart: Path | None, as_json: bool) -> None:
    """Draw what is expected from now on, with the band that holds it in 8 of 10 cases where one is known.

    \b
    Examples:
      carbon-sched grid forecast DE FR GB
      carbon-sched grid forecast DE --hours 168 --chart week.svg
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.progress import Progress

    _check_chart(chart)
    client = connect().client
    with Progress("asking providers"):
        view = client.grid_forecast(zones, hours=hours)
    _draw(chart, view["zones"])
    if as_json:
        print_json(view)
    elif not view["zones"]:
        say(NO_ZONE)
    else:
        from carbon_sched.cli import render, render_grid

        render.show(render_grid.forecast(view))


@grid.command()
@click.argument("zones", nargs=-1, required=True, metavar="ZONE...")
@click.option("--since", default="-1d", show_default=True, help="2026-11-01 (local midnight), -7d, or RFC 3339.")
@_chart_option
@json_option
def history(zones: tuple[str, ...], since: str, chart: Path | None, as_json: bool) -> None:
    """Draw the past as it would be booked: at most 90 days, best source first, grade by grade.

    \b
    Example:
      carbon-sched grid history DE --since -7d
    """
    from carbon_sched.cli.clock import local_zone, now
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.progress import Progress
    from carbon_sched.options.times import parse_past

    _check_chart(chart)
    begin = parse_past("--since", since, now(), local_zone())
    client = connect().client
    with Progress("asking providers"):
        views = [client.grid_history(zone, since=begin) for zone in zones]
    _draw(chart, [{"zone": view["zone"], "readings": view["readings"]} for view in views])
    if as_json:
        print_json(views)
        return
    from carbon_sched.cli import render, render_grid

    render.show(render_grid.history(views))


@grid.command()
@json_option
def providers(as_json: bool) -> None:
    """List the providers of intensity: in use, and to be had.

    \b
    Example:
      carbon-sched grid providers
    """
    from carbon_sched.cli.connection import connect

    views = connect().client.grid_providers()
    if as_json:
        print_json(views)
        return
    from carbon_sched.cli import render, render_grid

    render.show(render_grid.providers(views))


@grid.command()
@_zones
@json_option
def check(zones: tuple[str, ...], as_json: bool) -> int:
    """Ask each provider in use once and tell what is wrong and what to do; exits 124 if anything is.

    \b
    Example:
      carbon-sched grid check DE
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.progress import Progress
    from carbon_sched.domain.errors import GridError

    client = connect().client
    with Progress("asking every provider"):
        found = client.check_grid(zones)
    if as_json:
        print_json(found)
    else:
        from carbon_sched.cli import render, render_grid

        render.show(render_grid.check(found))
    return 0 if all(one["ok"] for one in found["findings"]) else GridError.exit_code


def _check_chart(chart: Path | None) -> None:
    """Before anybody is asked: a long wait should not end in a wrong file name."""
    if chart is not None:
        from carbon_sched.cli.chart import check_path

        check_path(chart)


def _draw(chart: Path | None, zones: Sequence[ZoneReadings]) -> None:
    if chart is None or not zones:
        return
    from carbon_sched.cli.chart import write_chart
    from carbon_sched.cli.clock import local_zone, now

    write_chart(chart, zones, now(), local_zone())
    say(f"drawn: {chart}")
