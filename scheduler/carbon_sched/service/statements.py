"""Receipts, reports and verification: reads the ledger, computes in `ledger/`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from carbon_sched.ledger.statement import Book, Selection, receipt, report
from carbon_sched.ledger.export import render
from carbon_sched.ledger.verify import verify_entries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from carbon_sched.domain.facts import Entry
    from carbon_sched.ports import Store
    from carbon_sched.wire import Receipt

PAGE = 10_000
