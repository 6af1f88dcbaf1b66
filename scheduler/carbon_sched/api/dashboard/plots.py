"""Charts that fill whatever width they are given: SVG whose places are percentages, so that text keeps its size.

Curves lie in an inner picture that is stretched; their lines keep their width (`vector-effect`). Colours are classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from carbon_sched.api.dashboard.figures import tone
from carbon_sched.domain.intensity import Reading
from carbon_sched.ledger.chargeback import Charge

WIDE, HIGH = 1000, 100
"""The inner picture's own units."""
LEAST_COLUMNS = 14
"""A few columns are not drawn wider than these many would be."""
LABEL = 12
"""Percent of the width between names of columns; on a phone every other name is left out."""


@dataclass(frozen=True)
class Span:
    """The time that a chart shows."""

    start: datetime
    end: datetime

    def at(self, moment: datetime) -> float:
        """Where a moment is, in percent of the width; at the border where it is outside."""
        share = (moment - self.start) / (self.end - self.start)
        return 100 * min(1.0, max(0.0, share))

    def ticks(self, most: int = 8) -> list[datetime]:
        """Round hours or days inside, at most so many."""
        steps = (1, 2, 3, 6, 12, 24, 48, 168, 336, 720, 1440, 2160)
        hours = (self.end - self.start) / timedelta(hours=1)
        step = timedelta(hours=next((one for one in steps if hours / one <= most), steps[-1]))
        midnight = self.start.replace(hour=0, minute=0, second=0, microsecond=0)
        first = midnight + step * -(-(self.start - midnight) // step)
        return [first + step * number for number in range(int((self.end - first) / step) + 1)]


@dataclass(frozen=True)
class Figures:
    """The numbers behind a chart; the names of its columns say the units."""

    head: tuple[str, ...]
    rows: Sequence[Sequence[str | float]]


def picture(
    height: int, label: str, *parts: str | Markup, kind: str = "", role: str = "img", figures: Figures | None = None
) -> Markup:
    """A chart of this height in pixels; `label` says in words what it shows. One with links in it is a `group`.

    Parts are markup made here, of numbers and classes; whatever people wrote is escaped where it is put in. `figures`
    are what is exported of it, where no table beside it says the same.
    """
    drawn = Markup("".join(parts))  # noqa: S704 - see above
    kept = "" if figures is None else Markup(' data-rows="{}"').format(json.dumps(vars(figures)))
    return Markup('<svg class="plot {}" width="100%" height="{}" role="{}" aria-label="{}"{}>{}</svg>').format(
        kind, height, role, label, kept, drawn
    )


def stretched(top: int, height: int, *parts: str) -> str:
    """The inner picture, from `top` on."""
    return (
        f'<svg x="0" y="{top}" width="100%" height="{height}" viewBox="0 0 {WIDE} {HIGH}" '
        f'preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'
    )


def steps(points: Sequence[tuple[float, float, float]], most: float) -> str:
    """A path over `(from, to, value)`, percent of the width, that steps from value to value."""
    pieces = [
        f"{'M' if not number else 'L'}{_n(10 * a)} {_y(value, most)}H{_n(10 * b)}"
        for number, (a, b, value) in enumerate(points)
    ]
    return "".join(pieces)


def band(points: Sequence[tuple[float, float, float, float]], most: float) -> str:
    """A closed path between `low` and `high` of `(from, to, low, high)`."""
    if not points:
        return ""
    upper = steps([(a, b, high) for a, b, _, high in points], most)
    lower = "".join(f"L{_n(10 * b)} {_y(low, most)}H{_n(10 * a)}" for a, b, low, _ in reversed(points))
    return f'<path class="band" d="{upper}{lower}Z"/>'


def area(points: Sequence[tuple[float, float, float]], most: float) -> str:
    """What lies below the steps."""
    if not points:
        return ""
    return f'<path class="area" d="{steps(points, most)}V{HIGH}H{_n(10 * points[0][0])}Z"/>'


def line(points: Sequence[tuple[float, float, float]], most: float, kind: str = "line") -> str:
    """The steps as a line."""
    return f'<path class="{kind}" d="{steps(points, most)}" vector-effect="non-scaling-stroke"/>' if points else ""


def forecast(readings: Sequence[Reading], span: Span, label: str, most_mg: int) -> Markup:
    """A small picture of one zone: its expected intensity with the band of the forecast, and a ribbon of colours."""
    inside = [(span.at(one.start), span.at(one.end), one) for one in readings if _within(one, span)]
    points = [(a, b, float(one.intensity_mg_per_kwh)) for a, b, one in inside]
    bands = [
        (a, b, float(one.low_mg_per_kwh), float(one.high_mg_per_kwh))
        for a, b, one in inside
        if one.low_mg_per_kwh is not None and one.high_mg_per_kwh is not None
    ]
    curve = stretched(0, 52, area(points, most_mg), band(bands, most_mg), line(points, most_mg))
    return picture(60, label, curve, *ribbon(points, 55, 5))


def _within(reading: Reading, span: Span) -> bool:
    return reading.start < span.end and reading.end > span.start


def intensities(readings: Iterable[Reading], span: Span) -> list[tuple[float, float, float]]:
    """What of the readings lies in the time of a chart: from and to in percent of the width, mg/kWh."""
    return [
        (span.at(one.start), span.at(one.end), float(one.intensity_mg_per_kwh))
        for one in readings
        if _within(one, span)
    ]


def ribbon(points: Iterable[tuple[float, float, float]], top: float, height: float) -> list[str]:
    """A strip coloured by intensity (`from, to, mg/kWh`); neighbours of one colour are one piece."""
    pieces: list[tuple[str, float, float]] = []
    for a, b, mg_per_kwh in points:
        kind = tone(mg_per_kwh / 1000)
        if pieces and pieces[-1][0] == kind and abs(pieces[-1][2] - a) < 0.01:
            pieces[-1] = (kind, pieces[-1][1], b)
        else:
            pieces.append((kind, a, b))
    return [
        f'<rect class="{kind}" x="{_n(a)}%" width="{_n(b - a)}%" y="{top}" height="{height}"/>' for kind, a, b in pieces
    ]


def hours(span: Span, top: int, bottom: int, most: int = 8) -> list[str]:
    """Upright lines at round hours, with their names below; on a phone every other name is left out."""
    found = []
    for number, moment in enumerate(span.ticks(most)):
        at = span.at(moment)
        midnight = moment.hour == 0
        text = f"{moment.day} {moment:%b}" if midnight else f"{moment:%H:%M}"
        kind = "tick day" if midnight else "tick"
        found.append(f'<line class="{kind}" x1="{_n(at)}%" x2="{_n(at)}%" y1="{top}" y2="{bottom}"/>')
        if 2 < at < 98:
            other = " other" if number % 2 and not midnight else ""
            found.append(
                f'<text class="{kind}{other}" x="{_n(at)}%" y="{bottom + 14}" text-anchor="middle">{text}</text>'
            )
    return found


def upright(span: Span, moment: datetime, bottom: int, kind: str) -> str:
    """A line at one moment, such as now."""
    at = _n(span.at(moment))
    return f'<line class="{kind}" x1="{at}%" x2="{at}%" y1="0" y2="{bottom}"/>'


def meter(used: float | None, total: float, label: str) -> Markup:
    """How much of something is in use, as a bar."""
    share = 0.0 if not total or used is None else min(1.0, used / total)
    kind = "unknown" if used is None else "full" if share > 0.95 else "part"
    return picture(
        6,
        label,
        '<rect class="track" width="100%" height="6" rx="3"/>',
        f'<rect class="{kind}" width="{_n(100 * share)}%" height="6" rx="3"/>' if share else "",
        kind="meter",
    )


def shares(parts: Sequence[tuple[str, int]], whole: int, label: str) -> Markup:
    """Parts of a whole side by side, each with the class of its colour."""
    at, drawn = 0.0, []
    for kind, amount in parts:
        width = 100 * amount / whole if whole else 0.0
        if width > 0:
            drawn.append(f'<rect class="{kind}" x="{_n(at)}%" width="{_n(width)}%" height="8"/>')
        at += width
    return picture(8, label, '<rect class="track" width="100%" height="8"/>', *drawn, kind="shares")


def evidence(row: Charge, whole_ug: int) -> Markup:
    """A charge's share of all, by what it rests on."""
    parts = (("c1", row.charged.co2e_ug), ("c2", row.self_reported.co2e_ug), ("c6", row.ray.co2e_ug))
    return shares(parts, whole_ug, f"{row.value or 'none'}: share by evidence")


def columns(values: Sequence[tuple[str, int]], label: str, text: Callable[[int], str], *, unit: str) -> Markup:
    """One column per name, such as a day; every value, in `unit`, can be read by programs and on hovering."""
    most = max((value for _, value in values), default=0) or 1
    width = 100 / max(len(values), LEAST_COLUMNS)
    gap = min(0.3 * width, 0.6)
    drawn = ['<line class="zero" x1="0" x2="100%" y1="120" y2="120"/>']
    top = Markup('<text class="tick" x="100%" y="16" text-anchor="end">at most {}</text>').format(text(most))
    drawn += ['<line class="tick" x1="0" x2="100%" y1="8" y2="8"/>', top]
    every = math.ceil(LABEL / width)
    for number, (name, value) in enumerate(values):
        high = 112 * max(value, 0) / most
        title = Markup("<title>{}: {}</title>").format(name, text(value))
        drawn.append(
            f'<rect class="column" x="{_n(number * width + gap)}%" width="{_n(width - 2 * gap)}%" '
            f'y="{_n(120 - high)}" height="{_n(max(high, 0.5 if value else 0))}">{title}</rect>'
        )
        if number % every == 0:
            where = ("0", "start") if number == 0 else (f"{_n((number + 0.5) * width)}%", "middle")
            kind = "tick other" if number // every % 2 else "tick"
            drawn.append(
                Markup('<text class="{}" x="{}" y="136" text-anchor="{}">{}</text>').format(kind, *where, name)
            )
    return picture(142, label, *drawn, kind="columns", figures=Figures(("period", unit), values))


def burn(used_share: float, reserved_share: float, time_share: float, forecast_share: float | None) -> Markup:
    """A budget's limit as a bar: used, reserved, and marks for the time that is over and what it will come to."""
    most = max(1.0, used_share + reserved_share, forecast_share or 0.0)
    used, reserved, limit, over = (_n(100 * share / most) for share in (used_share, reserved_share, 1.0, time_share))
    kind = "full" if used_share + reserved_share > 1 else "used"
    drawn = [
        f'<rect class="track" width="{limit}%" y="4" height="10"/>',
        f'<rect class="{kind}" width="{used}%" y="4" height="10"/>',
        f'<rect class="reserved" x="{used}%" width="{reserved}%" y="4" height="10"/>',
        f'<line class="elapsed" x1="{over}%" x2="{over}%" y1="0" y2="18"/>',
        f'<line class="limit" x1="{limit}%" x2="{limit}%" y1="2" y2="16"/>' if most > 1 else "",
    ]
    if forecast_share is not None:
        drawn.append(f'<circle class="expected" cx="{_n(100 * forecast_share / most)}%" cy="9" r="4"/>')
    said = ((used_share, "used"), (reserved_share, "reserved"), (time_share, "of the time over"))
    label = ", ".join(f"{100 * share:.0f} % {what}" for share, what in said)
    return picture(18, label, *drawn, kind="burn")


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _y(value: float, most: float) -> str:
    """Upside down, with a little air above."""
    return _n(HIGH * (1 - 0.94 * value / (most or 1)))
