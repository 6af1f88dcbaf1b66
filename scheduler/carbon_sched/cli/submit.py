"""`carbon-sched submit`: read the job, send its files, submit it; then, unless told otherwise, stay with it."""

from __future__ import annotations

import os
from datetime import timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carbon_sched.cli.output import print_json, say, warn
from carbon_sched.cli.submit_options import ONLY_OURS, SubmitCommand, options
from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.cli.connection import Connection
    from carbon_sched.cli.job_source import JobSource
    from carbon_sched.cli.parcel import Parcel
    from carbon_sched.client import Client
    from carbon_sched.options.given import Given
    from carbon_sched.options.request import Built
    from carbon_sched.wire import JobRequest, JobView, ScheduleRequest

MOST_IN_ARRAY = 10_000
TIMES = ("deadline", "earliest")
"""Options whose meaning depends on the user's time zone, which takes some time to find out."""
HELP = """Run a job where and when it emits least.

A script brings its project folder along. Options stand before it; whatever stands behind it is the script's own.
A job that declares no flexibility (--max-delay, --deadline) is placed well and starts at once.

\b
Examples:
  carbon-sched submit --duration 30m --max-delay 6h train.py --epochs 3
  carbon-sched submit --working-dir . -- torchrun --nproc-per-node 2 train.py
  carbon-sched submit --max-delay 6h rayjob.yaml
"""


def _submit(
    words: tuple[str, ...],
    *,
    is_command: bool,
    as_json: bool,
    no_wait: bool,
    dry_run: bool,
    array: str | None,
    every: str | None,
    tz: str | None,
    **given: Any,
) -> int:
    """Returns the exit code."""
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.parcel import leave, name_files, packed

    if as_json and not (no_wait or dry_run or array or every):
        raise InvalidInput(
            "--json", "", "needs --no-wait, --array, --every or --dry-run", "An attached job's output is the job's own"
        )
    if array is not None and dry_run:
        raise InvalidInput("--array", array, "does not go with --dry-run", "Try one of its lines without --array")
    _require_fits(every, tz, {"--array": array is not None, "--dry-run": dry_run})
    lines = None if array is None else array_lines(array)
    source = _read(words, is_command, given)
    built = request_of(source)
    for note in (*source.notes, *_misplaced(words, is_command), *built.echoes):
        say(note)
    # the zips are gone before the job is followed: whoever kills this process later leaves nothing behind
    with packed(source) as parcel:
        connection = connect()
        if dry_run:
            leave(built.request)
            return _preview(connection.client, built, as_json)
        name_files(built.request, parcel)
        if every is not None:
            return _scheduled(connection, built, parcel, every, tz, as_json=as_json)
        if lines is not None:
            return _array_handed_over(_post_array(connection, built, parcel, lines), as_json)
        job = _post(connection, built, parcel)
    if no_wait:
        return _handed_over(job, as_json)
    from carbon_sched.cli.follow import attach

    return attach(connection, job)


submit = SubmitCommand(
    "submit",
    params=options(),
    callback=_submit,
    help=HELP,
    short_help="Run a job where and when it emits least.",
    context_settings={"allow_interspersed_args": False},
)


def _read(words: tuple[str, ...], is_command: bool, given: dict[str, Any]) -> JobSource:
    from carbon_sched.cli import job_source, runtime_env
    from carbon_sched.options.given import Given

    environment = runtime_env.from_flags(given.pop("runtime_env"), given.pop("runtime_env_json"))
    file = given.pop("file")
    flags: dict[str, Given] = {}
    for key, value in given.items():
        if value is None or value == ():
            continue
        flag = key.replace("_", "-")
        flags[flag.removesuffix("-json")] = Given(list(value) if isinstance(value, tuple) else value, f"--{flag}")
    return job_source.read_job(words, is_command=is_command, flags=flags, environment=environment, file=file)


def request_of(source: JobSource) -> Built:
    """The request of a job that was read, without its bundle."""
    from carbon_sched.cli.clock import local_zone, now
    from carbon_sched.options.request import Built, build

    zone = local_zone() if source.options.keys() & TIMES else timezone.utc
    if source.manifest is not None:
        from carbon_sched.options.rayjob import request_of as request_of_rayjob

        return Built(request_of_rayjob(source.manifest, source.options, now(), zone))
    built = build(source.entrypoint, source.options, now(), zone)
    if source.environment:
        built.request["runtime_env"] = dict(source.environment)
    return built


