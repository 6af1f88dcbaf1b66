"""Documents for a terminal and as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.ledger.figures import escaped, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from carbon_sched.ledger.documents.document import Document, Section, Table


def text(document: Document) -> str:
    """Aligned plain text without colours."""
    width = max(len(figure.name) for figure in document.figures)
    figures = [f"{one.name.ljust(width)}  {one.value}{one.note and f'  ({one.note})'}" for one in document.figures]
    head = "\n".join(shown(line) for line in (document.title, document.subtitle, "", *figures))
    return "\n\n".join([head, *map(_section, document.sections)]) + "\n"


def _section(section: Section) -> str:
    title = shown(section.title)
    blocks = ["\n".join([title, "-" * len(title), *map(shown, section.said)])]
    return "\n\n".join(
        [*blocks, *(aligned(table.title, [table.head, *table.rows], table.right_from) for table in section.tables)]
    )


def markdown(document: Document) -> str:
    """GitHub's Markdown."""
    figures = bullets(f"{one.name}: {one.value}{one.note and f' ({one.note})'}" for one in document.figures)
    head = [f"# {escaped(shown(document.title))}", escaped(shown(document.subtitle)), figures]
    return "\n\n".join([*head, *(block for section in document.sections for block in _marked(section))]) + "\n"


def _marked(section: Section) -> list[str]:
    blocks = [f"## {escaped(shown(section.title))}", bullets(section.said)]
    blocks += [_table(table) for table in section.tables]
    return [block for block in blocks if block]


def _table(table: Table) -> str:
    rows = piped([table.head, *table.rows], table.right_from)
    return f"**{escaped(shown(table.title))}**\n\n{rows}" if table.title else rows


def aligned(title: str, rows: Sequence[Sequence[str]], right_from: int | None = None) -> str:
    """A table in columns of equal width under its title."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def cell(value: str, column: int) -> str:
        right = right_from is not None and column >= right_from
        return value.rjust(widths[column]) if right else value.ljust(widths[column])

    lines = ["  ".join(cell(value, column) for column, value in enumerate(row)).rstrip() for row in rows]
    return "\n".join([*filter(None, [shown(title)]), *lines])


def piped(rows: Sequence[Sequence[str]], right_from: int | None = None) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(escaped(shown(cell)) for cell in row)} |" for row in rows]
    right = len(rows[0]) if right_from is None else right_from
    rule = "|" + "".join(" --- |" if column < right else " ---: |" for column in range(len(rows[0])))
    return "\n".join([lines[0], rule, *lines[1:]])


def bullets(lines: Iterable[str]) -> str:
    """A list of Markdown."""
    return "\n".join(f"- {escaped(shown(line))}" for line in lines)
