"""Domain values as the wire shows them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from carbon_sched.domain.batch import progress
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import grams, joules
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.settings import KEYS
from carbon_sched.policy.written import written

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.batch import BatchState
    from carbon_sched.domain.cluster import Cluster, ClusterStatus
    from carbon_sched.domain.decision import Candidate, Decision
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.domain.job import Attempt, Job, JobSpec
    from carbon_sched.domain.policy_version import PolicyVersion, Trial
    from carbon_sched.forecast.record import TrackRecord
    from carbon_sched.policy.model import Policy
    from carbon_sched.service.policies import PolicySet
    from carbon_sched.wire import (
        AttemptView,
        BatchView,
        CandidateView,
        ClusterView,
        DecisionView,
        EffectiveView,
        IntensityView,
        JobView,
        PolicyBacktest,
        PolicyView,
        SkillView,
    )


def _time(value: datetime | None) -> str | None:
    return None if value is None else to_rfc3339(value)


def attempt_view(attempt: Attempt) -> AttemptView:
    """One attempt."""
    return {
        "attempt_id": attempt.attempt_id,
        "number": attempt.number,
        "cluster": attempt.cluster,
        "opened_at": to_rfc3339(attempt.opened_at),
        "started_at": _time(attempt.started_at),
        "ended_at": _time(attempt.ended_at),
        "exit_code": attempt.exit_code,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "cause": attempt.cause.value,
        "collected": attempt.collected,
    }


def batch_view(job: Job, attempts: Sequence[Attempt], states: Sequence[BatchState]) -> BatchView | None:
    """How far a job's batch has come; None for other jobs."""
    running = bool(states) and any(one.open and one.attempt_id == states[-1].attempt_id for one in attempts)
    batch, deadline = progress(states, running=running), job.spec.flexibility.deadline
    if batch is None:
        return None
    energy_j, co2e_g = joules(batch.energy_uj), None if batch.co2e_ug is None else grams(batch.co2e_ug)
    return {
        "done": batch.done,
        "total": batch.total,
        "at": to_rfc3339(batch.at),
        "energy_j": energy_j,
        "co2e_g": co2e_g,
        "j_per_item": energy_j / batch.done if batch.done else None,
        "co2e_g_per_item": co2e_g / batch.done if batch.done and co2e_g is not None else None,
        "expected_end": _time(batch.expected_end),
        "deadline": _time(deadline),
        "late": deadline is not None and batch.expected_end is not None and batch.expected_end > deadline,
    }


def job_view(
    job: Job, attempts: Sequence[Attempt], position: int | None = None, batch: Sequence[BatchState] = ()
) -> JobView:
    """A job with its attempts; `cluster` is the newest attempt's, `batch` what its attempts tell of one."""
    spec = job.spec
    return {
        "job_id": job.job_id,
        "name": spec.name,
        "state": job.state.value,
        "reason": job.reason,
        "cause": job.cause.value,
        "position": position,
        "after": [str(dependency) for dependency in job.spec.after],
        "version": job.version,
        "entrypoint": spec.entrypoint,
        "phase": spec.phase.value,
        "stage": spec.stage,
        "model": spec.model,
        "project": spec.project,
        "team": spec.team,
        "submitter": spec.submitter,
        "submitted_at": to_rfc3339(job.submitted_at),
        "planned_start": _time(job.not_before),
        "now": spec.start_now,
        "earliest": _time(spec.flexibility.earliest),
        "deadline": _time(spec.flexibility.deadline),
        "max_delay_s": spec.flexibility.max_delay_s,
        "amendments": job.amendments,
        "cluster": attempts[-1].cluster if attempts else None,
        "finished_at": _time(job.finished_at),
        "exit_code": job.exit_code,
        "metadata": dict(spec.metadata),
        "attempts": [attempt_view(attempt) for attempt in attempts],
        "batch": batch_view(job, attempts, batch),
    }


def _candidate_view(candidate: Candidate) -> CandidateView:
    low, high = candidate.embodied_g or (None, None)
    return {
        "cluster": candidate.cluster,
        "zone": candidate.zone,
        "feasible": candidate.feasible,
        "reason": candidate.reason,
        "start": _time(candidate.start),
        "end": _time(candidate.end),
        "energy_kwh": candidate.energy_kwh,
        "co2e_g": candidate.co2e_g,
        "now_co2e_g": candidate.now_co2e_g,
        "room_g_per_kwh": candidate.room_g_per_kwh,
        "intensity_g_per_kwh": candidate.intensity_g_per_kwh,
        "pue": candidate.pue,
        "grade": candidate.grade.value if candidate.grade else None,
        "overhead_g": candidate.overhead_g,
        "transfer_g": candidate.transfer_g,
        "embodied_low_g": low,
        "embodied_high_g": high,
    }


