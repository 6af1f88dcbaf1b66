"""Hash chain, verification, statements and exports: pure functions over the facts, nothing else.

Layer: above `domain/`, below `service/`. Format of entries and facts: `scheduler/LEDGER.md`.
"""
