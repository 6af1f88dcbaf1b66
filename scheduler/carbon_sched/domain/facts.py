"""Facts: the closed set of things the ledger may hold, each a flat JSON object with a kind.

A statement is computed from facts alone, so every number it needs is in one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class FactKind(str, Enum):
    """What a fact says; its payload keys are listed in `scheduler/LEDGER.md`."""

    CLUSTER_REGISTERED = "cluster-registered"
    CLUSTER_REMOVED = "cluster-removed"
    POLICY_APPLIED = "policy-applied"
    BUDGET_APPROVED = "budget-approved"
    JOB_ACCEPTED = "job-accepted"
    JOB_AMENDED = "job-amended"
    JOB_DECIDED = "job-decided"
    ATTEMPT_OPENED = "attempt-opened"
    JOB_SUSPENDED = "job-suspended"
    ATTEMPT_ENDED = "attempt-ended"
    JOB_RESOLVED = "job-resolved"
    JOB_ENDED = "job-ended"
    ENERGY_RECORDED = "energy-recorded"
    MACHINE_ENERGY_RECORDED = "machine-energy-recorded"
    ATTEMPT_COLLECTED = "attempt-collected"
    READINGS_USED = "readings-used"
    CLUSTER_JOBS_LISTED = "cluster-jobs-listed"
    EMISSIONS_IMPORTED = "emissions-imported"
    DECLARATION_MADE = "declaration-made"
    SERVICE_DEPLOYED = "service-deployed"
    SERVICE_PLACED = "service-placed"
    SERVICE_ANSWERS = "service-answers"
    SERVICE_LEFT = "service-left"
    SERVICE_DELETED = "service-deleted"
    STATEMENT_ISSUED = "statement-issued"


@dataclass(frozen=True)
class Fact:
    """One thing that happened. `body` holds JSON values only; integers stay integers, times are RFC 3339 text."""

    kind: FactKind
    at: datetime
    body: Mapping[str, Any]


class Entry(NamedTuple):
    """A fact in its place in the ledger: `hash` covers `payload` (the stored bytes), `seq` and `prev`.

    A tuple, for there are millions of them in a verification.
    """

    seq: int
    prev: str
    hash: str
    payload: bytes
