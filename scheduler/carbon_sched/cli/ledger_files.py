"""The ledger's entries for commands, from a copy or the server, and files that commands write."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from carbon_sched.domain.facts import Entry
    from carbon_sched.ledger.account import Period
    from carbon_sched.ledger.book import Book


READ_BYTES = 1 << 20


def book(file: Path, period: Period) -> Book:
    """The book of a copy for questions about a period: the chain is walked, and what the period needs is booked."""
    from carbon_sched.ledger.account import ALWAYS
    from carbon_sched.ledger.book import read_book
    from carbon_sched.ledger.index import Index

    if period == ALWAYS:
        return read_book(entries(file))
    index = Index()
    for entry in entries(file):
        index.add(entry)
    needed = index.needed(period)
    return needed.book(entries(file, needed.entries.tobytes()))


def entries(file: Path | None, wanted: bytes | None = None) -> Iterator[Entry]:
    """The ledger's entries: from a copy, or from the server; all of them, or those whose byte in `wanted` is not 0."""
    from carbon_sched.ledger.copy import entries_of

    lines = _lines(file)
    try:
        yield from entries_of(lines if wanted is None else compress(lines, wanted))
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
        raise InvalidInput("ledger", file, f"cannot be read ({error.strerror})", remedy) from None


def writable(path: Path) -> BinaryIO:
    """The file, open to be written; InvalidInput where it cannot be."""
    try:
        return path.open("wb")
    except OSError as error:
        raise InvalidInput("--output", path, f"cannot be written ({error.strerror})", "Name another file") from None
