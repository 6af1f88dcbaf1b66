"""Numbers and times as pages show them: the one place where they become text.

Each number stands in a `<data>` element whose `value` is the exact figure of the API, so that nothing is lost by being
readable; its text is that of statements (`ledger.figures`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from markupsafe import Markup

from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.domain.units import UG_PER_G, UJ_PER_J, UJ_PER_KWH
from carbon_sched.ledger import figures as ledger
from carbon_sched.ledger.lifecycle import PerUnit
from carbon_sched.wire import ReceiptWindow

UNKNOWN = Markup('<span class="unknown">unknown</span>')
TONES = (50, 120, 200, 300, 420, 560, 700)
"""Borders in g/kWh between the colours of an intensity, clean to dirty."""
MINUTE, HOUR, DAY = 60, 3_600, 86_400


def data(value: object, text: str, unit: str = "") -> Markup:
    """A figure: the exact value in its unit for programs, the text for people. All three are made here, of numbers."""
    of = f' data-unit="{unit}"' if unit else ""
    return Markup(f'<data value="{value}"{of}>{text}</data>')  # noqa: S704 - see above


def co2e(ug: int | None) -> Markup:
    """Micrograms of CO2e."""
    return UNKNOWN if ug is None else data(ug, ledger.co2e(ug), "ug CO2e")


def co2e_g(grams: float | None) -> Markup:
    """Grams of CO2e, as the API gives expectations."""
    return UNKNOWN if grams is None else data(repr(grams), ledger.co2e(round(grams * UG_PER_G)), "g CO2e")


def change_g(grams: float | None) -> Markup:
    """Grams more or less than something, with their sign."""
    if grams is None:
        return UNKNOWN
    sign = "+" if grams > 0 else ""
    return data(repr(grams), sign + ledger.co2e(round(grams * UG_PER_G)), "g CO2e")


def change_ug(ug: int) -> Markup:
    """Micrograms more or less than something, with their sign."""
    return data(ug, ("+" if ug > 0 else "") + ledger.co2e(ug), "ug CO2e")


def energy(uj: int | None) -> Markup:
    """Microjoules."""
    return UNKNOWN if uj is None else data(uj, ledger.kwh(uj), "uJ")


def energy_kwh(kwh: float | None) -> Markup:
    """Kilowatt-hours, as the API gives them."""
    return UNKNOWN if kwh is None else data(repr(kwh), ledger.kwh(round(kwh * UJ_PER_KWH)), "kWh")


def energy_j(joules: float) -> Markup:
    """Joules, as receipts give devices."""
    return data(repr(joules), ledger.kwh(round(joules * UJ_PER_J)), "J")


def intensity(g_per_kwh: float | None) -> Markup:
    """Grams per kWh, without the unit."""
    return UNKNOWN if g_per_kwh is None else data(repr(g_per_kwh), f"{g_per_kwh:.0f}", "g/kWh")


def tone(g_per_kwh: float | None) -> str:
    """The class of an intensity's colour."""
    return "tone-none" if g_per_kwh is None else f"tone-{sum(g_per_kwh >= border for border in TONES)}"


def power(watts: float | None) -> Markup:
    """Watts."""
    if watts is None:
        return UNKNOWN
    return data(repr(watts), f"{watts / 1000:.2f} kW" if abs(watts) >= 1000 else f"{watts:.0f} W", "W")


def ratio(value: float | None) -> Markup:
    """A PUE, or another plain number with two decimals."""
    return UNKNOWN if value is None else data(repr(value), f"{value:.2f}")


def count(value: float | None) -> Markup:
    """Things that are counted; halves of a GPU too."""
    return UNKNOWN if value is None else data(repr(value), f"{value:,.4g}" if value % 1 else f"{int(value):,}")


def share(part: float | None) -> Markup:
    """A share of one, as percent."""
    return UNKNOWN if part is None else data(repr(part), f"{100 * part:.1f} %")


def change(part: float) -> Markup:
    """By what share something is more or less, as percent with a sign."""
    return data(repr(part), f"{100 * part:+.1f} %")


def part_of(part: int, whole: int, unit: str) -> Markup:
    """A part of a whole, as percent rounded down as in statements; the exact value is the part, in its unit."""
    return data(part, ledger.percent(part, whole), unit)


def per_unit(one: PerUnit) -> Markup:
    """CO2e of electricity of one unit of work, in grams."""
    grams = one.co2e_ug / UG_PER_G / (one.amount_millionths / 1_000_000) if one.amount_millionths else None
    return UNKNOWN if grams is None else data(repr(grams), f"{grams:.3g} g", "g CO2e")


def duration(seconds: float | None) -> Markup:
    """A length of time in its two largest units."""
    if seconds is None:
        return UNKNOWN
    return data(repr(seconds), length(seconds), "s")


def length(seconds: float) -> str:
    """As `2 h 14 min`."""
    whole = round(abs(seconds))
    if whole < MINUTE:
        return f"{seconds:.1f} s" if whole < 10 and seconds % 1 else f"{whole} s"
    names = ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s"))
    first = next(number for number, (size, _) in enumerate(names) if whole >= size)
    (size, unit), (small, smaller) = names[first], names[first + 1]
    rest = whole % size // small
    return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")


def instant(at: str | datetime | None, now: datetime | None = None) -> Markup:
    """A moment in UTC; the year only where it is not this one."""
    if at is None:
        return Markup('<span class="unknown">-</span>')
    moment = from_rfc3339(at) if isinstance(at, str) else at
    form = "%-d %b %H:%M" if now is None or now.year == moment.year else "%-d %b %Y %H:%M"
    return Markup('<time datetime="{}">{}</time>').format(to_rfc3339(moment), moment.strftime(form))


def ago(at: str | datetime | None, now: datetime) -> Markup:
    """How long before or after now, with the moment itself for readers and on hovering."""
    if at is None:
        return Markup('<span class="unknown">-</span>')
    moment = from_rfc3339(at) if isinstance(at, str) else at
    seconds = (now - moment).total_seconds()
    text = "now" if abs(seconds) < 1 else f"{length(seconds)} ago" if seconds > 0 else f"in {length(-seconds)}"
    stamp = to_rfc3339(moment)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp, stamp, text)


def text(value: object) -> str:
    """What people wrote, on one line, without characters that steer or hide."""
    return ledger.shown(str(value))


def lines(text: str) -> str:
    """Output of a job: its lines as they are, each without characters that steer or hide."""
    return "\n".join(ledger.shown(line.expandtabs(4)) for line in text.splitlines())


def window_length(window: ReceiptWindow) -> Markup:
    """How long a stretch of a job was."""
    return duration((from_rfc3339(window["end"]) - from_rfc3339(window["start"])).total_seconds())


def first_of_month(now: datetime) -> datetime:
    """When the month began (UTC)."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def hour_of(now: datetime) -> datetime:
    """When the hour began."""
    return now - timedelta(minutes=now.minute, seconds=now.second, microseconds=now.microsecond)


FILTERS = {
    made.__name__: made
    for made in (
        co2e, co2e_g, change_g, change_ug, energy, energy_kwh, energy_j, intensity, tone, power, ratio, count, share,
        change, duration, instant, ago, text, lines, window_length, part_of, per_unit,
    )
}  # fmt: skip
