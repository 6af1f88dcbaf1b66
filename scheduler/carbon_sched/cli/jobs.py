"""Commands about jobs that were submitted: status, list, logs, wait, stop, explain, receipt."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.completion import complete_clusters, complete_jobs
from carbon_sched.cli.output import json_option, print_json, say
from carbon_sched.cli.submit_options import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.client import Client
    from carbon_sched.wire import JobView, LogChunk

STATES = (
    "queued", "dispatching", "starting", "running", "stopping", "succeeded", "failed", "stopped", "refused", "lost",
)  # fmt: skip


def job_argument(*, default: str | None = None) -> Callable[[Any], Any]:
    """The argument JOB: an id, a name that only one job has, or `last`."""
    return click.argument(
        "job",
        metavar="[JOB]" if default else "JOB",
        default=default,
        required=not default,
        shell_complete=complete_jobs,
    )


@click.command()
@job_argument(default="last")
@json_option
def status(job: str, as_json: bool) -> None:
    """Show where a job stands.

    JOB is an id, a name that only one job has, or `last`, the newest.

    \b
    Example:
      carbon-sched status last
    """
    from carbon_sched.cli.connection import connect, find_job

    view = find_job(connect().client, job)
    _print(view, as_json, "job")


@click.command("list")
@click.option(
    "--state", multiple=True, type=click.Choice(STATES), metavar="STATE", help="Only in this state. Repeatable."
)
@click.option("--name", help="Only with this name.")
@click.option("--team", help="Only of this team.")
@click.option("--project", help="Only of this project.")
@click.option("--phase", type=click.Choice(PHASES), metavar="PHASE", help="Only of this phase.")
@click.option("--cluster", shell_complete=complete_clusters, help="Only on this cluster.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most.")
@click.option("--after", metavar="ID", help="Continue behind this job.")
@json_option
def list_jobs(as_json: bool, limit: int, state: tuple[str, ...], **where: Any) -> None:
    """List jobs, newest first.

    \b
    Example:
      carbon-sched list --state running --state queued
    """
    from carbon_sched.cli.connection import connect

    page = connect().client.jobs(state=list(state) or None, limit=limit, **where)
    if as_json:
        print_json(page)
        return
    if not page["jobs"]:
        say("no jobs" if not any(where.values()) and not state else "no jobs match")
        return
    _print(page["jobs"], as_json, "jobs")
    if page["next"]:
        say(f"older ones: carbon-sched list --after {page['next']}")


@click.command()
@job_argument()
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@json_option
def logs(job: str, follow: bool, as_json: bool) -> int:
    """Print what a job wrote.

    \b
    Example:
      carbon-sched logs -f last
    """
    from carbon_sched.cli.connection import connect, find_job
    from carbon_sched.domain.errors import InvalidInput

    if follow and as_json:
        raise InvalidInput("--json", "", "does not go with --follow", "Leave one of the two out")
    connection = connect()
    view = find_job(connection.client, job)
    if follow:
        return _followed(lambda follower: follower.stream() or 0, connection, view)
    log = _whole_log(connection.client, view["job_id"])
    if as_json:
        print_json(log)
    else:
        sys.stdout.buffer.write(log["text"].encode("utf-8"))
    return 0


@click.command()
@job_argument(default="last")
@click.option("-l", "--logs", "with_logs", is_flag=True, help="Attach: its output, then its receipt.")
@json_option
def wait(job: str, with_logs: bool, as_json: bool) -> int:
    """Wait for a job; exit as it did.

    \b
    Example:
      carbon-sched wait --logs last
    """
    from carbon_sched.cli.connection import connect, find_job
    from carbon_sched.domain.errors import InvalidInput

    if with_logs and as_json:
        raise InvalidInput("--json", "", "does not go with --logs", "Leave one of the two out")
    connection = connect()
    view = find_job(connection.client, job)
    if with_logs:
        return _followed(lambda follower: follower.run(decision=False), connection, view)
    code = _followed(lambda follower: follower.outcome(), connection, view)
    if as_json:
        print_json(connection.client.job(view["job_id"]))
    return code


@click.command()
@job_argument()
@json_option
def stop(job: str, as_json: bool) -> None:
    """Stop a job.

    A job that waits ends at once; one that runs gets SIGTERM and 20 seconds to save its work.

    \b
    Example:
      carbon-sched stop last
    """
    from carbon_sched.cli.connection import connect, find_job

    client = connect().client
    before = find_job(client, job)
    view = client.stop(before["job_id"])
    if as_json:
        print_json(view)
    elif before["finished_at"]:
        say(f"job {view['job_id']} had {view['state']} already")
    else:
        say(f"job {view['job_id']} is {view['state']}")


@click.command()
@job_argument()
@click.option("--as", "resolution", type=click.Choice(("succeeded", "failed", "stopped")), help="How it ended.")
@click.option("--requeue", is_flag=True, help="It does not run any more; run it again.")
@click.option("--note", default="", metavar="TEXT", help="How you know; kept in the ledger.")
@json_option
def resolve(job: str, resolution: str | None, requeue: bool, note: str, as_json: bool) -> None:
    """Say what became of a lost job.

    A job is lost when its cluster cannot tell whether it ran. Look there first: with --requeue it may run twice.

    \b
    Example:
      carbon-sched resolve 0123456789 --requeue --note "the node was replaced"
    """
    from carbon_sched.cli.connection import connect, find_job
    from carbon_sched.domain.errors import InvalidInput

    if requeue == (resolution is not None):
        raise InvalidInput("--as", resolution or "", "must be given, or --requeue, but not both", "Give one of the two")
    client = connect().client
    view = client.resolve(
        find_job(client, job)["job_id"], {"resolution": "requeue" if requeue else str(resolution), "note": note}
    )
    if as_json:
        print_json(view)
    else:
        say(f"job {view['job_id']} is {view['state']}")


@click.command()
@job_argument(default="last")
@json_option
def explain(job: str, as_json: bool) -> None:
    """Tell why a job runs where it does, or waits.

    \b
    Example:
      carbon-sched explain last
    """
    from carbon_sched.cli.connection import connect, find_job

    client = connect().client
    view = client.decision(find_job(client, job)["job_id"])
    _print(view, as_json, "decision")


@click.command()
@job_argument(default="last")
@json_option
def receipt(job: str, as_json: bool) -> None:
    """Show the energy and emissions of a job.

    \b
    Example:
      carbon-sched receipt last
    """
    from carbon_sched.cli.connection import connect, find_job

    client = connect().client
    view = client.receipt(find_job(client, job)["job_id"])
    _print(view, as_json, "receipt")


def _print(value: Any, as_json: bool, kind: str) -> None:
    """JSON, or what `render` makes of this kind of view."""
    if as_json:
        print_json(value)
        return
    from carbon_sched.cli import render

    render.show(getattr(render, kind)(value))


def _followed(do: Callable[[Any], int], connection: Any, view: JobView) -> int:
    """Run `do` with a follower; Ctrl-C detaches."""
    from carbon_sched.cli.follow import Follower, detached

    try:
        return do(Follower(connection, view))
    except KeyboardInterrupt:
        return detached(view["job_id"])


def _whole_log(client: Client, job_id: str) -> LogChunk:
    """Everything the newest attempt wrote so far; pages are as large as the server makes them."""
    chunk = client.logs(job_id)
    pieces = [chunk["text"]]
    while chunk["text"] and not chunk["final"]:
        chunk = client.logs(job_id, attempt=chunk["attempt"], offset=chunk["next_offset"])
        pieces.append(chunk["text"])
    return {**chunk, "text": "".join(pieces)}