def decision_view(decision: Decision) -> DecisionView:
    """A decision with every candidate it compared."""
    return {
        "job_id": decision.job_id,
        "verdict": decision.verdict.value,
        "decided_at": to_rfc3339(decision.decided_at),
        "reason": decision.reason,
        "cluster": decision.cluster,
        "start": _time(decision.start),
        "expected_energy_kwh": decision.expected_energy_kwh,
        "expected_co2e_g": decision.expected_co2e_g,
        "expected_duration_s": decision.expected_duration_s,
        "expected_power_w": decision.expected_power_w,
        "estimate_source": decision.estimate_source,
        "references": dict(decision.references),
        "candidates": [_candidate_view(candidate) for candidate in decision.candidates],
        "policy": decision.policy,
        "curve": [
            {"start": to_rfc3339(one.start), "co2e_g": one.co2e_g, "low_g": one.low_g, "high_g": one.high_g}
            for one in decision.curve
        ],
        "latest_start": _time(decision.latest_start),
        "deadline_confidence": decision.deadline_confidence,
    }


def _used(status: ClusterStatus, resource: str) -> float | None:
    """Sum over nodes; None where any node does not say: unknown is not free."""
    if any(node.used is None for node in status.nodes):
        return None
    return sum((node.used or {}).get(resource, 0.0) for node in status.nodes)


def cluster_view(cluster: Cluster, status: ClusterStatus | None, intensity: Reading, jobs_open: int) -> ClusterView:
    """A cluster, what it last said, and the intensity of its zone now."""
    return {
        "name": cluster.name,
        "zone": cluster.zone,
        "pue": cluster.pue.ppm / 1e6,
        "pue_period": cluster.pue.period,
        "pue_source": cluster.pue.source,
        "address": status.address if status and status.address else cluster.address,
        "local": cluster.local is not None,
        "home": cluster.home,
        "residency": list(cluster.residency),
        "cordoned": cluster.cordoned,
        "jobs_open": jobs_open,
        "problem": status.problem if status else "not asked yet",
        "checked_at": _time(status.checked_at) if status else None,
        "ray_version": status.ray_version if status else "",
        "nodes": len(status.nodes) if status else 0,
        "cpus": status.total("CPU") if status else 0.0,
        "cpus_used": _used(status, "CPU") if status else None,
        "gpus": status.total("GPU") if status else 0.0,
        "gpus_used": _used(status, "GPU") if status else None,
        "intensity_g_per_kwh": intensity.intensity_mg_per_kwh / 1000,
        "intensity_grade": intensity.grade.value,
        "intensity_provider": intensity.provider,
    }


def intensity_view(reading: Reading) -> IntensityView:
    """A reading in g/kWh."""
    low, high = reading.low_mg_per_kwh, reading.high_mg_per_kwh
    return {
        "zone": reading.zone,
        "start": to_rfc3339(reading.start),
        "end": to_rfc3339(reading.end),
        "g_per_kwh": reading.intensity_mg_per_kwh / 1000,
        "low_g_per_kwh": None if low is None else low / 1000,
        "high_g_per_kwh": None if high is None else high / 1000,
        "signal": reading.signal.value,
        "basis": reading.basis.value,
        "perimeter": reading.perimeter.value,
        "kind": reading.kind.value,
        "grade": reading.grade.value,
        "provider": reading.provider,
        "model_version": reading.model_version,
        "issued_at": to_rfc3339(reading.issued_at),
        "fetched_at": to_rfc3339(reading.fetched_at),
        "licence": reading.licence,
    }


def skill_view(record: TrackRecord | None) -> SkillView | None:
    """How forecasts did; JSON has no NaN, so what there was nothing to judge by is null."""
    if record is None:
        return None
    return {
        "issues": record.issues,
        "captured": _finite(record.captured),
        "damped_captured": _finite(record.damped_captured),
        "possible": _finite(record.possible),
        "mape_pct": _finite(record.mape_pct),
        "covered": _finite(record.covered),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def policy_view(policy: Policy | None, version: PolicyVersion | None, trial: Trial | None = None) -> PolicyView:
    """A policy that can be followed, an old version of one (`policy` None), or a preset (`version` None)."""
    return {
        "name": policy.name if policy else version.name if version else "",
        "label": policy.label if policy else "",
        "description": policy.description if policy else "",
        "team": policy.team if policy else "",
        "levels": [level.name for level in policy.levels] if policy else [],
        "content": version.content if version else None,
        "version": version.version if version else None,
        "applied_at": to_rfc3339(version.applied_at) if version else None,
        "applied_by": version.applied_by if version else None,
        "reason": version.reason if version else None,
        "restored": version.restored if version else None,
        "backtest": _backtest_view(trial) if trial else None,
    }


def _backtest_view(trial: Trial) -> PolicyBacktest:
    return {
        "since": to_rfc3339(trial.since),
        "until": to_rfc3339(trial.until),
        "jobs": trial.jobs,
        "left_out": trial.left_out,
        "before_ug": trial.before_ug,
        "after_ug": trial.after_ug,
        "before_late": trial.before_late,
        "after_late": trial.after_late,
        "margin_ppm": trial.margin_ppm,
        "worse": trial.worse,
        "told": trial.told,
    }


def effective_view(known: PolicySet, spec: JobSpec) -> EffectiveView:
    """What a job's policy means for it."""
    policy, job = known.followed(spec), Selected.of(spec)
    settings, origins = policy.settings(job), {key: policy.origin(job, key) for key in KEYS}
    return {
        "policy": policy.name,
        "label": policy.label,
        "settings": [
            {
                "key": key,
                "value": written(key, getattr(settings, KEYS[key].attribute)),
                "level": origin.level,
                "place": origin.place,
                "locked_by": origin.locked_by,
            }
            for key, origin in origins.items()
        ],
    }
