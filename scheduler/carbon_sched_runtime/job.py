"""For jobs that may be suspended: the run's name, where its state lies, whether it was resumed, and when to save it.

    from carbon_sched_runtime import job            # travels with every job; `from carbon_sched import job` is the same

    state = job.checkpoint_dir() / "state.json"
    step = json.loads(state.read_text()) if job.is_resumed() and state.exists() else 0
    while step < steps and not job.stop_asked():
        step = train(step)
        if step % 100 == 0 or job.stop_asked():
            save(state, step)

Name and place are the same in every attempt. Ray Train and Tune resume by themselves when they get both:
`RunConfig(name=job.run_name(), storage_path=job.storage())`. Outside of carbon-sched everything works too: the run is
called `local`, and is never stopped or resumed.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path

LOCAL = "local"
"""The name of every run outside of carbon-sched."""

_stop_asked = threading.Event()
_watching = False


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


def is_resumed() -> bool:
    """Whether an earlier attempt of this run may have left state behind."""
    return os.environ.get("CARBON_SCHED_RESUMED") == "1"


def stop_asked() -> bool:
    """Whether the run is to save its state and end now; ask at least once before, in the main thread, and then often.

    The first call begins to listen to SIGTERM, which then no longer ends the process: the job has its stop grace (20 s,
    or its `--restart-cost` where that is longer) to save and to return, before it is killed.
    """
    global _watching  # noqa: PLW0603 - one per process, as signal handlers are
    if not _watching:
        signal.signal(signal.SIGTERM, lambda *_: _stop_asked.set())
        _watching = True
    return _stop_asked.is_set()
