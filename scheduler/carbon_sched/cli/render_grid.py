"""What people read about the grid: tables and curves of at most 80 columns; plain text when piped."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from carbon_sched.cli import figures
from carbon_sched.cli.clock import local_zone, now
from carbon_sched.cli.curve import curve, stretch
from carbon_sched.cli.render import GRADES, WIDTH, drawn, listing
from carbon_sched.domain.time import from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from rich.console import RenderableType

    from carbon_sched.wire import (
        GridCheck,
        GridFinding,
        GridForecast,
        GridHistory,
        GridNow,
        IntensityView,
        ProviderView,
        SkillView,
    )


def intensities(view: GridNow) -> RenderableType:
    """One line per zone."""
    table = listing(("zone", 16), ("g/kWh", 8), ("grade", 5), ("kind", 9), ("until", 12), ("from", 20))
    zone, at = local_zone(), now()
    for one in view["readings"]:
        table.add_row(
            one["zone"],
            figures.digits(one["g_per_kwh"]),
            one["grade"][:1],
            one["kind"],
            figures.moment(one["end"], zone, at),
            one["provider"],
        )
    return Group(table, _legend(view["readings"]), *_notes(view["notes"]))


def forecast(view: GridForecast, *, width: int = WIDTH) -> RenderableType:
    """A curve per zone and how it was found."""
    parts: list[RenderableType] = []
    for zone in view["zones"]:
        parts += [*_drawn(zone["zone"], zone["readings"], width), _skill(zone["skill"]), ""]
    every = [reading for zone in view["zones"] for reading in zone["readings"]]
    return Group(*parts, _legend(every), *_notes(view["notes"]))


def _skill(skill: SkillView | None) -> Text:
    """One line: how far our own forecasts of the zone could be trusted lately."""
    if skill is None:
        return Text("own forecasts: too few have come true to say how good they are", "dim")
    said = []
    if skill["mape_pct"] is not None:
        said.append(f"off by {figures.digits(skill['mape_pct'])} % in the first day")
    if skill["covered"] is not None:
        said.append(f"{figures.percent(skill['covered'])} of hours within the band of 80 %")
    if skill["captured"] is not None and skill["possible"] is not None:
        simple = f" (simple profile {figures.percent(skill['damped_captured'])})" if skill["damped_captured"] else ""
        said.append(f"{figures.percent(skill['captured'])}{simple} of the {figures.percent(skill['possible'])} to save")
    return Text(f"own forecasts, last 28 days: {', '.join(said)}", "dim")


def history(views: Sequence[GridHistory], *, width: int = WIDTH) -> RenderableType:
    """A curve per zone of what would be booked."""
    parts: list[RenderableType] = []
    for view in views:
        parts += [*_drawn(view["zone"], view["readings"], width), ""]
    return Group(*parts, _legend([reading for view in views for reading in view["readings"]]))


def _drawn(name: str, readings: Sequence[IntensityView], width: int) -> list[RenderableType]:
    zone, at = local_zone(), now()
    lowest, highest = (pick(readings, key=lambda one: one["g_per_kwh"]) for pick in (min, max))
    ends = [
        f"{figures.digits(one['g_per_kwh'])} at {figures.moment(one['start'], zone, at)}" for one in (lowest, highest)
    ]
    head = Text.assemble((name, "bold"), f"  {figures.digits(_mean(readings))} g/kWh on average")
    facts = Text(f"lowest {ends[0]}, highest {ends[1]}; times in {_zone_name(zone)}", "dim")
    lines = curve([stretch(reading) for reading in readings], zone, width)
    return [head, facts, *[drawn(line) for line in lines], *_sources(readings)]


def _zone_name(zone: tzinfo) -> str:
    """The short name of the local time zone now."""
    return now().astimezone(zone).tzname() or "local time"


def _sources(readings: Sequence[IntensityView]) -> list[RenderableType]:
    """Grades in order of time, and who says so."""
    zone, at = local_zone(), now()
    spans = []
    for (grade, provider), some in groupby(readings, key=lambda one: (one["grade"][:1], one["provider"])):
        spans.append(f"{grade} {provider} until {figures.moment(list(some)[-1]['end'], zone, at)}")
    if len(spans) > 4:
        spans = [f"{grade} {figures.percent(share)}" for grade, share in _shares(readings)]
    return [Text("; ".join(spans), "dim")]


def _shares(readings: Sequence[IntensityView]) -> list[tuple[str, float]]:
    """Share of the time per grade, best first."""
    seconds: dict[str, float] = {}
    for one in readings:
        length = (from_rfc3339(one["end"]) - from_rfc3339(one["start"])).total_seconds()
        seconds[one["grade"][:1]] = seconds.get(one["grade"][:1], 0.0) + length
    total = sum(seconds.values())
    return [(grade, length / total) for grade, length in sorted(seconds.items())]


def _mean(readings: Sequence[IntensityView]) -> float:
    lengths = [(from_rfc3339(one["end"]) - from_rfc3339(one["start"])).total_seconds() for one in readings]
    return sum(one["g_per_kwh"] * length for one, length in zip(readings, lengths, strict=True)) / sum(lengths)


def providers(views: Sequence[ProviderView]) -> RenderableType:
    """Configured ones with what they ran into, then the others with what they need."""
    parts: list[RenderableType] = []
    for title, configured in (("in use", True), ("to be had", False)):
        some = [view for view in views if view["configured"] is configured]
        if some:
            parts += [Text(title, "bold"), *(_provider(view) for view in some)]
    return Group(*parts)


def _provider(view: ProviderView) -> RenderableType:
    key = {"none": "no key"}.get(view["needs_key"], f"key {view['needs_key']}")
    lines = [f"{view['coverage']}; {view['counts']}; forecast: {view['forecast']}"]
    lines.append(f"{key}{' (' + view['key'] + ')' if view['key'] else ''}; licence: {view['licence']}")
    if view["options"]:
        lines.append(f"options: {', '.join(view['options'])}")
    text = Text("\n".join(lines))
    for zone, problem in view["problems"].items():
        text.append(f"\n{zone}: {problem}", "yellow")
    return _fact(view["provider"], text)


def check(view: GridCheck) -> RenderableType:
    """A line for what is well; problem, remedy and the provider's own words for what is not."""
    if not view["findings"]:
        return Text("no file and no provider is configured: zones are booked with yearly averages")
    return Group(*(_fact(f"{one['provider']} {one['zone']}".strip(), _found(one)) for one in view["findings"]))


def _found(one: GridFinding) -> Text:
    if not one["ok"]:
        text = Text(one["problem"], "bold red")
        text.append(f"\n{one['remedy']}", "not bold default")
        if one["detail"]:
            text.append(f"\n{one['detail']}", "not bold default dim")
        return text
    zone, at = local_zone(), now()
    text = Text("ok", "green")
    if one["g_per_kwh"] is not None:
        text.append(
            f"  {figures.digits(one['g_per_kwh'])} g/kWh at {figures.moment(one['newest_at'], zone, at)}", "default"
        )
    text.append(", with a forecast" if one["forecast_until"] else ", no forecast", "default")
    return text


def _fact(name: str, text: Text) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=22, overflow="fold")
    grid.add_column()
    grid.add_row(name, text)
    return Padding(grid, (0, 0, 0, 2))


def _legend(readings: Sequence[IntensityView]) -> RenderableType:
    grades = sorted({one["grade"][:1] for one in readings})
    return Text("; ".join(f"{grade}: {GRADES.get(grade, grade)}" for grade in grades), "dim")


def _notes(notes: Sequence[str]) -> list[RenderableType]:
    return [Text(f"note: {note}", "dim") for note in notes]
