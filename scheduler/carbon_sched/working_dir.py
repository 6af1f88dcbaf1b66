"""What of the user's files travels with a job, and the zip that carries them; light to import, for the command line.

A submitted script brings its folder along when it lies in a project (a git work tree, or a `pyproject.toml` at or
above it), else it travels alone: nobody means to upload a home directory. The folder becomes the job's working
directory, as with `ray job submit --working-dir FOLDER -- python script.py`: the script finds its neighbours there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pathspec import GitIgnoreSpec

MEBIBYTE = 1024 * 1024
ZIP_BYTES = 100 * MEBIBYTE
# Before anything is compressed: a job's code that is larger than this was not meant to be sent.
CONTENT_BYTES = 1024 * MEBIBYTE
CHUNK_BYTES = MEBIBYTE
SHOWN_FILES = 5
IGNORE_FILES = (".gitignore", ".rayignore")
EXCLUDES = "excludes"
"""Stands beside the names of ignore files, for what a runtime_env leaves out."""
PROJECT_MARKS = (".git", "pyproject.toml")
NEVER_SENT = frozenset({".git", ".hg", ".svn", "__pycache__"})
# A folder with one of these is a Python environment: large, and wrong on another machine.
ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
REMEDY = "List what the job does not need in .rayignore, or name a smaller folder with --working-dir"


@dataclass(frozen=True)
class Selection:
    """What to send for a script: a folder, or (`only`) one file of it; `script` is the path to run inside."""

    root: Path
    script: str
    only: str | None = None


@dataclass(frozen=True)
class WorkingDir:
    """A finished zip: where it is, the SHA-256 of its bytes (hex), its size, and how many files it holds."""

    path: Path
    sha256: str
    size_bytes: int
    files: int


def select(script: Path) -> Selection:
    """Choose what travels with a script (see the module's own words); InvalidInput when it cannot be read."""
    try:
        with script.open("rb"):
            pass
    except OSError as error:
        raise InvalidInput("script", script, f"cannot be read ({error.strerror})", "Give the path of a file") from None
    folder = script.absolute().parent
    only = None if in_project(folder) else script.name
    return Selection(folder, script.name, only)


def in_project(folder: Path) -> bool:
    """Whether a folder belongs to a project; the home directory and the root never do, whatever lies there."""
    never = {Path.home().resolve(), Path(folder.anchor)}
    resolved = folder.resolve()
    for place in (resolved, *resolved.parents):
        if place in never:
            return False
        if any((place / mark).exists() for mark in PROJECT_MARKS):
            return True
    return False


def build_working_dir(
    root: Path,
    into: Path,
    *,
    only: str | None = None,
    script: str | None = None,
    excludes: Sequence[str] = (),
    inside: str = "",
) -> WorkingDir:
    """Zip `root` (or the one file `only` of it) into the folder `into`, as `<sha256>.zip`.

    The same content, names and modes give the same bytes. Left out are what `.gitignore` and `.rayignore` name (here,
    in sub-folders, and above up to the git work tree), what `excludes` names in the same form, version control, byte
    code and Python environments. What travels lies in the folder `inside` of the zip. Raises InvalidInput for links
    that leave the folder, unreadable files, a `script` that is left out, and more than 100 MiB, which is what Ray's
    dashboard takes.
    """
    if not root.is_dir():
        raise InvalidInput("working-dir", root, "is not a folder", "Give a folder that can be read")
    root = root.resolve()
    walk = _Walk(root, excludes)
    entries = [_entry(root / only, only)] if only else sorted(walk.entries(), key=lambda entry: entry.name)
    if script is not None and script not in {entry.name for entry in entries}:
        problem = "is left out by an ignore file (.gitignore, .rayignore) or by excludes"
        raise InvalidInput("script", script, problem, "Remove it there, or run another script")
    if sum(entry.size for entry in entries) > CONTENT_BYTES:
        raise too_large(entries, f"hold more than {CONTENT_BYTES // MEBIBYTE} MiB together")
    into.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=into, prefix=".building-", suffix=".zip")
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _write([replace(entry, name=inside + entry.name) for entry in entries], file)
        sha256, size = _hash(draft)
        return WorkingDir(draft.replace(into / f"{sha256}.zip"), sha256, size, sum(not e.folder for e in entries))
    finally:
        draft.unlink(missing_ok=True)


def ready_made(path: Path) -> WorkingDir:
    """A file that is a zip already (a wheel), as it is; InvalidInput where it cannot be read or is too large."""
    try:
        sha256, size = _hash(path)
    except OSError as error:
        raise _unreadable(str(path), error) from None
    if size > ZIP_BYTES:
        raise InvalidInput("py_modules", path, f"is larger than {ZIP_BYTES // MEBIBYTE} MiB", "Name a remote one")
    return WorkingDir(path, sha256, size, 1)


@dataclass(frozen=True)
class _Entry:
    """One file or (with a trailing slash) one empty folder of the zip."""

    name: str
    path: Path
    size: int
    mode: int

    @property
    def folder(self) -> bool:
        return self.name.endswith("/")


