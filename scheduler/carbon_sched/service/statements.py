"""Receipts, reports and verification: follows the ledger with a book in memory, computes in `ledger/`."""

from __future__ import annotations
