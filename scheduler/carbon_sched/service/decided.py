"""A decision as it is written down: with the curve of its starts, and as a fact of the ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import UG_PER_G, UJ_PER_KWH

if TYPE_CHECKING:
    from carbon_sched.domain.decision import Decision
    from carbon_sched.planning.explained import StartCurves
    from carbon_sched.planning.snapshot import WaitingJob


def explained(decision: Decision, job: WaitingJob, curves: StartCurves) -> Decision:
    """With the curve of starts on the chosen cluster and the bounds that were kept; nothing for a job that must go.

    A brief plan's decisions, which name no candidates, are left as they are: nobody will read them.
    """
    if decision.cluster is None or not decision.candidates or job.latest_start <= job.earliest_start:
        return decision
    return replace(
        decision,
        curve=curves.of(job, decision.cluster),
        latest_start=job.latest_start,
        deadline_confidence=job.confidence if job.spec.flexibility.deadline else None,
    )


def _ug(co2e_g: float | None) -> int | None:
    return None if co2e_g is None else round(co2e_g * UG_PER_G)


def _uj(energy_kwh: float | None) -> int | None:
    return None if energy_kwh is None else round(energy_kwh * UJ_PER_KWH)


def fact_of(decision: Decision, ranked_by: str) -> Fact:
    """What the ledger keeps of a decision, with `ranked_by` where another signal ranks than is booked."""
    candidates = [
        {
            "cluster": c.cluster,
            "zone": c.zone,
            "feasible": c.feasible,
            "reason": c.reason,
            "start": to_rfc3339(c.start) if c.start else None,
            "co2e_ug": _ug(c.co2e_g),
            "now_co2e_ug": _ug(c.now_co2e_g),
            "energy_uj": _uj(c.energy_kwh),
        }
        for c in decision.candidates
    ]
    body = {
        "job": decision.job_id,
        "verdict": decision.verdict.value,
        "cluster": decision.cluster,
        "start": to_rfc3339(decision.start) if decision.start else None,
        "reason": decision.reason,
        "expected_energy_uj": _uj(decision.expected_energy_kwh),
        "expected_co2e_ug": _ug(decision.expected_co2e_g),
        "estimate_source": decision.estimate_source,
        "candidates": candidates,
        "references": {name: _ug(value) for name, value in decision.references},
        "policy": decision.policy,
        "latest_start": to_rfc3339(decision.latest_start) if decision.latest_start else None,
        **({"amendments": decision.amendments} if decision.amendments else {}),
        **({"ranked_by": ranked_by} if ranked_by else {}),
    }
    return Fact(FactKind.JOB_DECIDED, decision.decided_at, body)
