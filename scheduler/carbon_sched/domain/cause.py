"""Why a job or attempt is in its state, in a word for programs; the sentence for people stands beside it."""

from __future__ import annotations

from enum import Enum


class Cause(str, Enum):
    """The closed set of causes; empty where a state needs none (running, succeeded)."""

    NONE = ""
    # it waits
    DELAYED = "delayed-by-policy"
    NO_ROOM = "waiting-for-capacity"
    AFTER = "waiting-for-job"
    NO_PLAN = "planning-failed"
    # an attempt ended without a result of the job, and another one may follow
    CLUSTER_UNUSABLE = "cluster-unusable"
    NOT_STARTED = "not-started-in-time"
    PREEMPTED = "preempted"
    CAPACITY_LOST = "capacity-lost"
    STUCK = "stuck-without-capacity"
    INFRASTRUCTURE = "infrastructure"
    EVICTED = "evicted"
    SUSPENDED = "suspended"
    REQUEUED = "requeued-by-a-person"
    # it ended
    EXIT_CODE = "exit-code"
    STOP_ASKED = "stop-asked"
    CANNOT_RUN = "cannot-run"
    REFUSED_BY_CLUSTER = "refused-by-cluster"
    DEPENDENCY = "dependency-failed"
    RESOLVED = "resolved-by-a-person"
    # nobody can say what became of it
    SUBMISSION_UNCLEAR = "submission-unclear"
    HEAD_RESTARTED = "head-restarted"
    FORGOTTEN = "forgotten-by-cluster"
    SILENT = "cluster-silent"


RETRIED = frozenset({Cause.PREEMPTED, Cause.CAPACITY_LOST, Cause.STUCK})
"""Faults after which nothing of the attempt can run any more: the policy says how many of these one job survives."""
