"""Commands that change what a job asks for: start, extend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from carbon_sched.cli.jobs import job_argument
from carbon_sched.cli.output import json_option, print_json, say

if TYPE_CHECKING:
    from carbon_sched.wire import JobAmendment


@click.command()
@job_argument()
@json_option
def start(job: str, as_json: bool) -> None:
    """Start a waiting job now.

    It is placed at once, where that emits least now, as with `submit --now`; the policy must allow it. What it would
    have saved by waiting is in `explain`.

    \b
    Example:
      carbon-sched start last
    """
    _amend(job, {"now": True}, as_json)


@click.command()
@job_argument()
@click.option("--deadline", metavar="TIME", help="Must have ended by then: 18:00, +6h or RFC 3339.")
@click.option("--max-delay", metavar="TIME", help="Longest wait since it was submitted, such as 12h.")
@json_option
def extend(job: str, deadline: str | None, max_delay: str | None, as_json: bool) -> None:
    """Give a job another deadline, or a longer wait.

    A deadline takes the place of the longest wait, unless both are given. The policy may still grant less.

    \b
    Example:
      carbon-sched extend last --deadline +12h
    """
    from carbon_sched.cli.clock import local_zone, now
    from carbon_sched.domain.errors import InvalidInput
    from carbon_sched.domain.time import to_rfc3339
    from carbon_sched.options.times import parse_duration, parse_instant

    amendment: JobAmendment = {}
    if deadline is not None:
        until = parse_instant("deadline", deadline, now(), local_zone())
        amendment["deadline"] = to_rfc3339(until.at)
        if until.echo:
            say(until.echo)
    if max_delay is not None:
        amendment["max_delay_s"] = parse_duration("max_delay", max_delay, zero=True)
    if not amendment:
        raise InvalidInput("--deadline", "", "is missing", "Give --deadline, --max-delay or both")
    _amend(job, amendment, as_json)


def _amend(job: str, amendment: JobAmendment, as_json: bool) -> None:
    """Refused where somebody else amended the job since it was looked up."""
    from carbon_sched.cli.connection import connect, find_job

    client = connect().client
    before = find_job(client, job)
    view = client.amend(before["job_id"], {**amendment, "amendments": before["amendments"]})
    if as_json:
        print_json(view)
    elif view["amendments"] == before["amendments"]:
        say(f"job {view['job_id']} asked for that already; it is {view['state']}")
    else:
        say(f"job {view['job_id']} is planned anew: carbon-sched explain {view['job_id']}")
