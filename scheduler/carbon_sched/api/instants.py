"""Times in queries."""

from __future__ import annotations

from datetime import datetime

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import utc


def aware(field: str, value: datetime | None) -> datetime | None:
    """The instant in UTC; InvalidInput where the zone is missing, or UTC has no such year."""
    try:
        return utc(value) if value else None
    except ValueError as error:
        remedy = "Use RFC 3339 with a zone, for example 2026-11-23T18:00:00Z"
        raise InvalidInput(field, value, f"is no instant ({error})", remedy) from None
