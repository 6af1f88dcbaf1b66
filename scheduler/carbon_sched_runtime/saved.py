"""When a run last saved its state, by the files in its storage: what it did since then is lost with a stop.

Nothing is asked of the job for it, so that it holds for Ray Train and Tune as well.
"""

from __future__ import annotations

import os

MOST_FILES = 10_000
"""Of a state in more files than this nothing is said: looking at them would keep the job's end waiting."""


def newest_us(storage: str, run_name: str, until_us: int | None = None) -> int | None:
    """UTC microseconds of the newest change below the run's folder; None where there is none that can be looked at.

    Changes after `until_us` do not count: what a run that is being killed still writes (Ray Train notes that it was
    aborted) is no state.
    """
    if not storage or not run_name or "://" in storage:
        return None
    newest, seen, folders = 0, 0, [os.path.join(storage, run_name)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MOST_FILES:
                        return None
                    changed = entry.stat(follow_symlinks=False).st_mtime_ns
                    if until_us is None or changed <= 1000 * until_us:
                        newest = max(newest, changed)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:  # it vanished, or may not be read: nothing is known of it
            return None
    return newest // 1000 or None
