"""Whether a zip is safe to unpack: what a cluster's `zipfile` would do with it stays inside its folder, and small.

The list of entries is bounded before it is read (a million entries would fill memory), and what is odd is refused
rather than interpreted: programs disagree about odd zips, and a check helps only if the unpacker sees what it saw.
"""

from __future__ import annotations

import re
import stat
import struct
import unicodedata
import zipfile
from typing import IO, TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ENTRIES = 20_000
MAX_LIST_BYTES = 8 * 1024**2
MAX_UNPACKED = 1024**3
FREE_UNPACKED = 64 * 1024**2
"""Below this, any ratio is fine: nobody is harmed by it."""
MAX_RATIO = 100
MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255

_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\5\6"
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
_FOLDER_ITSELF = "./"
"""The one entry of an empty folder that Ray packed."""
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")
_REMEDY = "Make the zip anew with `carbon-sched submit`, or with relative paths of plain files only"


def check_bundle(file: IO[bytes]) -> None:
    """Raise InvalidInput for a zip with a dangerous, ambiguous or excessive content. `file` is seekable."""
    size = file.seek(0, 2)
    try:
        _check_end(file, size)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_sizes(entries, size)
            for entry in entries:
                _check_entry(entry)
            _check_twins(entries)
            for entry in entries:
                archive.open(entry).close()  # compares the entry's own header with the list; reads no content
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        raise _bad("bundle", f"is no zip that can be read ({error})") from error


def _check_end(file: IO[bytes], size: int) -> None:
    """The zip must be one plain archive: nothing before, between or behind, and a list of bearable size."""
    file.seek(max(0, size - _END.size))
    tail = file.read(_END.size)
    if len(tail) < _END.size or tail[:4] != _END_SIGNATURE:
        raise _bad("bundle", "does not end as a plain zip without comment does")
    _, disk, list_disk, here, entries, list_size, list_start, _ = _END.unpack(tail)
    if entries > MAX_ENTRIES or list_size > MAX_LIST_BYTES:
        raise _bad(f"{entries} entries", f"are too many for a bundle (at most {MAX_ENTRIES})")
    if disk or list_disk or here != entries or list_start + list_size + _END.size != size:
        raise _bad("bundle", "is not one plain zip from its first byte to its last")


def _check_sizes(entries: list[zipfile.ZipInfo], size: int) -> None:
    if len(entries) > MAX_ENTRIES:
        raise _bad(f"{len(entries)} entries", f"are too many for a bundle (at most {MAX_ENTRIES})")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_UNPACKED:
        raise _bad(f"{unpacked} bytes unpacked", f"are too many for a bundle (at most {MAX_UNPACKED >> 30} GiB)")
    if unpacked > FREE_UNPACKED and unpacked > MAX_RATIO * size:
        raise _bad(f"{unpacked} bytes unpacked", f"are more than {MAX_RATIO} times the zip, as in a zip bomb")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    parts = name.removesuffix("/").split("/")
    if _ODD.search(name) or re.match(r"[A-Za-z]:", name):
        raise _bad(name, "holds a control character, a backslash or a drive letter")
    if name != _FOLDER_ITSELF and any(part in ("", ".", "..") for part in parts):
        raise _bad(name, "is not a path inside the bundle")
    if len(name.encode()) > MAX_NAME_BYTES or any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        raise _bad(name, "is too long for a path")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > name.endswith("/"):
        raise _bad(name, "is neither a plain file nor a folder (a link or a device)")
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
        raise _bad(name, "is encrypted or compressed in an unusual way")


def _check_twins(entries: Iterable[zipfile.ZipInfo]) -> None:
    """No two entries that some filesystem takes for one (case, Unicode forms), no file that is also a folder."""
    files: set[str] = set()
    folders: set[str] = set()
    for entry in entries:
        name = unicodedata.normalize("NFC", entry.orig_filename.removesuffix("/")).casefold()
        parts = name.split("/")
        parents = {"/".join(parts[:count]) for count in range(1, len(parts))}
        twin = name in files if entry.is_dir() else name in files or name in folders
        if twin or parents & files:
            raise _bad(
                entry.orig_filename, "stands in the bundle twice (some filesystems ignore case and accents' form)"
            )
        folders |= parents
        (folders if entry.is_dir() else files).add(name)


def _bad(value: str, problem: str) -> InvalidInput:
    return InvalidInput("bundle", value, problem, _REMEDY)
