"""How errors end: our own as one message and their exit code, bugs as a pointer to a file. Never a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from carbon_sched import __version__
from carbon_sched.cli.clock import now
from carbon_sched.cli.output import fail
from carbon_sched.data_dir import default_data_dir
from carbon_sched.domain.errors import CarbonSchedError, Internal

if TYPE_CHECKING:
    from pathlib import Path

LOG_NAME = "errors.log"


def report(error: Exception) -> int:
    """Tell the user what went wrong; returns the exit code."""
    if isinstance(error, CarbonSchedError):
        fail(str(error))
        return error.exit_code
    kind = type(error).__name__
    try:
        where = f"details are in {_keep(error)}"
    except OSError as problem:
        where = f"details could not be written to {default_data_dir()} ({problem.strerror})"
    fail(f"internal error ({kind}: {error}): a bug in carbon-sched {__version__}; {where}{_other_version()}")
    return Internal.exit_code


def _other_version() -> str:
    """Words for what explains many a bug: that the local server is of another version."""
    from carbon_sched.server_files import ServerFiles

    try:
        running = None if os.environ.get("CARBON_SCHED_URL") else ServerFiles(default_data_dir()).read()
    except CarbonSchedError:
        return ""
    if running is None or running.version == __version__:
        return ""
    return f". The server is carbon-sched {running.version}: update the older of the two"


def _keep(error: Exception) -> Path:
    """Append the traceback to a file that only the user can read. No arguments: they may hold secrets."""
    folder = default_data_dir()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / LOG_NAME
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    head = f"{now().isoformat()} carbon-sched {__version__}, Python {sys.version.split()[0]}\n"
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(head + "".join(traceback.format_exception(error)) + "\n")
    return path
