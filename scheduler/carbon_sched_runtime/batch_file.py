"""How far a batch has come, on disk: one line beside the energy journal, replaced after every shard.

`carbon-sched-<attempt>.batch` in the journal's folder of the driver's node:

    {"v":1,"attempt":…,"done":640,"total":1000,"t0":…,"t1":…}

`done` of `total` items have their answers at `t1`, whichever attempt made them; this one works since `t0` (UTC
microseconds). What each attempt did is the difference to the one before it, so that no item counts twice or never.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from carbon_sched_runtime.fields import OWNER, Fields, ascii_text, refuse

LIMIT = 1024


@dataclass(frozen=True)
class BatchState:
    """What an attempt says of its batch."""

    attempt: str
    done: int
    total: int
    start_us: int
    end_us: int


def batch_name(attempt: str) -> str:
    """The file's name; WireError if the id could not be part of one."""
    if not OWNER.fullmatch(attempt):
        refuse("not the id of an attempt")
    return f"carbon-sched-{attempt}.batch"


def write_batch(folder: str, state: BatchState) -> None:
    """Put it in the place of what was said before. OSError when it cannot be written."""
    from carbon_sched_runtime.machine import replace_file  # noqa: PLC0415 - needs Linux; reading does not

    replace_file(f"{folder}/{batch_name(state.attempt)}", format_batch(state))


def format_batch(state: BatchState) -> bytes:
    """Its line; WireError when it would not be read back."""
    line = {
        "v": 1, "attempt": state.attempt, "done": state.done, "total": state.total,
        "t0": state.start_us, "t1": state.end_us,
    }  # fmt: skip
    data = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
    parse_batch(data, state.attempt)
    return data


def parse_batch(data: bytes, attempt: str) -> BatchState:
    """Read what a hostile job may have written; WireError for anything else than the state of this attempt's batch."""
    if len(data) > LIMIT or not data.endswith(b"\n"):
        refuse("not the state of a batch")
    line = Fields(ascii_text(data[:-1]))
    if line.integer("v") != 1:
        refuse("the state of a batch in another format")
    state = BatchState(
        attempt=line.text("attempt", OWNER), done=line.integer("done"),
        total=line.integer("total"), start_us=line.integer("t0"), end_us=line.integer("t1"),
    )  # fmt: skip
    line.done()
    if state.attempt != attempt:
        refuse("the state of another attempt's batch")
    if state.done > state.total or state.end_us < state.start_us:
        refuse("a batch that did more than there is, or ended before it began")
    return state
