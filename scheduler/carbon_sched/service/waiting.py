"""A job with what its policy makes of it, as the planner takes it: bounds, weights, where it may run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.planning.snapshot import Residency, WaitingJob, Weights
from carbon_sched.planning.windows import paced, remaining
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.settings import Declared, after_quiet
from carbon_sched.service.windows import BEGIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.job import Job, JobSpec
    from carbon_sched.planning.snapshot import Belief, ClusterView
    from carbon_sched.policy.model import Policy
    from carbon_sched.policy.settings import Settings
    from carbon_sched.service.shares import Shares
    from carbon_sched.service.windows import Progress

KEPT, MOST_KEPT_S = 0.1, 3600.0
"""What a job with a deadline keeps of the time that it may wait: this share, up to so many seconds."""
DATA_CLASS = "data-class"
"""The label by which a job names its class of data."""


def waiting_job(
    job: Job,
    belief: Belief,
    policy: Policy,
    views: Sequence[ClusterView],
    now: datetime,
    had: Shares,
    come: Progress = BEGIN,
) -> WaitingJob:
    """What is left of a job that has come so far; `belief` is of the whole run."""
    settings = policy.settings(Selected.of(job.spec))
    done_s, left = come.done_s, remaining(belief, come.done_s)
    left = left if come.left_s is None else paced(left, come.left_s)
    earliest = after_quiet(settings.quiet_hours, max(now, job.spec.flexibility.earliest or now))
    patient = not (job.spec.start_now and settings.start_now)
    foresight = patient and any(settings.may_wait_on(view.outlook.readings[0], now) for view in views)
    delay_s = _longest_delay_s(job, belief, left, settings, come)
    latest = job.submitted_at + timedelta(seconds=done_s + delay_s)
    return WaitingJob(
        job_id=job.job_id,
        spec=job.spec,
        submitted_at=job.submitted_at,
        earliest_start=earliest,
        latest_start=latest if foresight else min(latest, earliest),
        belief=left,
        policy=policy.label,
        min_gain=settings.minimum_gain,
        priority=job.priority,
        share=had.of(job.spec, settings.share),
        residency=_residency(job.spec, policy, settings),
        allowed=settings.allowed,
        denied=settings.denied,
        max_price_per_gpu_hour=settings.max_price_per_gpu_hour,
        preferred=settings.preferred,
        home=settings.home,
        quiet=settings.quiet_hours,
        weights=Weights(settings.carbon_weight, settings.cost_weight, settings.waiting_weight),
        confidence=settings.deadline_confidence,
        amendments=job.amendments,
    )


def _longest_delay_s(job: Job, belief: Belief, left: Belief, settings: Settings, come: Progress) -> float:
    """How long the job may stand still in all: what was declared, where the policy honours it, else what it grants.

    Below 0 where a run that takes as long as stated is late from the first: by as much it should have started before.
    A deadline counts back from the rest that is not exceeded with the policy's confidence, and what a resume takes. Of
    what is left then, a part is kept for a start that is held up: runs before it may take longer than expected.
    """
    flexibility, confidence = job.spec.flexibility, settings.deadline_confidence
    declared = [flexibility.max_delay_s] if flexibility.max_delay_s is not None else []
    if flexibility.deadline is not None:
        last = flexibility.deadline - timedelta(seconds=left.longest_s(confidence) + come.resume_s(confidence))
        patience_s = (last - job.submitted_at).total_seconds() - come.done_s
        declared.append(patience_s - min(MOST_KEPT_S, KEPT * max(patience_s, 0.0)))
    granted_s = settings.delay_s(min(declared) if declared else None, belief.mean_duration_s)
    return min([granted_s, *declared]) if settings.declared is Declared.HONOUR else granted_s


def _residency(spec: JobSpec, policy: Policy, settings: Settings) -> tuple[Residency, ...]:
    """What the policy asks for, each with the key and the level that does."""
    asked = settings.tags(spec.metadata.get(DATA_CLASS))
    return tuple(
        Residency(tuple(sorted(tags)), f"{key} of {policy.origin(Selected.of(spec), key).level}")
        for key, tags in asked.items()
    )
