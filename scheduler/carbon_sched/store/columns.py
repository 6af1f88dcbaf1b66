"""Column types that mean the same on SQLite and PostgreSQL: instants, JSON documents, text from outside."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, Text
from sqlalchemy.types import TypeDecorator

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.time import UTC, utc
from carbon_sched.ledger.encoding import valid_text

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

Serial = BigInteger().with_variant(Integer, "sqlite")
"""A key the database counts up; SQLite does that for INTEGER only."""


def to_micros(value: datetime) -> int:
    """Microseconds since 1970-01-01T00:00Z, exactly."""
    return (utc(value) - EPOCH) // MICROSECOND


def from_micros(value: int) -> datetime:
    """Inverse of `to_micros`."""
    return EPOCH + value * MICROSECOND


class Instant(TypeDecorator[datetime]):
    """An aware datetime as integer microseconds since 1970: exact, sortable, alike on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """To the database."""
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database."""
        return None if value is None else from_micros(value)


class Document(TypeDecorator[Any]):
    """A JSON value as ASCII text. JSON's escapes keep what a text column cannot hold (NUL, lone surrogates)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """To the database; raises ValueError for NaN and infinities, which are no JSON."""
        return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """From the database."""
        return None if value is None else json.loads(value)


class OutsideText(TypeDecorator[str]):
    """Text that comes from a cluster or a person and is only shown.

    PostgreSQL holds no NUL, neither database holds lone surrogates; U+FFFD stands for them, so that a strange message
    never keeps a job from moving on.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """To the database."""
        return None if value is None else clean_text(value)


class CauseText(TypeDecorator[Cause]):
    """A cause by its word. One that newer code wrote and this code does not know is read as none."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Cause | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """To the database."""
        return None if value is None else Cause(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> Cause | None:  # noqa: ARG002
        """From the database."""
        return Cause(value) if value in _CAUSES else Cause.NONE


_CAUSES = frozenset(cause.value for cause in Cause)


def clean_text(value: str) -> str:
    """`value` with U+FFFD for NUL and lone surrogates."""
    return valid_text(value.replace("\0", "\ufffd"))
