"""Questions of the book as pages ask them: by a key, as the ledger stands."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from carbon_sched.api.context import Context
from carbon_sched.ledger.book import Book
from carbon_sched.service.answers import Answer

Value = TypeVar("Value")


def answer(
    context: Context, key: Hashable, read: Callable[[Callable[[Book], Any]], Any], question: Callable[[Book], Value]
) -> Answer[Value] | None:
    """The newest answer that comes soon; None while the first one is computed."""
    with context.store.transaction(write=False) as tx:
        size, _ = tx.ledger_head()
    return context.answers.of(key, read, question, size=size)
