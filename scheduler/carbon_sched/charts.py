"""Charts as SVG text: pure functions of numbers, for every page and statement that shows some. No scripts, no fonts.

Colours come from the page's custom properties (`--s1` to `--s6`, with defaults here) and its text colour, so that a
chart follows light and dark. Every mark has a `<title>`, which browsers show as a tooltip and readers read out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from math import floor, isfinite, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEFAULTS = ("#1b7f5c", "#6b7a90", "#d98324", "#4472c4", "#a3528f", "#7a9a2d")
WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 46
LETTER = 6.2
"""Usual width of a letter at the charts' text size, to keep labels inside."""


@dataclass(frozen=True)
class Axis:
    """What an axis shows: its label and range, and how its ticks read. Without `ticks` round numbers are marked."""

    label: str
    low: float
    high: float
    text: Callable[[float], str] = "{:g}".format
    ticks: Sequence[float] | None = None

    @staticmethod
    def holding(label: str, values: Sequence[float], text: Callable[[float], str] = "{:g}".format) -> Axis:
        """An axis that begins at zero, or below it, and holds these values with a little air."""
        known = [value for value in values if isfinite(value)]
        low, high = min([0.0, *known]), max([0.0, *known])
        air = 0.06 * (high - low or 1.0)
        return Axis(label, low - (air if low < 0 else 0.0), high + air, text)

    def marks(self) -> list[float]:
        """Where ticks are: at most about six."""
        if self.ticks is not None:
            return list(self.ticks)
        step = _nice((self.high - self.low) / 5)
        first = -floor(-self.low / step + 1e-9)
        return [round(i * step, 10) for i in range(int(first), floor(self.high / step + 1e-9) + 1)]


def _nice(rough: float) -> float:
    power = 10.0 ** floor(log10(max(rough, 1e-12)))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)


@dataclass(frozen=True)
class Series:
    """A named run of points; `style` is `line`, `dashed` or `area`; on the `right` axis where there is one."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 1
    style: str = "line"
    right: bool = False


@dataclass(frozen=True)
class Point:
    """One labelled mark of a scatter plot; a strong one is filled."""

    name: str
    x: float
    y: float
    colour: int = 1
    strong: bool = False


@dataclass(frozen=True)
class Bar:
    """One horizontal bar with its interval; a strong one is filled."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class _Frame:
    """Where numbers are on the picture."""

    x: Axis
    y: Axis
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = RIGHT
    parts: list[str] = field(default_factory=list)

    def at_x(self, value: float) -> float:
        return self.left + (value - self.x.low) / ((self.x.high - self.x.low) or 1) * (
            self.width - self.left - self.right
        )

    def at_y(self, value: float, axis: Axis | None = None) -> float:
        axis = axis or self.y
        share = (value - axis.low) / ((axis.high - axis.low) or 1)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def draw(self, text: str) -> None:
        self.parts.append(text)

    def grid(self, *, upright: bool = False) -> None:
        """Ticks and labels of both axes, with lines across at the ticks of one."""
        bottom = self.height - BOTTOM
        for mark in self.x.marks():
            at = self.at_x(mark)
            if upright:
                self.draw(_line(at, TOP, at, bottom, "grid"))
            self.draw(_text(at, bottom + 16, self.x.text(mark), anchor="middle"))
        for mark in [] if upright else self.y.marks():
            at = self.at_y(mark)
            self.draw(_line(self.left, at, self.width - self.right, at, "grid"))
            self.draw(_text(self.left - 7, at + 4, self.y.text(mark), anchor="end"))
        self.draw(_text((self.left + self.width - self.right) / 2, self.height - 8, self.x.label, anchor="middle"))
        self.draw(_text(4, TOP - 3, self.y.label))

    def svg(self, title: str) -> str:
        body = "".join(self.parts)
        return (
            f'<svg class="chart" viewBox="0 0 {_n(self.width)} {_n(self.height)}" role="img" '
            f'xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>{body}</svg>'
        )


