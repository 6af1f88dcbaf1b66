"""A document of sections with tables and charts: what every format for people is rendered from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; columns from `right_from` on hold figures, and are set right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    right_from: int | None = None


@dataclass(frozen=True)
class Chart:
    """A picture as SVG text (`charts.py`), and what to read from it; formats without pictures leave it out."""

    title: str
    svg: str


@dataclass(frozen=True)
class Section:
    """One numbered section; `said` are sentences, in the order of reading."""

    title: str
    said: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True)
class Figure:
    """One headline: what it is, its value, and a word beside it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Document:
    """Title, a line below it, the figures to see first, and the sections."""

    title: str
    subtitle: str
    figures: tuple[Figure, ...]
    sections: tuple[Section, ...]
