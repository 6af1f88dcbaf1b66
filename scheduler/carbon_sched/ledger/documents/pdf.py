"""A document as PDF, set by Typst (extra `reports`): in this process, with its own fonts, without the network.

The text goes in as data, so that nothing in it is read as markup.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from carbon_sched import charts
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.ledger.figures import shown

if TYPE_CHECKING:
    from carbon_sched.ledger.documents.document import Document, Section, Table


def pdf(document: Document) -> bytes:
    """The file; it names no date, so that the same document gives the same bytes under the same version of Typst.

    Raises InvalidInput where Typst is not installed.
    """
    try:
        import typst  # noqa: PLC0415 - of an extra
    except ImportError:
        remedy = "Run: pip install 'carbon-sched[reports]'; or take html, which prints well from any browser"
        raise InvalidInput("format", "pdf", "needs Typst, which is not installed here", remedy) from None
    template = (resources.files(__package__) / "document.typ").read_bytes()
    content = json.dumps(_content(document))
    made = typst.compile(template, format="pdf", sys_inputs={"document": content}, ignore_system_fonts=True)
    return bytes(made)


def _content(document: Document) -> dict[str, Any]:
    figures = [[shown(text) for text in (one.name, one.value, one.note)] for one in document.figures]
    sections = [_section(section) for section in document.sections]
    return {
        "title": shown(document.title),
        "subtitle": shown(document.subtitle),
        "figures": figures,
        "sections": sections,
    }


def _section(section: Section) -> dict[str, Any]:
    return {
        "title": shown(section.title),
        "said": [shown(line) for line in section.said],
        "charts": [{"title": shown(chart.title), "svg": _printed(chart.svg)} for chart in section.charts],
        "tables": [_table(table) for table in section.tables],
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": shown(table.title),
        "head": [shown(cell) for cell in table.head],
        "rows": [[shown(cell) for cell in row] for row in table.rows],
        "right_from": len(table.head) if table.right_from is None else table.right_from,
    }


def _printed(svg: str) -> str:
    """A chart with its colours written out and its style inside: what a page's style sheet does elsewhere."""
    coloured = re.sub(r"var\(--s\d, (#[0-9a-f]{6})\)", r"\1", svg).replace("currentColor", "#222222")
    style = charts.STYLE.replace("currentColor", "#222222").replace("system-ui, sans-serif", "'Libertinus Serif'")
    return coloured.replace("<title>", f"<style>{style}</style><title>", 1)