def _misplaced(words: tuple[str, ...], is_command: bool) -> list[str]:
    """A remark where a flag of ours stands behind the script, which then gets it."""
    found = [] if is_command else [word for word in words[1:] if word.partition("=")[0] in ONLY_OURS]
    return (
        [f"{found[0]} stands behind the script and is passed to it; options of submit stand before it"] if found else []
    )


def array_lines(file: str) -> list[str]:
    """The lines of an array's file that hold more than blanks and comments; InvalidInput when there is none."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("--array", file, f"cannot be read ({error})", "Name a text file, one job per line") from None
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not 0 < len(found) <= MOST_IN_ARRAY:
        problem = f"has {len(found)} lines that are jobs"
        raise InvalidInput("--array", file, problem, f"Write 1 to {MOST_IN_ARRAY} lines, each the words of one job")
    return found


def _post_array(connection: Connection, built: Built, parcel: Parcel, lines: Sequence[str]) -> list[JobView]:
    """One job per line, under keys of one array, so that a line is never submitted twice; says how far it came."""
    from carbon_sched.cli.parcel import submit

    array = os.urandom(8).hex()
    jobs: list[JobView] = []
    metadata = built.request.get("metadata", {})
    try:
        for number, line in enumerate(lines):
            request: JobRequest = {
                **built.request,
                "entrypoint": f"{built.request['entrypoint']} {line}",
                "metadata": {**metadata, "array": array, "array-line": str(number)},
            }
            key = f"{array}-{number}"
            jobs.append(connection.ask(partial(submit, request=request, parcel=parcel, key=key)))
    except BaseException:
        warn(f"{len(jobs)} of {len(lines)} jobs of the array were submitted; `carbon-sched list` shows them")
        raise
    return jobs


def _require_fits(every: str | None, tz: str | None, others: dict[str, bool]) -> None:
    if every is None and tz is not None:
        raise InvalidInput("--tz", tz, "needs --every", "It is the time zone of a schedule")
    for flag in (flag for flag, given in others.items() if given and every is not None):
        raise InvalidInput("--every", every, f"does not go with {flag}", "Give one of them")


def _scheduled(
    connection: Connection, built: Built, parcel: Parcel, every: str, tz: str | None, *, as_json: bool
) -> int:
    """Hand a schedule over with its files."""
    from carbon_sched.cli.clock import local_zone
    from carbon_sched.cli.parcel import with_files

    zone = tz or getattr(local_zone(), "key", None)
    if zone is None:
        raise InvalidInput("--tz", "", "is needed: this machine's time zone has no name", "Write --tz Europe/Berlin")
    body: ScheduleRequest = {"cron": every, "zone": zone, "request": built.request}
    view = with_files(connection.client, parcel, lambda: connection.client.add_schedule(body))
    if as_json:
        print_json(view)
    else:
        say(f"{view['name']} is submitted whenever {every!r} is due in {zone}, next at {view['next_at']}")
        say(f"end it with: carbon-sched schedules stop {view['schedule_id']}")
        print(view["schedule_id"])  # noqa: T201 - the one thing on stdout, for scripts
    return 0


def _array_handed_over(jobs: Sequence[JobView], as_json: bool) -> int:
    if as_json:
        print_json(jobs)
    else:
        say(f"submitted {len(jobs)} jobs, one for each line")
        for job in jobs:
            print(job["job_id"])  # noqa: T201 - what scripts read
    return 0


def _post(connection: Connection, built: Built, parcel: Parcel) -> JobView:
    """Submit once, also over a server that crashes amid it: the key makes one job of two requests."""
    from carbon_sched.cli.parcel import submit

    key = os.urandom(16).hex()
    try:
        return connection.ask(lambda client: submit(client, built.request, parcel, key))
    except KeyboardInterrupt:
        warn("interrupted while submitting: the job may have been accepted; `carbon-sched list` tells")
        raise


def _handed_over(job: JobView, as_json: bool) -> int:
    if as_json:
        print_json(job)
    else:
        say(f"submitted {job['name']}; follow it with: carbon-sched logs -f {job['job_id']}")
        print(job["job_id"])  # noqa: T201 - the one thing on stdout, for scripts
    return 0


def _preview(client: Client, built: Built, as_json: bool) -> int:
    from carbon_sched.cli.progress import Progress

    with Progress("asking the clusters"):
        decision = client.preview(built.request)
    if as_json:
        print_json(decision)
    else:
        from carbon_sched.cli import render

        render.show(render.decision(decision))
        warn("this was a dry run; nothing was submitted")
    return 0
