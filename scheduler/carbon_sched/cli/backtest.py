"""`carbon-sched policy backtest`: what a policy would have saved on recorded jobs and grids, before it is in force."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.output import json_option, print_json, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from carbon_sched.policy.model import Policy

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--policy", "names", multiple=True, metavar="P", help="Preset or file. Repeatable; else balanced.")
@click.option("--jobs", "jobs_file", type=FILE, required=True, help="Job trace (CSV, also .gz).")
@click.option("--intensity", type=FOLDER, required=True, help="Folder with ZONE.csv[.gz], hourly.")
@click.option("--clusters", "clusters_file", type=FILE, required=True, help="The clusters, in YAML.")
@click.option("--start", metavar="TIME", help="When the trace begins (2022-03-01 or RFC 3339); else as data allow.")
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Only jobs submitted in so many days.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Only N jobs, drawn at random.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every random draw.")
@click.option(
    "--utilisation", type=click.FloatRange(0, 1, min_open=True), metavar="U", help="Size the clusters for this load."
)
@click.option("--slack", default="6h<2h:24h", show_default=True, metavar="RULE", help="How long jobs may wait.")
@click.option(
    "--forecast", default="own", show_default=True, metavar="KIND", help="own, perfect or noisy:13 (percent)."
)
@click.option("--baseline", "baselines", multiple=True, metavar="NAME", help="Repeatable; else all there are.")
@click.option("--report", type=FILE, metavar="out.html", help="Write a page with charts too.")
@json_option
def backtest(
    names: tuple[str, ...],
    jobs_file: Path,
    intensity: Path,
    clusters_file: Path,
    start: str | None,
    baselines: tuple[str, ...],
    report: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Replay recorded jobs under a policy, beside other rules and bounds.

    Nothing is submitted and no server is needed. The rules decide through the scheduler's own code on a virtual clock.
    RULE is none, a time (24h), a share of the run time (25%), or SHORT<BORDER:LONG: 6h<2h:24h lets jobs below two
    hours wait for six, others for a day.

    \b
    Example:
      carbon-sched policy backtest --policy my-policy.yaml --jobs jobs.csv
        --intensity grids/ --clusters clusters.yaml --report out.html
    """
    from carbon_sched.simulate import backtest as simulation
    from carbon_sched.simulate import report as pages
    from carbon_sched.simulate.clusters_file import load_clusters
    from carbon_sched.simulate.rivals import check_names
    from carbon_sched.simulate.setup import Options, scenario
    from carbon_sched.simulate.traces import load_grid, load_jobs

    check_names(baselines)
    policies = [_policy(name) for name in names or ("balanced",)]
    clusters = load_clusters(clusters_file)
    options = Options(start=_moment(start), **given)
    if report is not None:
        _check_writable(report)
    with _progress() as tell:
        tell("reading", 0.0)
        jobs, grid = load_jobs(jobs_file), load_grid(intensity)
        tell("forecasts", 0.0)
        built = scenario(jobs, grid, clusters, options)
        wanted = baselines or simulation.DEFAULT_BASELINES
        done = simulation.run(built, policies, wanted, seed=options.seed, progress=tell)
    setup = {
        **simulation.setup_of(built),
        "forecast": options.forecast,
        "slack": options.slack,
        "seed": options.seed,
        "jobs_file": jobs_file.name,
        "left_out": len(jobs) - len(built.jobs),
    }
    document = simulation.as_json(done, setup, options.seed)
    if report is not None:
        report.write_text(pages.page(done, document, options.seed), encoding="utf-8")
        say(f"the report is in {report}")
    if as_json:
        print_json(document)
        return
    from carbon_sched.cli import render, render_backtest

    render.show(render_backtest.results(document))


def _policy(name: str) -> Policy:
    """A preset by its name, or a policy file by its path."""
    from carbon_sched.policy.load import load_policy
    from carbon_sched.policy.presets import preset

    if "/" in name or name.endswith((".yaml", ".yml")):
        return load_policy(Path(name), preset)
    return preset(name)


def _moment(text: str | None) -> datetime | None:
    """An instant; a plain date is midnight UTC, as the intensity files count their hours."""
    from datetime import datetime, timezone

    from carbon_sched.domain.errors import InvalidInput
    from carbon_sched.domain.time import from_rfc3339

    if text is None:
        return None
    try:
        return from_rfc3339(text) if "T" in text else datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    except ValueError:
        raise InvalidInput("--start", text, "is not a time", "Give 2022-03-01 or 2022-03-01T06:00:00Z") from None


def _check_writable(path: Path) -> None:
    """Before minutes are spent: a long wait should not end in a wrong file name."""
    from carbon_sched.domain.errors import InvalidInput

    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise InvalidInput("--report", path, f"cannot be written ({error.strerror})", "Name another file") from None


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on a terminal; elsewhere one line per part."""
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def note(what: str, _share: float) -> None:
            if what not in seen:
                seen.add(what)
                say(what)

        yield note
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:28}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)
