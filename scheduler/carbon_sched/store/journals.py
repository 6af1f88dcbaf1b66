"""The journal store: a folder, shared with the nodes of a cluster, in which they leave the segments of each attempt."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from carbon_sched.domain.errors import NotFound, StoreError
from carbon_sched_runtime.machine import read_segment

NAMES_READ = 200_000
"""Per attempt: more than two months of segments; a flood of files is listed no further."""


class FolderJournals:
    """The `DeliveredJournals` port over folders ROOT/ATTEMPT. Nothing is written here, and no link is followed."""

    def names(self, root: str, attempt_id: str) -> list[str]:
        """File names of an attempt; StoreError when the store itself cannot be read."""
        try:
            with os.scandir(Path(root, attempt_id)) as entries:
                return [entry.name for entry in itertools.islice(entries, NAMES_READ)]
        except OSError as error:
            if isinstance(error, FileNotFoundError) and Path(root).is_dir():
                return []
            raise StoreError(f"the journal store {root} cannot be read: {error.strerror}. Mount it here") from error

    def read(self, root: str, attempt_id: str, name: str) -> bytes:
        """One segment's bytes; NotFound for what is gone, too large, or no plain file."""
        data = read_segment(str(Path(root, attempt_id, name)))
        if data is None:
            raise NotFound("no plain file of a segment's size")
        return data
