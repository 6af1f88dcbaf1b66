"""The record of an attempt: what its wrapper says happened to it, one JSON object per line, one line per event."""

from __future__ import annotations

import re
from dataclasses import dataclass

from carbon_sched_runtime.fields import BOOT, OWNER, WORD, Fields, WireError, ascii_text, refuse

RECORD_LIMIT = 60 * 1024
MACHINE = re.compile(r"[0-9a-f]{1,64}")
EVENTS = (
    "started", "refused", "spawned", "listening", "resumed", "metering", "node", "node-closed", "stopping", "saved",
    "ended", "fault", "closed",
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    """One line of an attempt's record.

    Which fields are set depends on `event`:

    started   the wrapper is about to run the entrypoint (before any user code): pid, boot
    refused   nothing was run: `reason` (`fence` = too late, `started-before`, ...); exit_code 75
    spawned   the entrypoint runs as `child_pid`
    listening the job saves its state when it is stopped (`job.stop_asked`)
    resumed   a run that was suspended has its state back: from here on its work is new (`job.restored`)
    metering  energy is metered: machine, boot, role (`reader` or `follower`), `reason` says by which sources
    node      another node of the job is metered from now on: node_id (its journal lies in its own session's logs),
              machine, boot, role
    node-closed  no segment will follow from there: node_id, and as in `closed`
    stopping  a stop signal came: signal
    saved     by its time the run had written the newest file of its state (`saved.newest`); told at the end of a stop
    ended     the entrypoint ended: exit_code (128 + signal, as a shell says it), signal if one ended it
    fault     metering failed or is incomplete: `reason`; the job is not touched by it
    closed    no segment will follow from this wrapper: `segments` in the folder, exit_code as in `ended`; `reason` is
              what a reader of the figures should know (what is missing stands in a `fault` as well); `journal` names
              the segments, `READER:FIRST-LAST` by comma (`...` at its end: there were more than fit)
    """

    event: str
    attempt: str
    time_us: int
    job: str | None = None
    pid: int | None = None
    child_pid: int | None = None
    machine: str | None = None
    node_id: str | None = None
    boot: str | None = None
    role: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    segments: int | None = None
    reason: str | None = None
    journal: str | None = None


@dataclass(frozen=True)
class Record:
    """The events of one attempt in the order written; `problems` says which lines were not ours or were torn."""

    events: tuple[Event, ...]
    problems: tuple[str, ...] = ()

    def last(self, event: str) -> Event | None:
        """The newest event of that kind, or None."""
        return next((e for e in reversed(self.events) if e.event == event), None)


def record_name(attempt: str) -> str:
    """The file name of an attempt's record; WireError if the id could not be part of one."""
    if not OWNER.fullmatch(attempt):
        refuse("not the id of an attempt")
    return f"carbon-sched-{attempt}.record"


def parse_record(data: bytes, attempt: str | None = None) -> Record:
    """Read an attempt's record; unreadable lines (torn, altered, of another attempt) become `problems`.

    Raises WireError only when the whole is over its size limit.
    """
    if len(data) > RECORD_LIMIT:
        refuse(f"a record of {len(data)} bytes; at most {RECORD_LIMIT}")
    events: list[Event] = []
    problems: list[str] = []
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        found = _event_or_problem(line, attempt)
        if isinstance(found, Event):
            events.append(found)
        else:
            problems.append(f"line {number}: {found}")
    if rest:
        problems.append(f"line {len(lines) + 1}: torn")
    return Record(tuple(events), tuple(problems))


def _event_or_problem(line: bytes, attempt: str | None) -> Event | str:
    try:
        return _parse_event(Fields(ascii_text(line)), attempt)
    except WireError as error:
        return str(error)


def _parse_event(line: Fields, attempt: str | None) -> Event:
    if line.integer("v") != 1:
        refuse("an event of another format")
    event = Event(
        event=line.choice("event", EVENTS), attempt=line.text("attempt", OWNER), time_us=line.integer("t"),
        job=line.optional_text("job", OWNER), pid=line.optional_integer("pid"),
        child_pid=line.optional_integer("child_pid"), machine=line.optional_text("machine", MACHINE),
        node_id=line.optional_text("node_id", MACHINE),
        boot=line.optional_text("boot", BOOT), role=line.optional_text("role", WORD),
        exit_code=line.optional_integer("exit_code", 0, 255), signal=line.optional_integer("signal", 1, 64),
        segments=line.optional_integer("segments"), reason=line.optional_text("reason"),
        journal=line.optional_text("journal"),
    )  # fmt: skip
    line.done()
    if attempt is not None and event.attempt != attempt:
        refuse("an event of another attempt")
    return event
