"""Job bundles as files named by their SHA-256: received in a stream, checked, and visible only when sound."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput, NotFound, StoreError, TooLarge
from carbon_sched.store.bundle_check import check_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 100 * 1024**2
"""What a Ray cluster takes as one package."""
_INCOMING = ".incoming-"


class FileBundles:
    """The `Bundles` port over a folder on a local disk. Files have mode 0600, the folder 0700."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, and remove what uploads left that died before their end."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in folder.glob(f"{_INCOMING}*"):
            _remove_unless_locked(left)

    def put(self, sha256: str, chunks: Iterator[bytes]) -> None:
        """Store; InvalidInput when the content does not hash to `sha256`, is too large, or unsafe to unpack."""
        self._path(sha256)  # refused before anything is received
        self._store(chunks, sha256)

    def receive(self, chunks: Iterator[bytes]) -> str:
        """Store as `put` does and return the SHA-256, which the sender does not know."""
        return self._store(chunks, None)

    def _store(self, chunks: Iterator[bytes], expected: str | None) -> str:
        with self._incoming() as file:
            found = _receive(file, chunks)
            if expected not in (None, found):
                raise InvalidInput("bundle", expected, f"is not the hash of what arrived ({found})", "Upload it again")
            check_bundle(file)
            os.fsync(file.fileno())
            Path(file.name).replace(self._path(found))
            self._sync_folder()
            return found

    def has(self, sha256: str) -> bool:
        """Whether it is stored."""
        return self._path(sha256).is_file()

    def open(self, sha256: str) -> Path:
        """The stored file, or NotFound."""
        if not self.has(sha256):
            raise NotFound(f"there is no bundle {sha256}. Upload it with PUT /v1/bundles/{sha256}")
        return self._path(sha256)

    def _path(self, sha256: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise InvalidInput("bundle", sha256, "is not a SHA-256", "Give 64 lowercase hexadecimal digits")
        return self._folder / f"{sha256}.zip"

    @contextmanager
    def _incoming(self) -> Iterator[IO[bytes]]:
        """A private file in the folder, locked while it is written and gone on any error."""
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=_INCOMING, delete=False) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                try:
                    yield file
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            remedy = "Free some space there, or make it writable"
            raise StoreError(f"the bundle cannot be stored in {self._folder}: {error.strerror}. {remedy}") from error

    def _sync_folder(self) -> None:
        """Make the new name durable, not only the content."""
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _receive(file: IO[bytes], chunks: Iterator[bytes]) -> str:
    """Write the stream and return its SHA-256; stops at the first byte too many."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_BYTES:
            remedy = "Leave data and checkpoints out (.gitignore, .rayignore), or put them in a bucket"
            raise TooLarge("bundle", f"{size} bytes", f"is over the {MAX_BYTES >> 20} MiB a cluster takes", remedy)
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    return digest.hexdigest()


def _remove_unless_locked(path: Path) -> None:
    """The lock of a living upload is held by its process; that of a dead one is gone with it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except (BlockingIOError, FileNotFoundError):
        return
