from __future__ import annotations

import re
from pathlib import Path

from carbon_sched.domain.facts import FactKind

PAGE = (Path(__file__).parents[3] / "scheduler" / "LEDGER.md").read_text(encoding="utf-8")


def test_the_page_lists_every_kind_of_fact_and_no_other():
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(kind.value for kind in FactKind)
