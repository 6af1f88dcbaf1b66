"""Processor time of processes, from Linux' /proc: for benchmarks that say which part of a whole costs what."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def spent_s(pid: int) -> float:
    """Seconds of a process so far, and of those children of it that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def children(pid: int) -> list[int]:
    """Those that live, whichever thread started them."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for one in lists for child in one.read_text(encoding="utf-8").split()]


def spent_by_children_s(pid: int) -> float:
    """Seconds of the children that live."""
    return sum(spent_s(child) for child in children(pid))
