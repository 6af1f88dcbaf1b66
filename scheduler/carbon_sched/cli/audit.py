"""Commands for the auditor: verify the ledger, report from it, take a copy of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.footprints import chargeback, import_, lifecycle, service
from carbon_sched.cli.ledger_files import entries, writable
from carbon_sched.cli.output import json_option, print_json, say
from carbon_sched.cli.statement import declare, statement
from carbon_sched.cli.submit_options import PHASES
from carbon_sched.domain.errors import InvalidInput, LedgerBroken

if TYPE_CHECKING:
    from carbon_sched.ledger.verify import Checkpoint
    from carbon_sched.signing import PublicKey

FORMATS = ("text", "json", "csv", "md")


@click.group()
def audit() -> None:
    """Reports, and the proof that nobody changed them.

    \b
    Example:
      carbon-sched audit report --since -7d
    """


@audit.command()
@click.option(
    "--file", "--export", "file", type=click.Path(path_type=Path), help="A copy of `audit export`; no server needed."
)
@click.option(
    "--checkpoint", multiple=True, metavar="SIZE:HEAD|FILE", help="What was noted, or a file of seals. Repeatable."
)
@click.option("--key", metavar="ed25519:BASE64", help="The only key whose seals are believed (`audit seal` shows it).")
@json_option
def verify(file: Path | None, checkpoint: tuple[str, ...], key: str | None, as_json: bool) -> int:
    """Check the whole hash chain, here: the server's word is not taken.

    Exits 126 when the chain does not verify. Against seals that are kept elsewhere, or size and head noted down, a
    ledger that was cut off or hashed anew shows too.

    \b
    Examples:
      carbon-sched audit verify
      carbon-sched audit verify --file ledger.jsonl --checkpoint seals.jsonl
    """
    from carbon_sched.cli.progress import Progress
    from carbon_sched.ledger.figures import counted
    from carbon_sched.ledger.verify import verify_entries

    checkpoints = [one for text in checkpoint for one in _checkpoints(text, key)]
    if key is not None and not any(Path(text).is_file() for text in checkpoint):
        raise InvalidInput("--key", key, "is for seals, and no file of them is given", "Add --checkpoint seals.jsonl")
    with Progress("verifying"):
        found = verify_entries(entries(file), checkpoints=checkpoints)
    if as_json:
        print_json({
            "ok": found.ok, "size": found.size, "head": found.head,
            "first_bad_seq": found.first_bad_seq, "problem": found.problem,
        })  # fmt: skip
        return 0 if found.ok else LedgerBroken.exit_code
    found.require()
    click.echo(f"the ledger verifies: {counted(found.size, 'entry')}\nhead {found.head}")
    return 0


audit.add_command(lifecycle)
audit.add_command(service)
audit.add_command(chargeback)
audit.add_command(import_)
audit.add_command(statement)
audit.add_command(declare)


@audit.command()
@json_option
def seal(as_json: bool) -> None:
    """Show the newest signed checkpoint of the ledger, its key, and where it is kept.

    The line goes to stdout: keep it anywhere that the server cannot write, and check against it later.

    \b
    Example:
      carbon-sched audit seal >> my-seals.jsonl
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.output import warn

    view = connect().client.seal()
    if as_json:
        print_json(view)
        return
    say(f"key {view['key']}; kept in: {', '.join(view['places'])}")
    for place, problem in view["problems"].items():
        warn(f"{place} is behind: {problem}")
    if view["line"] is None:
        say("no seal was made yet since the server started")
    else:
        click.echo(view["line"])


@audit.command()
@click.argument("person")
def erase(person: str) -> None:
    """Forget who PERSON is: only the pseudonym stays. The ledger holds no name, and verifies as before.

    For good: nobody can tell any more whose jobs these were. Not for people with valid tokens or live jobs. What they
    wrote themselves (names of jobs, output) stays, and backups are yours to erase.

    \b
    Example:
      carbon-sched audit erase ada@example.org
    """
    from carbon_sched.cli.connection import connect

    pseudonym = connect().client.erase_person(person)
    say(f"{person} is forgotten; the ledger knows only {pseudonym}")


