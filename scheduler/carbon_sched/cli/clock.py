"""The command line's own clock and time zone: the one edge beside compose.py, which would load every adapter."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo
    from zoneinfo import ZoneInfo

LOCALTIME = "/etc/localtime"


def now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(timezone.utc)  # noqa: TID251 - see the module's own words


def local_zone() -> tzinfo:
    """The user's time zone with its rules (`TZ`, then the system's); a fixed offset only where no rules are found."""
    name = os.environ.get("TZ", "").lstrip(":")
    found = _by_name(name) if name else _of_system()
    return found or now().astimezone().tzinfo or timezone.utc


def _by_name(name: str) -> ZoneInfo | None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _of_system() -> ZoneInfo | None:
    target = os.path.realpath(LOCALTIME)
    _, found, name = target.partition("zoneinfo/")
    if found and (zone := _by_name(name.removeprefix("posix/"))):
        return zone
    from zoneinfo import ZoneInfo

    try:
        with open(LOCALTIME, "rb") as file:  # noqa: PTH123 - pathlib is loaded only where it pays
            return ZoneInfo.from_file(file)
    except (ValueError, OSError):
        return None
