"""A policy file as it was applied: its text is kept, so that every decision's rules can be read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class PolicyVersion:
    """One application of one file; `version` counts over all policies, the highest of a name is in force.

    `applied_by` is a person's name as the server knows it, `restored` the version whose text a rollback brought back.
    """

    version: int
    name: str
    content: str
    applied_at: datetime
    applied_by: str
    reason: str = ""
    restored: int | None = None
