"""When a cron expression is due, in a time zone with summer time.

Expressions are read as Debian's cron reads them. What stands for a fixed hour and minute is due once a day also in the
two nights when clocks change: in the hour that is left out, at its end; in the hour that comes twice, the first time.
What stands for every hour, or for every so many minutes, is due by real time, and sees no gap and no double hour.
"""

from __future__ import annotations

from datetime import timezone
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from datetime import datetime

FIELDS = 5
REMEDY = 'Write "MINUTE HOUR DAY MONTH WEEKDAY", for example "30 2 * * 1-5"'


def next_due(cron: str, zone: str, after: datetime) -> datetime:
    """The first moment later than `after`, in UTC; InvalidInput for an expression or a zone that is none."""
    if len(cron.split()) != FIELDS:
        raise InvalidInput("cron", cron, f"does not have {FIELDS} fields", REMEDY)
    try:
        local = next(CronSim(cron, after.astimezone(_zone(zone))))
    except CronSimError as error:
        raise InvalidInput("cron", cron, f"is not a cron expression ({str(error).lower()})", REMEDY) from None
    except StopIteration:
        raise InvalidInput("cron", cron, "names no day of the next fifty years", REMEDY) from None
    return local.astimezone(timezone.utc)


def last_due(cron: str, zone: str, first: datetime, now: datetime) -> tuple[datetime, datetime]:
    """The last moment from `first` on that is not after `now` (at least `first` itself), and the one after it."""
    due, following = first, next_due(cron, zone, first)
    while following <= now:
        due, following = following, next_due(cron, zone, following)
    return due, following


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        remedy = "Use a name of the IANA database, for example Europe/Berlin or UTC"
        raise InvalidInput("zone", name, "is not a time zone", remedy) from None