STYLE = """
.chart { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
.chart text { fill: currentColor; opacity: .78; }
.chart text.strong { opacity: 1; font-weight: 600; }
.chart .grid { stroke: currentColor; opacity: .13; }
.chart .zero { stroke: currentColor; opacity: .5; }
.chart .whisker { stroke: currentColor; opacity: .65; stroke-width: 1.4; }
"""
"""What a page that shows charts must have in its style sheet."""


def scatter(title: str, points: Sequence[Point], x: Axis, y: Axis, *, level: tuple[str, float] | None = None) -> str:
    """Labelled points; `level` draws a dashed line across at a height, with its name."""
    frame = _Frame(x, y)
    frame.grid()
    if level is not None:
        at = frame.at_y(level[1])
        frame.draw(_line(frame.left, at, frame.width - frame.right, at, "zero", dashed=True))
        frame.draw(_text(frame.width - frame.right, at - 5, level[0], anchor="end"))
    places = [(frame.at_x(point.x), frame.at_y(point.y)) for point in points]
    boxes = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    for point in sorted(points, key=lambda point: not point.strong):
        cx, cy = frame.at_x(point.x), frame.at_y(point.y)
        fill = _colour(point.colour) if point.strong else "none"
        frame.draw(
            f'<circle cx="{_n(cx)}" cy="{_n(cy)}" r="{6 if point.strong else 4.5}" fill="{fill}" '
            f'stroke="{_colour(point.colour)}" stroke-width="2"><title>{escape(point.name)}: '
            f"{x.text(point.x)}, {y.text(point.y)}</title></circle>"
        )
        frame.draw(_label(frame, point, cx, cy, boxes))
    return frame.svg(title)


def _label(frame: _Frame, point: Point, cx: float, cy: float, boxes: list[tuple[float, float, float, float]]) -> str:
    """The point's name beside it, where it covers no other name or point; none where there is no such place."""
    width = LETTER * len(point.name)
    sides = [(cx + 10, "start"), (cx - 10, "end")]
    for dy in (4, -9, 17, -22, 30, -35, 43):
        for x, anchor in sides:
            left = x if anchor == "start" else x - width
            box = (left, cy + dy - 10, left + width, cy + dy + 3)
            inside = left > frame.left and box[2] < frame.width and box[3] < frame.height - BOTTOM and box[1] > 0
            if inside and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                return _text(x, cy + dy, point.name, anchor=anchor, strong=point.strong)
    return ""


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def bars(title: str, rows: Sequence[Bar], x: Axis) -> str:
    """Horizontal bars, one a row, with whiskers where an interval is known."""
    step, left = 25, 30 + LETTER * 1.08 * max((len(row.name) for row in rows), default=0)
    frame = _Frame(x, Axis("", 0, 1), height=TOP + BOTTOM + step * len(rows), left=left, right=52)
    frame.grid(upright=True)
    zero = frame.at_x(0)
    for i, row in enumerate(rows):
        top, end = TOP + i * step + 4, frame.at_x(row.value)
        opacity = 1 if row.strong else 0.45
        frame.draw(
            f'<rect x="{_n(min(zero, end))}" y="{top}" width="{_n(abs(end - zero))}" height="15" rx="2" '
            f'fill="{_colour(1 if row.strong else 2)}" opacity="{opacity}"><title>{escape(row.name)}: '
            f"{x.text(row.value)}</title></rect>"
        )
        frame.draw(_text(left - 9, top + 12, row.name, anchor="end", strong=row.strong))
        reach = end
        if row.low is not None and row.high is not None:
            a, reach = frame.at_x(row.low), max(end, frame.at_x(row.high))
            frame.draw(_line(a, top + 7.5, frame.at_x(row.high), top + 7.5, "whisker"))
        frame.draw(_text(max(reach, zero) + 6, top + 12, x.text(row.value), strong=row.strong))
    frame.draw(_line(zero, TOP, zero, frame.height - BOTTOM, "zero"))
    return frame.svg(title)


