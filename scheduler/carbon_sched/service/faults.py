"""Faults of a cluster that end an attempt: which one it was, and whether anything of the attempt can still run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.errors import ClusterUnclear

if TYPE_CHECKING:
    from carbon_sched.domain.cluster import ClusterStatus
    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import RayJob

SUPERVISOR = "JOB_SUPERVISOR_ACTOR_"
NO_START = ("START_TIMEOUT", "START_FAILURE", "UNSCHEDULABLE")


def supervisor_lost(ray_job: RayJob) -> bool:
    """Whether Ray gave the job up for its own supervisor, not for what the job did; before 2.54 only words say so."""
    if ray_job.status != "FAILED" or ray_job.driver_exit_code is not None:
        return False
    if ray_job.error_type is None:
        return "job supervisor" in ray_job.message.lower()
    return ray_job.error_type.startswith(SUPERVISOR)


def fault(ray_job: RayJob, attempt: Attempt, status: ClusterStatus, *, started: bool) -> tuple[str, Cause]:
    """The reason in words and the cause; `started`: user code is known to have begun.

    Raises ClusterUnclear while the cluster does not say which nodes live. A supervisor that is lost on a living node is
    no proof that the job's processes are gone: that is no case for a retry.
    """
    if not status.usable:
        raise ClusterUnclear(f"{attempt.cluster} gave the job up and does not say which of its nodes live")
    node = ray_job.driver_node_id or attempt.node_id
    kind = (ray_job.error_type or "").removeprefix(SUPERVISOR)
    if not started and (kind in NO_START or not node):
        return f"{attempt.cluster} could not start it ({kind or ray_job.message[:200]})", Cause.CAPACITY_LOST
    if node and status.lost(node):
        return f"the node that it ran on left {attempt.cluster}", Cause.PREEMPTED
    if status.nominal:  # its Ray cluster, which no other job shares, ends with it
        return f"{attempt.cluster} lost its supervisor, and with it its Ray cluster", Cause.PREEMPTED
    reason = f"{attempt.cluster} lost its supervisor on a node that lives; processes of it may still run there"
    return reason, Cause.INFRASTRUCTURE
