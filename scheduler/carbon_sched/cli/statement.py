"""`audit statement` and `audit declare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.ledger_files import book as book_of
from carbon_sched.cli.ledger_files import writable
from carbon_sched.cli.output import say
from carbon_sched.cli.periods import period as parsed_period
from carbon_sched.cli.submit_options import PHASES
from carbon_sched.domain.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from carbon_sched.ledger.account import Period
    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.declaration import Declaration

DOCUMENTS = ("text", "markdown", "html", "pdf", "json", "jsonl", "csv", "parquet")
FORMATS = (*DOCUMENTS, "codecarbon", "model-card", "ai-act", "inventory", "prometheus")
ENDINGS = {".txt": "text", ".md": "markdown"} | {f".{name}": name for name in DOCUMENTS}
BINARY = ("pdf", "parquet")
SHOWN_IDS = 5
_LARGEST_FILE = 1_000_000


@click.command()
@click.option("--job", "jobs", multiple=True, help="Only this job: an id, or a name that only one has. Repeatable.")
@click.option("--team", help="Only this team.")
@click.option("--project", help="Only this project.")
@click.option("--model", help="Only jobs of this model.")
@click.option("--phase", type=click.Choice(PHASES), metavar="PHASE", help="Only this phase.")
@click.option("--cluster", help="Only attempts on this cluster.")
@click.option("--period", help="2026, 2026-Q4 or 2026-11, in UTC; or FROM..UNTIL, such as 2026-11-01..2026-11-08.")
@click.option("--format", "form", type=click.Choice(FORMATS), metavar="FORM", help="Default: by the ending, else text.")
@click.option(
    "--export", "file", type=click.Path(path_type=Path), help="Compute from a copy of `audit export`, offline."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write (default: stdout).")
def statement(
    jobs: tuple[str, ...], period: str | None, form: str | None, file: Path | None, output: Path | None, **where: Any
) -> None:
    """The full statement: energy, emissions by scope, evidence, gaps, uncertainty, decisions, completeness.

    The same ledger gives the same bytes, from the server or from a copy: with --export nothing but the copy is used,
    and its chain is checked on the way.

    Forms: text, markdown, html, pdf, json, jsonl, csv, parquet; and those of others: codecarbon (emissions.csv),
    model-card (Hugging Face), ai-act (training energy), inventory (GHG Protocol, ESRS E1), prometheus.

    \b
    Examples:
      carbon-sched audit statement --team nlp --period 2026-11 -o november.html
      carbon-sched audit statement --model llama-7b --format pdf -o llama.pdf
      carbon-sched audit statement --export ledger.jsonl
    """
    chosen = form or _by_ending(output)
    if output is None and chosen in BINARY and sys.stdout.isatty():
        raise InvalidInput("--format", chosen, "is not for a terminal", "Name a file with --output")
    span = parsed_period(period)
    made = _from_copy(file, jobs, span, where, chosen) if file else _from_server(jobs, span, where, chosen)
    if output is None:
        click.echo(made, nl=False)
        return
    with writable(output) as out:
        out.write(made)
    say(f"the statement is in {output}")


def _by_ending(output: Path | None) -> str:
    """The form that a file's ending means; text without one."""
    ending = output.suffix.lower() if output else ""
    if ending and ending not in ENDINGS:
        raise InvalidInput("--output", output, "has an ending that means no form", "Add --format, or end it in .html")
    return ENDINGS.get(ending, "text")


def _from_copy(file: Path, jobs: tuple[str, ...], period: Period, where: dict[str, Any], form: str) -> bytes:
    from carbon_sched.ledger.account import ALWAYS
    from carbon_sched.ledger.selection import Selection
    from carbon_sched.ledger.statement import statement as compute
    from carbon_sched.ledger.statement.formats import render
    from carbon_sched.ledger.uncollected import uncollected

    with uncollected():
        book = book_of(file, ALWAYS if jobs else period)  # a job is found by its name wherever it stands
        selection = Selection(tuple(_ids(book, jobs)), period=period, **where)
        return render(compute(book, selection), form)


def _ids(book: Book, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        found = [job.job_id for job in book.jobs.values() if name in (job.job_id, job.name)]
        if not found:
            raise NotFound(f"no job of this ledger has the id or name {name!r}")
        if len(found) > 1:
            raise Conflict(f"several jobs are called {name!r}; name one by its id: {', '.join(found[:SHOWN_IDS])}")
        yield from found


def _from_server(jobs: tuple[str, ...], period: Period, where: dict[str, Any], form: str) -> bytes:
    from carbon_sched.cli.connection import connect, find_job

    client = connect().client
    ids = [find_job(client, job)["job_id"] for job in jobs]
    return client.statement(format=form, jobs=ids, since=period.since, until=period.until, **where)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def declare(file: Path) -> None:
    """Declare for statements who is accountable, who runs each cluster, and contracts for its electricity.

    FILE is YAML; `scheduler/STATEMENT.md` shows one. What it says is in the ledger from then on, under your pseudonym;
    the newest declaration holds for every statement.

    \b
    Example:
      carbon-sched audit declare organisation.yaml
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.ledger.figures import counted

    said = _read(file)
    connect().client.declare(said.model_dump(mode="json"))
    say(f"declared: {counted(len(said.clusters), 'cluster')}, offsets and certificates: {len(said.offsets)}")


def _read(file: Path) -> Declaration:
    import yaml
    from pydantic import ValidationError

    from carbon_sched.ledger.declaration import Declaration

    try:
        with file.open("rb") as content:
            document = yaml.safe_load(content.read(_LARGEST_FILE))
        return Declaration.model_validate(document)
    except OSError as error:
        raise InvalidInput("FILE", file, f"cannot be read ({error.strerror})", "Name a YAML file") from None
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput("FILE", file, f"is no YAML ({error})", "Correct it there") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise InvalidInput(place, first["input"], first["msg"], f"Correct it in {file}") from None
