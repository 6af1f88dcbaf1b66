"""Where seals are written, outside the database: a file that is only appended to, and a git repository."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GIT_S = 60.0
FILE = "seals.jsonl"
IDENTITY = (
    *("-c", "user.name=carbon-sched", "-c", "user.email=carbon-sched@localhost"),
    *("-c", "commit.gpgsign=false"),
)


class FileSeals:
    """One file, for example on a volume with object lock or on another machine; `ports.SealSink`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, lines: Sequence[str]) -> None:
        """Append and flush to the disk; StoreError when it cannot be written."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, flags, 0o644)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise StoreError(f"seals cannot be written to {self._path}: {error.strerror}. Mend the place") from None


class GitSeals:
    """A commit per seal in a clone that exists, pushed where a remote is named; `ports.SealSink`.

    Who may only push to the remote's branch, without force, can add to the history and not rewrite it.
    """

    def __init__(self, folder: Path, remote: str | None = None) -> None:
        self._folder, self._remote = folder, remote
        self._file = FileSeals(folder / FILE)

    def append(self, lines: Sequence[str]) -> None:
        """Append, commit, push; StoreError with git's own words. What an earlier try left undone is done now."""
        self._git("rev-parse", "--git-dir")
        self._file.append([line for line in lines if line not in self._written()])
        self._git("add", "--", FILE)
        if self._git("diff", "--cached", "--quiet", "--", FILE, allowed=(0, 1)):
            self._git("commit", "--quiet", "--no-verify", "-m", "Seal", "--", FILE)
        if self._remote:
            self._git("push", "--quiet", self._remote, "HEAD")

    def _written(self) -> set[str]:
        path = self._folder / FILE
        return set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()

    def _git(self, *arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
        """Run git there; its exit code, which must be an allowed one."""
        command = ["git", "-C", str(self._folder), *IDENTITY, *arguments]
        environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
        try:
            ran = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=GIT_S,
                check=False,
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StoreError(f"git {arguments[0]} in {self._folder} did not work: {error}") from None
        if ran.returncode not in allowed:
            said = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
            raise StoreError(f"git {arguments[0]} in {self._folder} did not work: {said[-1]}")
        return ran.returncode