class _Walk:
    """The files below a folder that travel."""

    def __init__(self, root: Path, excludes: Sequence[str]) -> None:
        self.root = root
        self.rules: dict[tuple[Path, str], GitIgnoreSpec] = {}
        if excludes:
            self.rules[root, EXCLUDES] = _spec(excludes)

    def entries(self) -> Iterator[_Entry]:
        for folder in _up_to_work_tree(self.root):
            self._read_rules(folder)
        yield from self._folder(self.root, "", (self.root,))

    def _folder(self, folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[_Entry]:
        """What lies in a folder; `above` are the real folders that it lies in, so that links cannot go round."""
        self._read_rules(folder)
        try:
            items = list(os.scandir(folder))
        except OSError as error:
            raise _unreadable(prefix or ".", error) from None
        sent = False
        for item in items:
            for entry in self._item(item, folder / item.name, prefix + item.name, above):
                sent = True
                yield entry
        if prefix and not sent:
            yield _Entry(prefix, folder, 0, stat.S_IMODE(folder.stat().st_mode))

    def _item(self, item: os.DirEntry[str], path: Path, name: str, above: tuple[Path, ...]) -> Iterator[_Entry]:
        is_folder = item.is_dir()
        if _never_sent(path, is_folder=is_folder) or self._ignored(path, is_folder=is_folder):
            return
        if item.is_symlink():
            _check_link(self.root, path, name, above)
        if is_folder:
            yield from self._folder(path, f"{name}/", (*above, path.resolve()))
        elif item.is_file():
            yield _entry(path, name)
        # Sockets, pipes and devices hold nothing that could travel.

    def _read_rules(self, folder: Path) -> None:
        for kind in IGNORE_FILES:
            if (folder / kind).is_file():
                self.rules[folder, kind] = _rules(folder / kind)

    def _ignored(self, path: Path, *, is_folder: bool) -> bool:
        """As git decides: the nearest file that says anything about the path wins, for each kind of file apart."""
        return any(self._verdict(path, kind, is_folder=is_folder) for kind in (*IGNORE_FILES, EXCLUDES))

    def _verdict(self, path: Path, kind: str, *, is_folder: bool) -> bool | None:
        for folder in path.parents:
            rules = self.rules.get((folder, kind))
            if rules is None:
                continue
            name = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
            verdict = rules.check_file(name).include
            if verdict is not None:
                return verdict
        return None


def _spec(lines: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # noqa: PLC0415 - only a folder needs it, and it takes longer than the rest

    return GitIgnoreSpec.from_lines(lines)


def _rules(file: Path) -> GitIgnoreSpec:
    try:
        return _spec(file.read_text("utf-8", "replace").splitlines())
    except (OSError, ValueError) as error:
        raise InvalidInput("working-dir", file, f"cannot be understood ({error})", "Mend or remove it") from None


def _up_to_work_tree(root: Path) -> list[Path]:
    """The folders above `root` up to the top of its git work tree; none when it lies in no work tree."""
    above: list[Path] = []
    for place in (root, *root.parents):
        if place != root:
            above.append(place)
        if (place / ".git").exists():
            return above
    return []


def _never_sent(path: Path, *, is_folder: bool) -> bool:
    if path.name in NEVER_SENT or path.suffix == ".pyc":
        return True
    return is_folder and any((path / mark).exists() for mark in ENVIRONMENT_MARKS)


def _check_link(root: Path, path: Path, name: str, above: tuple[Path, ...]) -> None:
    """A link travels as what it points to, and only when that lies in the folder too."""
    remedy = f"Copy its target into the folder, or name it in .rayignore: {name}"
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise InvalidInput("working-dir", name, "is a link to nothing", remedy) from None
    if not target.is_relative_to(root):
        raise InvalidInput("working-dir", name, f"is a link to {target}, outside of the folder", remedy)
    if target in above:
        raise InvalidInput("working-dir", name, "is a link to a folder that it lies in", remedy)


def _entry(path: Path, name: str) -> _Entry:
    try:
        name.encode("utf-8")
        info = path.stat()
    except UnicodeEncodeError:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise InvalidInput("working-dir", shown, "is no valid UTF-8", "Rename the file") from None
    except OSError as error:
        raise _unreadable(name, error) from None
    return _Entry(name, path, info.st_size, stat.S_IMODE(info.st_mode))


def _unreadable(name: str, error: OSError) -> InvalidInput:
    remedy = "Make it readable, or name it in .rayignore"
    return InvalidInput("working-dir", name, f"cannot be read ({error.strerror})", remedy)


def _write(entries: list[_Entry], file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, ZIP_TIME)
            info.create_system = 3  # Unix, wherever it is built: the modes below mean nothing otherwise
            info.external_attr = (stat.S_IFREG | entry.mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            if entry.folder:
                info.external_attr = (stat.S_IFDIR | entry.mode) << 16 | 0x10
                archive.writestr(info, b"")
                continue
            try:
                _copy(entry, archive, info)
            except OSError as error:
                raise _unreadable(entry.name, error) from None
            if file.tell() > ZIP_BYTES:
                raise too_large(entries, f"is larger than {ZIP_BYTES // MEBIBYTE} MiB when zipped")


def _copy(entry: _Entry, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    info.file_size = entry.size  # tells zipfile whether it needs the format for large files
    with entry.path.open("rb") as source, archive.open(info, "w") as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)


def too_large(entries: list[_Entry], problem: str) -> InvalidInput:
    """The error that names the largest files."""
    largest = sorted(entries, key=lambda entry: entry.size, reverse=True)[:SHOWN_FILES]
    shown = ", ".join(f"{entry.name} ({entry.size / MEBIBYTE:.1f} MiB)" for entry in largest)
    return InvalidInput("working-dir", f"{len(entries)} files", problem, f"The largest: {shown}. {REMEDY}")


def _hash(path: Path) -> tuple[str, int]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
        return digest.hexdigest(), file.tell()
