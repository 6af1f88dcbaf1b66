"""Jobs and attempts: what a user asked for, and the one table of how their states may change."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from carbon_sched.domain.cluster import SecretRef
    from carbon_sched.domain.kubernetes import RayJobObject
    from carbon_sched.domain.variant import Variants


class Phase(str, Enum):
    """Part of a model's life cycle that a job belongs to."""

    PRETRAINING = "pretraining"
    FINETUNING = "finetuning"
    INFERENCE_BATCH = "inference-batch"
    INFERENCE_ONLINE = "inference-online"
    EVALUATION = "evaluation"
    OTHER = "other"


class Placement(str, Enum):
    """How a job's bundles must lie on nodes."""

    PACK = "pack"
    SPREAD = "spread"
    STRICT_PACK = "strict-pack"


@dataclass(frozen=True)
class Bundle:
    """Resources that must be free together on one node; `memory` in bytes."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)

    def as_resources(self) -> dict[str, float]:
        """In Ray's resource names, zero entries left out."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory), **self.resources}
        return {name: amount for name, amount in named.items() if amount > 0}


@dataclass(frozen=True)
class DataInput:
    """Bytes that must reach the cluster from a zone, unless a copy is there."""

    uri: str
    size_bytes: int
    zone: str


@dataclass(frozen=True)
class Resources:
    """What a job occupies: the entrypoint's own reservation in Ray, and the bundles its Ray tasks will take.

    `entrypoint_*` are passed to Ray (plain scripts only); `bundles` are what we check for capacity. Each GPU must be of
    `gpu_type` (None: any) and have at least `gpu_memory_gb`.
    """

    entrypoint_cpus: float = 0.0
    entrypoint_gpus: float = 0.0
    entrypoint_memory: int = 0
    entrypoint_resources: Mapping[str, float] = field(default_factory=dict)
    entrypoint_label_selector: Mapping[str, str] = field(default_factory=dict)
    bundles: tuple[Bundle, ...] = ()
    placement: Placement = Placement.PACK
    gpu_type: str | None = None
    gpu_memory_gb: float = 0.0

    @cached_property
    def gpus(self) -> float:
        """GPUs of the whole job."""
        return sum(bundle.gpus for bundle in self.bundles)

    @cached_property
    def cpus(self) -> float:
        """CPUs of the whole job."""
        return sum(bundle.cpus for bundle in self.bundles)


@dataclass(frozen=True)
class Flexibility:
    """What the user declared about time; a job without any is placed but never delayed.

    An `interruptible` job may be suspended: a suspension costs `restart_s` seconds of running (None: not said), and its
    state lies in `storage`, which every cluster that it may use can read (empty: only the one where it ran can).
    """

    earliest: datetime | None = None
    deadline: datetime | None = None
    max_delay_s: float | None = None
    interruptible: bool = False
    restart_s: float | None = None
    storage: str = ""


@dataclass(frozen=True)
class Estimate:
    """What the user said about the run; None where nothing was said."""

    duration_s: float | None = None
    power_w: float | None = None


@dataclass(frozen=True)
class Dependency:
    """A job that must have ended first, and well if `ok`."""

    job_id: str
    ok: bool = False

    def __str__(self) -> str:
        return f"{self.job_id}:ok" if self.ok else self.job_id


@dataclass(frozen=True)
class JobSpec:
    """Everything a user asked for, as accepted; an amendment makes another one of it (`service/amend.py`).

    `runtime_env` is without its `env_vars`: those are in `sealed_env`, encrypted, since they often hold passwords.
    `secrets` are environment variables that are read only when the job is dispatched. An empty `policy` follows the
    team's.
    """

    entrypoint: str
    name: str
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    sealed_env: str = ""
    secrets: Mapping[str, SecretRef] = field(default_factory=dict)
    bundle_sha256: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    phase: Phase = Phase.OTHER
    stage: str = ""
    model: str = ""
    project: str = ""
    team: str = ""
    submitter: str = ""
    resources: Resources = Resources()
    flexibility: Flexibility = Flexibility()
    estimate: Estimate = Estimate()
    data: tuple[DataInput, ...] = ()
    clusters: tuple[str, ...] = ()
    policy: str = ""
    start_now: bool = False
    after: tuple[Dependency, ...] = ()
    rayjob: RayJobObject | None = None
    variants: Variants | None = None


