"""The ledger's entries for commands, from a copy or the server, and files that commands write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from carbon_sched.domain.facts import Entry


READ_BYTES = 1 << 20


def entries(file: Path | None) -> Iterator[Entry]:
    """The ledger's entries: from a copy, or from the server."""
    from carbon_sched.ledger.copy import entries_of

    try:
        yield from entries_of(_lines(file))
    except ValueError as error:
        raise InvalidInput("ledger", file or "the server", str(error), "Make a copy with `audit export`") from None


def _lines(file: Path | None) -> Iterator[bytes]:
    if file is None:
        from carbon_sched.cli.connection import connect

        yield from connect().client.entry_lines()
        return
    try:
        with file.open("rb", buffering=READ_BYTES) as lines:
            yield from lines
    except OSError as error:
        remedy = "Name a copy made by `audit export`"
        raise InvalidInput("--file", file, f"cannot be read ({error.strerror})", remedy) from None


def writable(path: Path) -> BinaryIO:
    """The file, open to be written; InvalidInput where it cannot be."""
    try:
        return path.open("wb")
    except OSError as error:
        raise InvalidInput("--output", path, f"cannot be written ({error.strerror})", "Name another file") from None