@audit.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write (default: stdout).")
def export(output: Path | None) -> None:
    """Copy the ledger as JSON lines, each with the very text that was hashed.

    \b
    Example:
      carbon-sched audit export -o ledger.jsonl
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.progress import Progress
    from carbon_sched.ledger.figures import counted

    lines = connect().client.entry_lines()
    if output is None:
        for line in lines:
            click.echo(line)
        return
    count = 0
    with writable(output) as file, Progress(lambda _: f"copying the ledger, {counted(count, 'entry')} so far"):
        for line in lines:
            file.write(line + b"\n")
            count += 1
    say(f"{counted(count, 'entry')} written to {output}; check with: carbon-sched audit verify --file {output}")


@audit.command()
@click.option("--job", help="Only this job: an id, a name that only one job has, or last.")
@click.option("--since", metavar="TIME", help="From then on: 2026-11-01 (local midnight), -7d or RFC 3339.")
@click.option("--until", metavar="TIME", help="Until then.")
@click.option("--team", help="Only this team.")
@click.option("--project", help="Only this project.")
@click.option("--phase", type=click.Choice(PHASES), metavar="PHASE", help="Only this phase.")
@click.option("--json", "kind", flag_value="json", help="As JSON.")
@click.option("--csv", "kind", flag_value="csv", help="As CSV.")
@click.option("--md", "kind", flag_value="md", help="As Markdown.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write (default: stdout).")
def report(
    kind: str | None, job: str | None, since: str | None, until: str | None, output: Path | None, **where: Any
) -> None:
    """Energy and emissions of all jobs, or of those that match.

    \b
    Example:
      carbon-sched audit report --since -7d --team nlp --csv -o week.csv
    """
    from carbon_sched.cli.clock import local_zone, now
    from carbon_sched.cli.connection import connect, find_job
    from carbon_sched.options.times import parse_past

    at, zone = now(), local_zone()
    period: dict[str, Any] = {
        name: parse_past(f"--{name}", text, at, zone) for name, text in (("since", since), ("until", until)) if text
    }
    if len(period) == 2 and period["until"] <= period["since"]:
        raise InvalidInput("--until", until, "is not after --since", "Give a later time")
    client = connect().client
    job_id = find_job(client, job)["job_id"] if job else None
    text = client.report(format=kind or "text", job=job_id, **period, **where)
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    with writable(output) as file:
        file.write(text.encode())
    say(f"the report is in {output}")


def _checkpoints(text: str, key: str | None) -> list[Checkpoint]:
    """`SIZE:HEAD`, or every seal of a file."""
    from carbon_sched.ledger.verify import Checkpoint

    size, _, head = text.partition(":")
    if size.isdigit() and head:
        return [Checkpoint(int(size), head)]
    if not Path(text).is_file():
        remedy = "Write what `audit verify` printed, as 120:9f86d0..., or name a file of seals"
        raise InvalidInput("--checkpoint", text, "is not SIZE:HEAD, nor a file", remedy)
    from carbon_sched.ledger.seal import read_seals

    seals = read_seals(Path(text).read_text(encoding="utf-8", errors="replace").splitlines(), text, _key(key))
    if key is None:
        for one in dict.fromkeys(str(seal.key) for seal in seals):
            say(f"{text} is signed by {one}; give --key with the key you know, so that no other is believed")
    return [seal.checkpoint for seal in seals]


def _key(text: str | None) -> PublicKey | None:
    from carbon_sched.signing import PublicKey, raw_public_key

    if text is None:
        return None
    raw = raw_public_key(text)
    if raw is None:
        raise InvalidInput("--key", text, "is no public key", "Write it as `audit seal` prints it: ed25519:BASE64")
    return PublicKey(raw)
