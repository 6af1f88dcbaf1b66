"""For jobs that may be suspended: the run's name, where its state lies, whether it was resumed, and when to save it.

    from carbon_sched_runtime import job            # travels with every job; `from carbon_sched import job` is the same

    state = job.checkpoint_dir() / "state.json"
    step = json.loads(state.read_text()) if job.is_resumed() and state.exists() else 0
    while step < steps and not job.stop_asked():
        step = train(step)
        if step % 100 == 0 or job.stop_asked():
            save(state, step)

Name and place are the same in every attempt. Ray Train and Tune resume by themselves when they get both:
`RunConfig(name=job.run_name(), storage_path=job.storage())`; their workers say `job.restored()` once they have their
checkpoint, so that it is known what a resume takes. Outside of carbon-sched everything works too: the run is called
`local`, and is never stopped or resumed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from carbon_sched_runtime.fields import WireError
from carbon_sched_runtime.records import RECORD_LIMIT, record_name
from carbon_sched_runtime.run import journal_folder

LOCAL = "local"
"""The name of every run outside of carbon-sched."""

_stop_asked = threading.Event()
_watching = False
_told = False


def run_name() -> str:
    """The run's name: one for all attempts of a job, another one for every job."""
    return os.environ.get("CARBON_SCHED_RUN_NAME") or LOCAL


def storage() -> str:
    """Where runs keep their state: what the job named by `--storage`, else a folder on this machine."""
    given = os.environ.get("CARBON_SCHED_STORAGE")
    return given or str(Path(tempfile.gettempdir()) / f"carbon-sched-checkpoints-{os.getuid()}")


def checkpoint_dir() -> Path:
    """This run's own folder in `storage()`, made if need be.

    Raises ValueError where the storage is not a folder (s3://...): give `storage()` and `run_name()` to what writes
    there. OSError where it cannot be made.
    """
    place = storage()
    if "://" in place:
        raise ValueError(f"the storage {place} is not a folder: give storage() and run_name() to what writes there")
    folder = Path(place) / run_name()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def slice_of(items: int) -> int:
    """How many of its items a run is to do: all of them, or few where a variant of the job is only being tried."""
    few = os.environ.get("CARBON_SCHED_SLICE")
    return min(items, int(few)) if few else items


def is_resumed() -> bool:
    """Whether an earlier attempt of this run may have left state behind."""
    return os.environ.get("CARBON_SCHED_RESUMED") == "1"


def stop_asked() -> bool:
    """Whether the run is to save its state and end now; ask at least once before, in the main thread, and then often.

    The first call begins to listen to SIGTERM, which then no longer ends the process: the job has its stop grace (20 s,
    or its `--restart-cost` where that is longer) to save and to return, before it is killed. `ray.init`, which a first
    dataset or remote call does by itself, takes the signal to end the process at once: the next call takes it back.
    """
    global _watching  # noqa: PLW0603 - one per process, as signal handlers are
    if not _watching or (_in_main_thread() and signal.getsignal(signal.SIGTERM) is not _hear):
        signal.signal(signal.SIGTERM, _hear)
    if not _watching:
        _watching = True
        _tell("listening")
        restored()
    return _stop_asked.is_set()


def _hear(*_: object) -> None:
    _stop_asked.set()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def restored() -> None:
    """Say that a resumed run has its state back: what it took until now is booked as the cost of its suspension.

    The first `stop_asked()` says it too. The first word counts; of a run that was not resumed there is nothing to say.
    Never raises: a word that cannot be written leaves the cost of a resume unknown.
    """
    global _told  # noqa: PLW0603 - one per process
    if not _told and is_resumed():
        _told = True
        _tell("resumed")


def _tell(event: str) -> None:
    """Add an event to the attempt's record; outside of carbon-sched there is none."""
    attempt = os.environ.get("CARBON_SCHED_ATTEMPT", "")
    if not attempt:
        return
    line = {"v": 1, "event": event, "attempt": attempt, "t": time.time_ns() // 1000}
    try:
        _append_once(f"{journal_folder()}/{record_name(attempt)}", event, json.dumps(line, separators=(",", ":")))
    except (OSError, WireError) as error:
        print(f"carbon-sched: the attempt's record does not say `{event}`: {error}", file=sys.stderr)


def _append_once(path: str, event: str, line: str) -> None:
    """To the record that the wrapper began, unless another worker was first: thousands of words would fill it."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if f'"event":"{event}"'.encode() not in os.read(descriptor, RECORD_LIMIT):
            os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
