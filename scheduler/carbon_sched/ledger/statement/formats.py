"""Statements in the formats of people and programs. The same statement gives the same bytes everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.ledger.documents import html, pdf, text
from carbon_sched.ledger.statement import data, disclosures
from carbon_sched.ledger.statement.codecarbon import as_codecarbon
from carbon_sched.ledger.statement.document import document
from carbon_sched.ledger.statement.parquet import parquet

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.ledger.statement.model import Statement

MEDIA_TYPES = {
    "text": "text/plain; charset=utf-8",
    "markdown": "text/markdown; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "codecarbon": "text/csv; charset=utf-8",
    "model-card": "text/markdown; charset=utf-8",
    "ai-act": "text/plain; charset=utf-8",
    "inventory": "text/csv; charset=utf-8",
    "prometheus": "text/plain; version=0.0.4; charset=utf-8",
}

_RENDERERS: dict[str, Callable[[Statement], bytes]] = {
    "text": lambda one: text.text(document(one)).encode(),
    "markdown": lambda one: text.markdown(document(one)).encode(),
    "html": lambda one: html.html(document(one)).encode(),
    "pdf": lambda one: pdf.pdf(document(one)),
    "json": lambda one: data.as_json(one).encode(),
    "jsonl": lambda one: data.as_jsonl(one).encode(),
    "csv": lambda one: data.as_csv(one).encode(),
    "parquet": parquet,
    "codecarbon": lambda one: as_codecarbon(one).encode(),
    "model-card": lambda one: disclosures.as_model_card(one).encode(),
    "ai-act": lambda one: disclosures.as_ai_act(one).encode(),
    "inventory": lambda one: disclosures.as_inventory(one).encode(),
    "prometheus": lambda one: disclosures.as_prometheus(one).encode(),
}


def render(statement: Statement, form: str) -> bytes:
    """`statement` in one of MEDIA_TYPES' forms.

    Raises KeyError for another, and InvalidInput where a form needs the extra `reports` and it is not installed, or
    where it is about training and the statement holds none.
    """
    return _RENDERERS[form](statement)