class JobState(str, Enum):
    """Where a job stands; see `TRANSITIONS`."""

    QUEUED = "queued"
    DISPATCHING = "dispatching"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    REFUSED = "refused"
    LOST = "lost"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen by itself (a person may still resolve LOST)."""
        return self in FINAL_STATES


FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED, JobState.REFUSED, JobState.LOST})
ON_CLUSTER_STATES = frozenset({JobState.DISPATCHING, JobState.STARTING, JobState.RUNNING, JobState.STOPPING})


class JobEvent(str, Enum):
    """What can happen to a job."""

    DISPATCH = "dispatch"
    SUBMITTED = "submitted"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    STARTED = "started"
    STOP_ASKED = "stop-asked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    REFUSED = "refused"
    LOST = "lost"


_S, _E = JobState, JobEvent
_ENDINGS = {
    _E.SUCCEEDED: _S.SUCCEEDED,
    _E.FAILED: _S.FAILED,
    _E.STOPPED: _S.STOPPED,
    _E.LOST: _S.LOST,
}
TRANSITIONS: Mapping[tuple[JobState, JobEvent], JobState] = {
    # waiting for a plan that says "now"
    (_S.QUEUED, _E.DISPATCH): _S.DISPATCHING,
    (_S.QUEUED, _E.REFUSED): _S.REFUSED,
    (_S.QUEUED, _E.STOPPED): _S.STOPPED,
    # an attempt is open, its id persisted, the submission on its way
    (_S.DISPATCHING, _E.SUBMITTED): _S.STARTING,
    (_S.DISPATCHING, _E.WITHDRAWN): _S.QUEUED,
    (_S.DISPATCHING, _E.STOP_ASKED): _S.STOPPING,
    **{(_S.DISPATCHING, event): state for event, state in _ENDINGS.items()},
    # known to Ray, user code not seen running yet
    (_S.STARTING, _E.STARTED): _S.RUNNING,
    (_S.STARTING, _E.EXPIRED): _S.QUEUED,
    (_S.STARTING, _E.STOP_ASKED): _S.STOPPING,
    **{(_S.STARTING, event): state for event, state in _ENDINGS.items()},
    (_S.RUNNING, _E.EXPIRED): _S.QUEUED,  # Ray ran our wrapper, which came too late and ran nothing
    (_S.RUNNING, _E.STOP_ASKED): _S.STOPPING,
    **{(_S.RUNNING, event): state for event, state in _ENDINGS.items()},
    **{(_S.STOPPING, event): state for event, state in _ENDINGS.items()},
    # a cluster that comes back may still tell how a lost job ended
    (_S.LOST, _E.STARTED): _S.RUNNING,
    (_S.LOST, _E.SUCCEEDED): _S.SUCCEEDED,
    (_S.LOST, _E.FAILED): _S.FAILED,
    (_S.LOST, _E.STOPPED): _S.STOPPED,
    (_S.LOST, _E.WITHDRAWN): _S.QUEUED,  # a person knows that it does not run, and wants it run again
}


def next_state(state: JobState, event: JobEvent) -> JobState:
    """The state after `event`; raises Conflict where the table has no entry."""
    try:
        return TRANSITIONS[(state, event)]
    except KeyError:
        message = f"a job that is {state.value} cannot take the event {event.value!r}"
        raise Conflict(message) from None


def ending_event(state: JobState, event: JobEvent) -> JobEvent:
    """What an attempt's end means for its job: one that was asked to stop and did not succeed is stopped."""
    unsuccessful = event in (JobEvent.WITHDRAWN, JobEvent.EXPIRED, JobEvent.FAILED)
    return JobEvent.STOPPED if state is JobState.STOPPING and unsuccessful else event


@dataclass(frozen=True)
class Job:
    """A submitted job and where it stands; `version` counts changes and guards every write.

    `priority` is the rank of its class when it was accepted: 0 is normal, higher goes first. `amendments`
    counts how often its spec was changed since.
    """

    job_id: str
    spec: JobSpec
    state: JobState
    submitted_at: datetime
    version: int = 0
    reason: str = ""
    cause: Cause = Cause.NONE
    priority: int = 0
    attempts: int = 0
    amendments: int = 0
    not_before: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None

    def moved(
        self,
        event: JobEvent,
        *,
        at: datetime,
        reason: str = "",
        cause: Cause = Cause.NONE,
        exit_code: int | None = None,
    ) -> Job:
        """The job after `event`; raises Conflict when the table forbids it."""
        state = next_state(self.state, event)
        return replace(
            self,
            state=state,
            version=self.version + 1,
            reason=reason,
            cause=cause,
            finished_at=at if state.final else None,
            exit_code=exit_code if state.final else None,
        )


def submission_id(job_id: str, attempt: int) -> str:
    """Ray's submission id of the n-th attempt; new for every attempt, since Ray appends logs of reused ids."""
    return f"cs-{job_id}-a{attempt}"


@dataclass(frozen=True)
class Attempt:
    """One submission of a job to one cluster.

    `start_by` is the time fence: the wrapper refuses to run user code after it. `accepted` is None until we know
    whether Ray has it. `started_at` and `ended_at` come from the wrapper's own record, not from Ray. `recalled` is why
    it is being stopped for another attempt to follow. `collected` is set once the energy journal was read to its end.
    """

    attempt_id: str
    job_id: str
    number: int
    cluster: str
    opened_at: datetime
    start_by: datetime
    epoch: str = ""
    accepted: bool | None = None
    node_id: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    outcome: str = ""
    reason: str = ""
    cause: Cause = Cause.NONE
    recalled: Cause = Cause.NONE
    collected: bool = False
    version: int = 0

    @property
    def open(self) -> bool:
        """Whether this attempt may still be alive somewhere."""
        return not self.outcome
