"""A document as one HTML file: no script, nothing loaded from elsewhere, light and dark, and made to be printed."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from carbon_sched import charts
from carbon_sched.ledger.figures import shown

if TYPE_CHECKING:
    from carbon_sched.ledger.documents.document import Chart, Document, Figure, Section, Table

STYLE = """
:root { color-scheme: light dark; --s1: #1b7f5c; --s2: #6b7a90; --s3: #d98324; --s4: #4472c4; --s5: #a3528f; }
@media (prefers-color-scheme: dark) { :root { --s1: #45b98c; --s2: #93a1b5; --s3: #eba355; --s4: #7da2e6; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2.2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; }
h2 { font-size: 1.08rem; margin: 2.4rem 0 .4rem; }
h3 { font-size: .92rem; margin: 1rem 0 .2rem; font-weight: 600; }
p { margin: .25rem 0; max-width: 52rem; overflow-wrap: anywhere; }
.quiet { opacity: .72; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .8rem; margin: 1.4rem 0; }
.figure { border-top: 3px solid var(--s1); padding: .5rem 0; }
.figure b { display: block; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.figure span { display: block; font-size: .84rem; opacity: .76; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; min-width: 40%; }
th, td { padding: .26rem .6rem .26rem 0; text-align: left; vertical-align: top; max-width: 26rem; }
td { overflow-wrap: break-word; }
.short { white-space: nowrap; }
th { font-weight: 600; font-size: .76rem; border-bottom: 1px solid currentColor; vertical-align: bottom; }
tbody tr + tr td { border-top: 1px solid color-mix(in srgb, currentColor 14%, transparent); }
.right { text-align: right; white-space: nowrap; }
figure { margin: .8rem 0; max-width: 46rem; } figcaption { font-size: .84rem; opacity: .76; }
nav { columns: 3 13rem; font-size: .84rem; margin: 1rem 0; } nav a { display: block; color: inherit; }
@media print { html { font-size: 10px; } body { margin: 0; max-width: none; font-size: 10.5px; } nav { display: none; }
  p { max-width: none; }
  h2, h3, p:not(:has(+ h2)) { break-after: avoid; } tr, figure { break-inside: avoid; } .scroll { overflow: visible; } }
"""


SHORT = 24
"""Letters of a cell that is kept in one line: a time has 20."""


def html(document: Document) -> str:
    """The whole file; every text is escaped, and no markup comes from it."""
    sections = "\n".join(_section(number, section) for number, section in enumerate(document.sections))
    contents = "".join(
        f'<a href="#s{number}">{_text(section.title)}</a>' for number, section in enumerate(document.sections)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(document.title)}</title><style>{STYLE}{charts.STYLE}</style></head><body>\n"
        f'<h1>{_text(document.title)}</h1><p class="quiet">{_text(document.subtitle)}</p>\n'
        f'<div class="figures">{"".join(map(_figure, document.figures))}</div>\n'
        f"<nav>{contents}</nav>\n{sections}\n</body></html>\n"
    )


def _figure(figure: Figure) -> str:
    name, value, note = map(_text, (figure.name, figure.value, figure.note))
    return f'<div class="figure"><span>{name}</span><b>{value}</b><span>{note}</span></div>'


def _section(number: int, section: Section) -> str:
    said = "".join(f"<p>{_text(line)}</p>" for line in section.said)
    tables = "\n".join(map(_table, section.tables))
    return f'<h2 id="s{number}">{_text(section.title)}</h2>\n{said}{"".join(map(_chart, section.charts))}{tables}'


def _chart(chart: Chart) -> str:
    return f"<figure>{chart.svg}<figcaption>{_text(chart.title)}</figcaption></figure>\n"


def _table(table: Table) -> str:
    title = f"<h3>{_text(table.title)}</h3>" if table.title else ""
    head = _row("th", table.head, table.right_from)
    body = "\n".join(_row("td", row, table.right_from) for row in table.rows)
    return f'{title}<div class="scroll"><table><thead>{head}</thead><tbody>\n{body}</tbody></table></div>'


def _row(tag: str, cells: tuple[str, ...], right_from: int | None) -> str:
    right = len(cells) if right_from is None else right_from
    marks = [_mark(cell, column >= right) for column, cell in enumerate(cells)]
    return f"<tr>{''.join(f'<{tag}{mark}>{_text(cell)}</{tag}>' for mark, cell in zip(marks, cells, strict=True))}</tr>"


def _mark(cell: str, right: bool) -> str:  # noqa: FBT001 - a column is one or the other
    """Figures stand right; what is short, such as a time, stays in one line."""
    return ' class="right"' if right else ' class="short"' if len(cell) <= SHORT else ""


def _text(text: str) -> str:
    return escape(shown(text))
