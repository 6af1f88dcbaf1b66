"""Forecasts that said the opposite of what came are not acted on, until they have agreed for a while again."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from carbon_sched.domain.intensity import Kind, Outlook
from carbon_sched.domain.time import UTC
from carbon_sched.service.outlooks import Outlooks
from carbon_sched.service.trust import Trust, hourly
from tests.fakes.grid import reading

T0 = datetime(2026, 3, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def wave(at: datetime) -> float:
    return 300 + 200 * float(np.sin((at - T0) / HOUR / 24 * 2 * np.pi))


class Told:
    """The truth is a daily wave; `sign` -1 forecasts its mirror image."""

    def __init__(self) -> None:
        self.sign = 1
        self.truth_asked = 0

    def outlooks(self, zones, now, until):
        hours = [now + i * HOUR for i in range(48)]
        values = [300 + self.sign * (wave(at) - 300) for at in hours]
        return {
            zone: Outlook(
                zone,
                tuple(
                    replace(reading(zone, at, at + HOUR, value, now=now), kind=Kind.FORECAST)
                    for at, value in zip(hours, values, strict=True)
                ),
            )
            for zone in zones
        }

    def actual(self, zone, start, end, now):
        self.truth_asked += 1
        hours = int((end - start) / HOUR)
        return [
            reading(zone, start + i * HOUR, start + (i + 1) * HOUR, wave(start + i * HOUR), now=now)
            for i in range(hours)
        ]


def watched(told, trust, first, hours):
    """Verdict of every hour."""
    out = []
    for i in range(hours):
        now = first + i * HOUR
        out.append(trust.trusted(told.outlooks(["DE"], now, now + 7 * 24 * HOUR), now)["DE"])
    return out


def test_a_mirrored_feed_is_distrusted_within_a_day_and_believed_again_after_one():
    told = Told()
    trust = Trust(Outlooks(told))
    assert all(watched(told, trust, T0, 48))
    told.sign = -1
    lied = watched(told, trust, T0 + 48 * HOUR, 48)
    assert lied[0]
    assert not any(lied[24:])
    told.sign = 1
    healed = watched(told, trust, T0 + 96 * HOUR, 48)
    assert all(healed[26:])


def test_it_looks_once_an_hour():
    told = Told()
    trust = Trust(Outlooks(told))
    for minute in range(0, 180, 5):
        now = T0 + timedelta(minutes=minute)
        trust.trusted(told.outlooks(["DE"], now, now + HOUR), now)
    # nothing was forecast before the first hour, so its truth is not asked for
    assert told.truth_asked == 2


def test_hours_that_are_not_covered_are_unknown():
    known = hourly(
        [reading("DE", T0 + HOUR, T0 + 3 * HOUR, 100.0), reading("DE", T0 + 3 * HOUR, T0 + 4 * HOUR, 200.0)], T0, 24
    )
    assert np.isnan(known[0])
    assert known[1:4].tolist() == [100, 100, 200]
    assert np.isnan(known[4:]).all()
    assert np.isnan(hourly([], T0, 24)).all()
