"""Commands over the ledger as a whole: a model's life cycle, jobs beside each other, what teams are charged."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.output import json_option, print_json
from carbon_sched.cli.periods import month as parsed_month
from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.ledger.account import Period
    from carbon_sched.ledger.book import Book

BY = ("team", "project", "model", "phase", "cluster")
export_option = click.option(
    "--export", "export", type=click.Path(path_type=Path), help="From a copy made by `audit export`; no server needed."
)
month_option = click.option("--month", metavar="YYYY-MM", help="Only what was used in this month, in UTC.")


@click.command()
@click.option("--model", required=True, help="As the jobs name it (`submit --model`).")
@month_option
@export_option
@json_option
def lifecycle(model: str, month: str | None, export: Path | None, as_json: bool) -> None:
    """A model's whole footprint: its making by stages, its evaluation, its inference so far.

    Per query, token or whatever the jobs counted; what the making comes to for each stands beside it, never in it.

    \b
    Example:
      carbon-sched audit lifecycle --model llama-8b
    """
    period = parsed_month(month)

    def local(book: Book) -> Any:
        from carbon_sched.ledger.lifecycle import lifecycle as of_model

        return of_model(book, model, period)

    asked = {"model": model, "since": period.since, "until": period.until}
    view = _asked(export, "/v1/lifecycle", asked, local)
    _shown(view, "lifecycle", as_json)


@click.command()
@click.argument("name")
@export_option
@json_option
def service(name: str, export: Path | None, as_json: bool) -> None:
    """Where an online service ran, from when to when, and why there.

    Each stay with the clusters that were considered and what it used; the same of a service that is deleted.

    \b
    Example:
      carbon-sched audit service chat
    """

    def local(book: Book) -> Any:
        from carbon_sched.ledger.service import service_history

        return service_history(book, name, lambda _team: True)

    _shown(_asked(export, "/v1/service", {"name": name}, local), "service", as_json)


@click.command()
@click.argument("sides", nargs=-1, required=True, metavar="JOB_A JOB_B [JOB_C...]")
@click.option("--per", default="job", show_default=True, metavar="UNIT", help="token, query, sample, epoch, ...")
@click.option("--intensity", type=click.FloatRange(0, 10_000), metavar="G", help="gCO2e/kWh for every side.")
@click.option("--pue", type=click.FloatRange(1, 10), help="PUE for every side.")
@click.option("--paired", is_flag=True, help="First jobs of all sides belong together, and so on: they ran by turns.")
@export_option
@json_option
def compare(
    sides: tuple[str, ...],
    per: str,
    intensity: float | None,
    pue: float | None,
    paired: bool,
    export: Path | None,
    as_json: bool,
) -> None:
    """Compare ways to do the same work: energy, time, quality, CO2e.

    CO2e is by the same PUE and intensity for all: the averages over these jobs, or what is given.
    Each side is a job's id, several with commas between (repeats), or a name: every job of it that succeeded. Three
    runs or more of each tell a difference from chance. Jobs count work in windows (`meter.window`) and tell quality
    by `meter.report(accuracy=0.83)`.

    \b
    Example:
      carbon-sched compare train-fp16 train-int8 --per token
    """
    pue_ppm = None if pue is None else round(pue * 1_000_000)
    mg_per_kwh = None if intensity is None else round(intensity * 1000)

    def local(book: Book) -> Any:
        from carbon_sched.ledger.compare import compare as of_sides
        from carbon_sched.ledger.compare import sides_of

        jobs = sides_of(book, sides, lambda _team: True)
        return of_sides(book, jobs, per=per, pue_ppm=pue_ppm, mg_per_kwh=mg_per_kwh, paired=paired)

    asked = {"side": list(sides), "per": per, "pue_ppm": pue_ppm, "mg_per_kwh": mg_per_kwh, "paired": paired}
    _shown(_asked(export, "/v1/compare", asked, local), "comparison", as_json)


@click.command()
@click.option("--by", type=click.Choice(BY), default="team", show_default=True, help="Who is charged.")
@month_option
@click.option("--team", help="Only this team.")
@export_option
@json_option
def chargeback(by: str, month: str | None, team: str | None, export: Path | None, as_json: bool) -> None:
    """What each team is charged for: energy and CO2e on independent evidence; the rest is shown beside it.

    Independent is the word of a machine's own meter (`carbon-sched meter`), not of the job that is charged.

    \b
    Example:
      carbon-sched audit chargeback --by team --month 2026-11
    """
    period = parsed_month(month)

    def local(book: Book) -> Any:
        from carbon_sched.ledger.chargeback import chargeback as of_book

        return of_book(book, by, period, team=team)

    asked = {"by": by, "team": team, "since": period.since, "until": period.until}
    _shown(_asked(export, "/v1/chargeback", asked, local, period), "chargeback", as_json)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--timezone", default="UTC", show_default=True, help="Of the machine that wrote it: CodeCarbon notes none."
)
@click.option("--team", default="", help="Whose runs these are.")
@click.option("--project", default="", help="Their project.")
@click.option("--model", default="", help="The model they made or served.")
@click.option("--phase", default="other", show_default=True, help="pretraining, finetuning, evaluation, ...")
@click.option("--stage", default="", help="A stage of fine-tuning: sft, rlhf-1, ...")
def import_(file: Path, timezone: str, **labels: str) -> None:
    """Take over runs from CodeCarbon's emissions.csv, marked as imported.

    Statements and life cycles show them apart, in no total: another tool said so. Each run is taken once; of one that
    stands there several times, the longest row.

    \b
    Example:
      carbon-sched audit import emissions.csv --model llama-8b --phase finetuning
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.output import say
    from carbon_sched.ledger.figures import counted

    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InvalidInput("FILE", file, f"cannot be read ({reason})", "Name CodeCarbon's emissions.csv") from None
    request: Any = {"content": content, "timezone": timezone} | {name: value for name, value in labels.items() if value}
    runs = connect().client.import_emissions(request)
    say(f"{counted(runs, 'run')} of {file} imported, and marked so in the ledger")


def _asked(
    export: Path | None,
    path: str,
    asked: dict[str, Any],
    local: Callable[[Book], Any],
    period: Period | None = None,
) -> dict[str, Any]:
    """The server's answer, or the same computed here from a copy: of all of it, or of what a period needs."""
    if export is None:
        from carbon_sched.cli.connection import connect

        texts = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asked.items()}
        return connect().client.footprint(path, texts)
    from carbon_sched.cli.ledger_files import book as book_of
    from carbon_sched.ledger.account import ALWAYS

    return asdict(local(book_of(export, period or ALWAYS)))


def _shown(view: dict[str, Any], what: str, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    from carbon_sched.cli import render, render_footprints

    render.show(getattr(render_footprints, what)(view))
