"""The journal folder of an attempt: segments copied into it whole, synced, and checked at the end.

The folder lies where user code may write: what is found altered or missing at the end is put back and reported.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from carbon_sched_runtime.machine import read_segment
from carbon_sched_runtime.wire import parse_segment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from carbon_sched_runtime.machine import Machine

CONTENTS_LIMIT = 380  # a text of the record holds 400 characters
LOOK_BACK_S = 600.0  # a wrapper also takes along what a killed one published and could not copy


class Journal:
    """Copies what readers publish on this machine into one folder."""

    def __init__(
        self, machine: Machine, folder: str, now_s: float, pass_on: Sequence[Callable[[str, bytes], None]] = ()
    ) -> None:
        """Each of `pass_on` gets every segment's name and bytes when it is in the folder."""
        self.folder = folder
        self._pass_on = pass_on
        self.covered_ns = 0
        self._machine = machine
        self._since_s = now_s - LOOK_BACK_S
        self._digests: dict[str, bytes] = {}

    @property
    def segments(self) -> int:
        """How many segments are in the folder thanks to this journal or beside it."""
        return len(self._digests)

    def contents(self) -> str:
        """The names of its segments in short, for the record: `READER:FIRST-LAST` by comma."""
        runs: dict[str, list[list[int]]] = {}
        for name in sorted(self._digests):
            found = parse_segment_name(name)
            of_reader = runs.setdefault(found.reader, [])
            if of_reader and of_reader[-1][1] == found.seq - 1:
                of_reader[-1][1] = found.seq
            else:
                of_reader.append([found.seq, found.seq])
        parts = [f"{reader}:{first}-{last}" for reader, found in runs.items() for first, last in found]
        text = ",".join(parts)
        return text if len(text) <= CONTENTS_LIMIT else text[: text.rindex(",", 0, CONTENTS_LIMIT)] + ",..."

    def sync(self) -> None:
        """Copy every new segment; OSError when the folder cannot be written (what was missed is tried again)."""
        for name, path in sorted(self._machine.published(self._since_s)):
            if name in self._digests:
                continue
            data = read_segment(path)
            if data is None:
                continue
            self._put(name, data)
            self._digests[name] = hashlib.sha256(data).digest()
            for pass_on in self._pass_on:
                pass_on(name, data)
            self.covered_ns = max(self.covered_ns, _end_of(data))

    def restore(self) -> list[str]:
        """Names of segments that were altered, removed or replaced by links since; those still at hand are put back."""
        bad = [name for name, digest in self._digests.items() if self._digest(name) != digest]
        published = dict(self._machine.published(0.0)) if bad else {}
        for name in bad:
            data = read_segment(published[name]) if name in published else None
            if data is not None:
                with contextlib.suppress(OSError):
                    _remove(f"{self.folder}/{name}")
                self._put(name, data)
        return bad

    def _put(self, name: str, data: bytes) -> None:
        """Write, sync and link into place; a name that exists is left (another wrapper of this machine was first)."""
        path, temporary = f"{self.folder}/{name}", f"{self.folder}/.{name}.{os.getpid()}"
        if os.path.lexists(path):
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o644)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
        sync_folder(self.folder)

    def _digest(self, name: str) -> bytes | None:
        path = f"{self.folder}/{name}"
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return None
        except OSError:
            return None
        data = read_segment(path)
        return None if data is None else hashlib.sha256(data).digest()


def sync_folder(path: str) -> None:
    """Make the names in a folder as durable as the files."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _end_of(data: bytes) -> int:
    """The boot clock at a segment's end, from its header line; 0 when there is none."""
    header = data.split(b"\n", 2)[1] if data.count(b"\n", 0, 4096) > 1 else b""
    _, _, rest = header.partition(b'"m1":')
    digits = rest.split(b",", 1)[0].rstrip(b"}")
    return int(digits) if digits.isdigit() and len(digits) < 20 else 0


def _remove(path: str) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        os.rename(path, f"{path}.moved-{os.getpid()}")
    else:
        os.unlink(path)
