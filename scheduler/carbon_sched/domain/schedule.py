"""A job that is submitted again and again, at the moments a cron expression names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class Schedule:
    """What is submitted when, and how the last time went.

    `cron` has the five fields of Vixie cron, read in the time zone `zone` (a name of the IANA database).
    `sealed_request` is the request as it was accepted, encrypted, since its variables often hold passwords. `next_at`
    is the next moment; `problem` is why the last one brought no job, empty where it did.
    """

    schedule_id: str
    cron: str
    zone: str
    name: str
    team: str
    submitter: str
    sealed_request: str
    created_at: datetime
    next_at: datetime
    last_job: str = ""
    problem: str = ""
    stopped_at: datetime | None = None