def columns(title: str, names: Sequence[str], groups: Sequence[tuple[str, Sequence[float | None]]], y: Axis) -> str:
    """Upright bars: for every name one bar of each group, side by side; None leaves a gap."""
    frame = _Frame(Axis("", 0, len(names), ticks=()), y)
    frame.grid()
    width = min(26.0, 0.76 * (WIDTH - LEFT - RIGHT) / max(len(names) * len(groups), 1))
    zero = frame.at_y(0)
    for i, name in enumerate(names):
        middle = frame.at_x(i + 0.5)
        frame.draw(_text(middle, HEIGHT - BOTTOM + 16, name, anchor="middle"))
        for k, (group, values) in enumerate(groups):
            value = values[i]
            if value is None:
                continue
            x, top = middle + (k - len(groups) / 2) * width, frame.at_y(value)
            frame.draw(
                f'<rect x="{_n(x + 1)}" y="{_n(min(top, zero))}" width="{_n(width - 2)}" '
                f'height="{_n(abs(zero - top))}" rx="2" fill="{_colour(k + 1)}"><title>{escape(group)}, '
                f"{escape(name)}: {y.text(value)}</title></rect>"
            )
    frame.draw(_line(frame.left, zero, frame.width - frame.right, zero, "zero"))
    _legend(frame, [(group, k + 1, "area") for k, (group, _) in enumerate(groups)])
    return frame.svg(title)


def lines(title: str, series: Sequence[Series], x: Axis, y: Axis, right: Axis | None = None) -> str:
    """Lines and areas over a common x axis; those marked `right` are read on the axis at the right."""
    frame = _Frame(x, y, right=RIGHT if right is None else LEFT)
    frame.grid()
    if right is not None:
        for mark in right.marks():
            frame.draw(_text(frame.width - frame.right + 7, frame.at_y(mark, right) + 4, right.text(mark)))
        frame.draw(_text(frame.width - 4, TOP - 3, right.label, anchor="end"))
    for one in sorted(series, key=lambda one: one.style != "area"):
        axis = right if one.right and right is not None else y
        points = [(frame.at_x(a), frame.at_y(b, axis)) for a, b in zip(one.xs, one.ys, strict=True) if isfinite(b)]
        frame.draw(_path(one, points, frame.at_y(max(axis.low, 0.0), axis)))
    _legend(frame, [(one.name, one.colour, one.style) for one in series])
    return frame.svg(title)


def _path(one: Series, points: Sequence[tuple[float, float]], floor_y: float) -> str:
    if not points:
        return ""
    text = " L".join(f"{_n(x)} {_n(y)}" for x, y in points)
    colour, name = _colour(one.colour), f"<title>{escape(one.name)}</title>"
    if one.style == "area":
        first, last = _n(points[0][0]), _n(points[-1][0])
        closed = f"M{first} {_n(floor_y)} L{text} L{last} {_n(floor_y)} Z"
        return f'<path d="{closed}" fill="{colour}" opacity=".55">{name}</path>'
    dashes = ' stroke-dasharray="5 4"' if one.style == "dashed" else ""
    return f'<path d="M{text}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}>{name}</path>'


def _legend(frame: _Frame, entries: Sequence[tuple[str, int, str]]) -> None:
    """What each colour means, below the axis."""
    widths = [30 + LETTER * len(name) for name, _, _ in entries]
    x, y = max(frame.left, (frame.width - sum(widths)) / 2), frame.height - 8
    for (name, colour, style), width in zip(entries, widths, strict=True):
        if style == "area":
            frame.draw(f'<rect x="{_n(x)}" y="{_n(y - 9)}" width="12" height="9" rx="2" fill="{_colour(colour)}"/>')
        else:
            dashes = ' stroke-dasharray="5 4"' if style == "dashed" else ""
            frame.draw(f'<path d="M{_n(x - 2)} {_n(y - 4)} h16" stroke="{_colour(colour)}" stroke-width="2"{dashes}/>')
        frame.draw(_text(x + 18, y, name))
        x += width


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{kind}"{dashes}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", strong: bool = False) -> str:
    marked = ' class="strong"' if strong else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{marked}>{escape(text)}</text>' if text else ""


def _colour(number: int) -> str:
    index = (number - 1) % len(DEFAULTS)
    return f"var(--s{index + 1}, {DEFAULTS[index]})"


def _n(value: float) -> str:
    """A coordinate, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")
