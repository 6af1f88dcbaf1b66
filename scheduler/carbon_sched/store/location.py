"""Whether a path lies on a filesystem that SQLite can trust: its locks and shared memory do not work over a network."""

from __future__ import annotations

import re
from pathlib import Path

from carbon_sched.domain.errors import InvalidInput

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = frozenset(
    {"afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs"}
    | {"panfs", "pvfs2", "smb2", "smb3", "smbfs", "gfs2", "ocfs2"}
    | {"ceph-fuse", "gcsfuse", "goofys", "juicefs", "rclone", "s3fs", "sshfs"}
)
"""Filesystem types, without the prefix `fuse.`, whose files other machines can hold open too."""


def check_local_filesystem(path: Path, mounts: Path = MOUNTS) -> None:
    """Raise InvalidInput when `path` (existing or not) lies on a network filesystem.

    Where the system does not list its mounts as Linux does (macOS), nothing is checked.
    """
    if not mounts.exists():
        return
    kind = filesystem(path, mounts)
    if kind.removeprefix("fuse.") in NETWORK:
        remedy = "Give a folder on a local disk with --data-dir, or use PostgreSQL with --database"
        raise InvalidInput("database", path, f"lies on a network filesystem ({kind}), which can corrupt SQLite", remedy)


def filesystem(path: Path, mounts: Path = MOUNTS) -> str:
    """The type of the filesystem that holds `path`, as Linux names it; empty when no mount covers it."""
    real = path.resolve()  # through links, also where the last part does not exist yet
    found, depth = "", -1
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_unescape(before.split(" ")[4]))
        # of two mounts on one point, the later line covers the earlier one
        if real.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = after.split(" ")[0], len(point.parts)
    return found


def _unescape(text: str) -> str:
    """The kernel writes blank, tab, newline and backslash as octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
