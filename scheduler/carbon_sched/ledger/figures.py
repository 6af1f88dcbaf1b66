"""Figures and text for people: from exact integers, the same on every machine, and harmless wherever they are shown.

Names come from users: control characters never reach a terminal, no cell starts a spreadsheet formula, Markdown and its
HTML stay text.
"""

from __future__ import annotations

import re

from carbon_sched.domain.units import PPM, UG_PER_G, UJ_PER_KWH

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\xa0\xad\u061c\u115f\u1160\u1680\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164"
    "\ud800-\udfff\ue000-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\U000e0000-\U0010ffff]"
)
"""Controls, marks of direction, invisible and odd spaces, private use, tags, and what is no character."""


def safe_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: text that could start one gets a leading apostrophe."""
    if isinstance(value, str):
        text = shown(value)
        return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") and not _is_number(text) else text
    return value


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit() and text.isascii()


def escaped(text: str) -> str:
    """Plain text in Markdown: no HTML, no table border, no markup."""
    for special in ("\\", "`", "*", "_", "[", "]", "|", "#"):
        text = text.replace(special, f"\\{special}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shown(text: str) -> str:
    """One line without control characters: they could steer a terminal, turn its direction or start a row of their own.

    The list is ours, since Python's own (`str.isprintable`) grows with Unicode from version to version.
    """
    return _UNSEEN.sub("\ufffd", text)


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`, `2 entries`."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else many}"


def percent(part: int, whole: int) -> str:
    """One decimal, rounded down, so that 100.0 % means all of it."""
    if not whole:
        return "-"
    per_mille = 1000 * part // whole
    return f"{per_mille // 10}.{per_mille % 10} %"


def kwh(energy_uj: int) -> str:
    """Microjoules as kWh, or MWh from ten of them on."""
    return _scaled(energy_uj, ((10_000 * UJ_PER_KWH, 1_000 * UJ_PER_KWH, "MWh"), (0, UJ_PER_KWH, "kWh")))


def co2e(co2e_ug: int) -> str:
    """Micrograms as g, kg from ten of them on, or t."""
    kilo, mega = 1_000 * UG_PER_G, 1_000_000 * UG_PER_G
    return _scaled(co2e_ug, ((10 * mega, mega, "t"), (10 * kilo, kilo, "kg"), (0, UG_PER_G, "g")))


def _scaled(value: int, units: tuple[tuple[int, int, str], ...]) -> str:
    scale, unit = next((scale, unit) for least, scale, unit in units if abs(value) >= least)
    return f"{significant(value, scale) if value else 0} {unit}"


def decimal(value: int, scale: int, digits: int = 9) -> str:
    """`value / scale` with so many decimals, rounded half up, from integers alone: 1_500_000 / 10**6 is 1.500000000."""
    one = 10**digits
    scaled = (2 * abs(value) * one + scale) // (2 * scale)
    whole, fraction = divmod(scaled, one)
    return f"{'-' if value < 0 and scaled else ''}{whole}.{fraction:0{digits}d}"


def significant(value: int, scale: int) -> str:
    """`value / scale` with three decimals, or as many as show three digits of a small value, at most nine."""
    whole, fraction = decimal(value, scale).split(".")
    leading = len(fraction) - len(fraction.lstrip("0"))
    return decimal(value, scale, 3 if whole not in ("0", "-0") else min(9, leading + 3))


def ratio(value_ppm: int) -> str:
    """Parts per million as a ratio: 1_200_000 is `1.200`."""
    return significant(value_ppm, PPM)


def ppm_percent(value_ppm: int) -> str:
    """Parts per million as percent with one decimal, rounded down."""
    return percent(value_ppm, PPM)
