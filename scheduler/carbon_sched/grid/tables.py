"""The tables shipped in `data/`: rows as dictionaries, each read once (layer: grid adapters)."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources


@cache
def rows(name: str) -> tuple[dict[str, str], ...]:
    """Every row of `data/<name>` by column name, in the file's order."""
    text = (resources.files("carbon_sched.grid") / "data" / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
