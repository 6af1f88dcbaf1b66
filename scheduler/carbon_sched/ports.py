"""What the core needs from the world, as Protocols; each method's docstring is an obligation every adapter must keep.

Adapters (`store/`, `clusters/`, `grid/`) and the fakes in `tests/fakes/` pass one contract suite per port.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from carbon_sched.domain.cause import Cause

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from carbon_sched.domain.access import Credential
    from carbon_sched.domain.batch import BatchState
    from carbon_sched.domain.budget import BudgetLine, BudgetUse
    from carbon_sched.domain.cluster import Cluster, ClusterStatus, Epoch, SecretRef
    from carbon_sched.domain.decision import Decision
    from carbon_sched.domain.energy import EnergySpan
    from carbon_sched.domain.facts import Entry, Fact
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.domain.job import Attempt, Job, JobEvent, JobSpec, JobState
    from carbon_sched.domain.kubernetes import RayJobObject
    from carbon_sched.domain.policy_version import PolicyVersion
    from carbon_sched.domain.run import PastRun
    from carbon_sched.domain.schedule import Schedule
    from carbon_sched.domain.serve_app import ServeApp
    from carbon_sched_runtime.request_counts import Counts


class Clock(Protocol):
    """Time, injected."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps; only differences mean anything."""


class Ids(Protocol):
    """Identity and randomness, injected."""

    def job_id(self, at: datetime) -> str:
        """A new job id: 10 lowercase base32 characters, sortable by time; collisions are the store's to refuse."""

    def token(self) -> str:
        """A new unguessable token (256 bits, URL-safe text)."""


# --------------------------------------------------------------------------------------------------------------- store


@dataclass(frozen=True)
class OutboxItem:
    """An external action that was committed before it is done; `token` fences the worker that claimed it."""

    item_id: int
    kind: str
    key: str
    payload: Mapping[str, Any]
    tries: int
    token: str


@dataclass(frozen=True)
class EventRow:
    """One transition of a job, written with it."""

    job_id: str
    at: datetime
    event: str
    state: str
    reason: str
    cause: Cause = Cause.NONE


@dataclass(frozen=True)
class Usage:
    """CPU seconds and GPU seconds that attempts held which ended on one day (days since 1970, UTC)."""

    team: str
    project: str
    day: int
    cpu_s: float
    gpu_s: float


@dataclass(frozen=True)
class JobFilter:
    """Which jobs to list; empty means any. `after` is the job id to continue behind (newest first).

    `teams` None means every team; an empty set means none.
    """

    states: frozenset[JobState] = frozenset()
    team: str | None = None
    project: str | None = None
    phase: str | None = None
    cluster: str | None = None
    name: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: str | None = None
    teams: frozenset[str] | None = None


@dataclass(frozen=True)
class NewJob:
    """A job to be stored, under a key that stands for its request; a job without a key is always a new one."""

    job: Job
    idempotency_key: str | None
    request_sha256: str


@dataclass(frozen=True)
class Wait:
    """What a job that goes on waiting is told: from when it may start, and why it does not yet."""

    job: Job
    not_before: datetime | None
    reason: str
    cause: Cause


class Transaction(Protocol):
    """All reads and writes of one atomic step. Nothing here calls the network.

    Reads inside one transaction see one state. Writes become visible together at commit, or not at all.
    """

    # jobs ----------------------------------------------------------------------------------------
    def add_job(self, job: Job, *, idempotency_key: str | None, request_sha256: str) -> Job:
        """Insert a new job and its first event (`accepted`).

        The same key with the same request returns the job stored first and changes nothing; with another request
        raises Conflict. A used `job_id` raises Conflict.
        """

    def add_jobs(self, new: Sequence[NewJob]) -> list[Job]:
        """As `add_job` for each, one after another, in a number of statements that does not grow with theirs."""

    def job(self, job_id: str) -> Job:
        """The job, or NotFound."""

    def jobs(self, where: JobFilter, *, limit: int) -> list[Job]:
        """Newest first, at most `limit`."""

    def live_jobs(self, known: Mapping[str, Job] = MappingProxyType({})) -> list[Job]:
        """Not in a final state, oldest first.

        A job in `known` is taken from there and not read where its version is the stored one; its spec where it was not
        amended since.
        """

    def jobs_by_id(self, job_ids: Sequence[str], known: Mapping[str, Job] = MappingProxyType({})) -> dict[str, Job]:
        """These jobs, specs of `known` ones as in `live_jobs`; ids that name no job are left out."""

    def queue_positions(self, job_ids: Sequence[str]) -> dict[str, int]:
        """The places of those of these jobs that are queued, counted from 1: by class, then by age."""

    def live_counts(self) -> dict[JobState, int]:
        """How many jobs are in each state that is not final; states without jobs are left out."""

    def oldest_queued(self) -> datetime | None:
        """When the job that has waited longest was submitted; None when none waits."""

    def move_job(
        self,
        job: Job,
        event: JobEvent,
        *,
        at: datetime,
        reason: str = "",
        cause: Cause = Cause.NONE,
        exit_code: int | None = None,
    ) -> Job:
        """Apply `event` to the job as it was read (`job.version`) and append the event row.

        Returns the new job. Raises Conflict where the transition table forbids it (the database refuses it too) and
        StaleVersion when the row's version is not `job.version`.
        """

    def amend_job(
        self,
        job: Job,
        *,
        attempts: int | None = None,
        not_before: datetime | None = None,
        reason: str | None = None,
        cause: Cause | None = None,
    ) -> Job:
        """Change what is no transition (attempts, planned start, reason shown); guarded by `job.version` likewise.

        None keeps attempts, reason and cause; `not_before` is always written, so None clears the planned start.
        """

    def amend_spec(self, job: Job, spec: JobSpec, *, at: datetime, reason: str) -> Job:
        """Put `spec` in the place of the job's own and append an event (`amended`); guarded by `job.version` likewise.

        Returns the job with one amendment more. Labels and name stay as they are: lists go by them.
        """

    def tell_waiting(self, waits: Sequence[Wait]) -> None:
        """As `amend_job` for each, in a number of statements that does not grow with theirs."""

    def events(self, job_id: str) -> list[EventRow]:
        """Oldest first."""

    def newest_change(self) -> tuple[int, int]:
        """Grows with every event of a job and with every decision, whichever server made it."""

    # decisions -----------------------------------------------------------------------------------
    def put_decisions(self, new: Sequence[Decision]) -> None:
        """Append; the newest one of a job is its decision."""

    def decision(self, job_id: str) -> Decision | None:
        """The newest decision of the job."""

    def decisions(self, job_ids: Sequence[str]) -> dict[str, Decision]:
        """The newest decision of each of these jobs that has one."""

    def decision_numbers(self, job_ids: Sequence[str]) -> dict[str, int]:
        """A number for the newest decision of each of these jobs, no other one's; those without one are left out."""

    # attempts ------------------------------------------------------------------------------------
    def add_attempt(self, attempt: Attempt) -> None:
        """Insert; at most one open attempt per job can exist (the database refuses a second: Conflict)."""

    def attempt(self, attempt_id: str) -> Attempt:
        """The attempt, or NotFound."""

    def attempts(
        self, *, job_id: str | None = None, open_only: bool = False, uncollected_only: bool = False
    ) -> list[Attempt]:
        """Oldest first."""

    def attempts_of(self, job_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        """The attempts of each of these jobs, oldest first; those without any are left out."""

    def put_attempt(self, attempt: Attempt) -> Attempt:
        """Write the attempt, guarded by `attempt.version` (StaleVersion); returns it with the next version."""

    # outbox --------------------------------------------------------------------------------------
    def enqueue(self, kind: str, key: str, payload: Mapping[str, Any]) -> None:
        """Add an external action; the same (kind, key) twice is one."""

    def claim_outbox(self, kinds: Sequence[str], *, limit: int, lease_s: float) -> list[OutboxItem]:
        """Take due actions, oldest first: unclaimed, or with an expired lease (database time). Each has a new token."""

    def finish_outbox(self, item: OutboxItem) -> bool:
        """Remove the action if this claim still holds it; False means somebody else has it: discard your result."""

    def delay_outbox(self, item: OutboxItem, *, seconds: float) -> bool:
        """Give the action back, due again after `seconds`, tries + 1; False as above."""

    def outbox_size(self) -> int:
        """How many actions are not finished, of all kinds."""

    def release_outbox(self, kinds: Sequence[str]) -> int:
        """Make every action of these kinds due now and every claim void; returns how many there are.

        For the only worker of a database, whose earlier claims died with an earlier process.
        """

    # usage ---------------------------------------------------------------------------------------
    def add_usage(self, used: Usage) -> None:
        """Add to what the team and project used on that day."""

    def usage(self, *, since_day: int) -> list[Usage]:
        """What was used on that day and later, one row per team, project and day."""

    # leases --------------------------------------------------------------------------------------
    def take_lease(self, name: str, holder: str, *, lease_s: float, seize: bool = False) -> int | None:
        """Hold `name` for the next `lease_s` seconds of database time; returns the term, None while another holds it.

        Renewing keeps the term, also after the lease ran out if nobody took it meanwhile; a new holder begins a new
        one. With `seize` it is taken whoever holds it, and always begins a new term.
        """

    def lease_term(self, name: str) -> int:
        """The term that was begun last, 0 before the first: a fence for what its holder writes."""

    def drop_lease(self, name: str, term: int) -> None:
        """Let anybody have it at once, if `term` is still the last one."""

    # plans ---------------------------------------------------------------------------------------
    def put_plan_state(self, state: Mapping[str, Any]) -> None:
        """Keep what a plan leaves to the next one, in place of what the plan before left."""

    def plan_state(self) -> Mapping[str, Any] | None:
        """What the last plan left, whichever server made it; None before the first."""

    # clusters ------------------------------------------------------------------------------------
    def put_cluster(self, cluster: Cluster) -> None:
        """Insert or replace by name."""

    def remove_cluster(self, name: str) -> None:
        """Remove, or NotFound; Conflict while it has open attempts."""

    def clusters(self) -> list[Cluster]:
        """By order of first insertion."""

    def rules(self) -> tuple[int, tuple[str, ...]]:
        """What submissions are held to: the last policy's version as below, and the names of the clusters as above."""

    # energy, readings ----------------------------------------------------------------------------
    def add_segment(
        self,
        *,
        segment_id: str,
        sha256: str,
        cluster: str,
        attempt_id: str,
        spans: Sequence[EnergySpan],
        received_at: datetime,
    ) -> bool:
        """Store a journal segment's spans once. False when this id with the same hash is known (nothing changes).

        Conflict when the id is known with another hash.
        """

    def segment_ids(self, cluster: str, *, received_before: datetime) -> set[str]:
        """Ids of the segments of a cluster that were stored before a moment."""

    def spans(self, owners: Sequence[str]) -> list[EnergySpan]:
        """Every span of these owners, ordered by (start, device)."""

    def add_readings(self, readings: Sequence[Reading]) -> int:
        """Append those not already stored with equal content; returns how many were new."""

    def readings(
        self, zone: str, start: datetime, end: datetime, *, as_of: datetime | None = None, known: bool = False
    ) -> list[Reading]:
        """All readings that overlap `[start, end)`, issued not after `as_of`, ordered by (start, issued_at).

        With `known` without the forecasts among them.
        """

    # what finished runs teach --------------------------------------------------------------------
    def add_run(self, attempt_id: str, run: PastRun) -> None:
        """Remember a finished run; one per attempt, of which the first stays. Its `number` is given here."""

    def runs(self, *, name: str | None = None, after: int = 0, limit: int) -> list[PastRun]:
        """The newest `limit` runs with a number above `after`, oldest of them first."""

    # batches -------------------------------------------------------------------------------------
    def put_batch_state(self, state: BatchState) -> None:
        """Insert, or replace what the attempt told before."""

    def batch_states(self, job_ids: Sequence[str]) -> dict[str, list[BatchState]]:
        """The states of each job's attempts, oldest first; jobs without any are left out."""

    # services ------------------------------------------------------------------------------------
    def add_app(self, app: ServeApp) -> None:
        """Insert; Conflict where one of this name is."""

    def apps(self) -> list[ServeApp]:
        """Every service, by name."""

    def app(self, name: str) -> ServeApp:
        """One of them; NotFound where there is none."""

    def put_app(self, app: ServeApp) -> ServeApp:
        """Write, guarded by `app.version` (StaleVersion); returns it as it stands then."""

    def remove_app(self, name: str) -> None:
        """Forget it; no error where there is none."""

    def add_request_counts(self, attempt_id: str, at: datetime, replicas: Mapping[str, Counts]) -> None:
        """Keep what the replicas of an attempt's service had answered by then; the same instant is kept once."""

    def request_counts(
        self, attempt_ids: Sequence[str], *, since: datetime | None = None
    ) -> dict[str, list[tuple[datetime, dict[str, Counts]]]]:
        """By attempt, oldest first; with `since`, the newest before it and all that came after."""

    def forget_request_counts(self, attempt_id: str, *, before: datetime) -> None:
        """Forget an attempt's counts before an instant, but for the newest ones that there are."""

    # policies ------------------------------------------------------------------------------------
    def add_policy(
        self,
        name: str,
        content: str,
        *,
        at: datetime,
        by: str,
        reason: str = "",
        restored: int | None = None,
        after: int | None = None,
    ) -> PolicyVersion:
        """Append a version of a policy, which is then in force.

        Versions count up over all names. Conflict when `after` is given and is not the last version of all.
        """

    def last_policy_version(self) -> int:
        """The highest version of any policy; 0 where none was applied."""

    def policies_in_force(self) -> list[PolicyVersion]:
        """The newest version of each name, by name."""

    def policy_versions(self, name: str) -> list[PolicyVersion]:
        """Every version of one name, newest first."""

    def policy_version(self, version: int) -> PolicyVersion:
        """One version, or NotFound."""

    # budgets -------------------------------------------------------------------------------------
    def reserve_budget(self, line: BudgetLine) -> None:
        """Reserve; at most one line per attempt and budget (Conflict)."""

    def unsettled_attempts(self) -> list[str]:
        """Attempts with lines to settle: those that ended and were collected, or that no cluster ever took; by id."""

    def settle_budgets(self, attempt_id: str, *, ug: int, uj: int) -> int:
        """Settle an attempt's lines by what it used, once; returns how many were."""

    def budget_use(self, budget: str, period_start: datetime) -> BudgetUse:
        """What is settled and what is reserved in one period of a budget."""

    def approve_budget(
        self, job_id: str, budget: str, period_start: datetime, *, at: datetime, by: str, reason: str
    ) -> None:
        """Let a job exceed a budget in one period; once (Conflict)."""

    def budget_approved(self, job_id: str, budget: str, period_start: datetime) -> bool:
        """Whether that was done."""

    # ledger --------------------------------------------------------------------------------------
    def append_fact(self, fact: Fact) -> Entry:
        """Chain the fact to the ledger's head and store its canonical bytes."""

    def append_facts(self, facts: Sequence[Fact]) -> list[Entry]:
        """As `append_fact` for each, in order, by one statement."""

    def entries(self, *, after_seq: int = 0, limit: int = 10_000) -> list[Entry]:
        """In order of `seq`, from `after_seq + 1`."""

    def ledger_head(self) -> tuple[int, str]:
        """(size, hash of the last entry); (0, 64 zeros) when empty."""

    # access --------------------------------------------------------------------------------------
    def add_credential(self, credential: Credential, *, sha256: str) -> None:
        """Insert, with the hash of its secret; removes codes and sessions that expired."""

    def credential(self, sha256: str) -> Credential | None:
        """The credential whose secret has this hash, valid or not; one whose parent was revoked is revoked too."""

    def api_tokens(self) -> list[Credential]:
        """Every API token ever given, oldest first."""

    def revoke_credential(self, token_id: str, *, at: datetime) -> bool:
        """Mark as revoked; False where it was so already. NotFound where there is none."""

    # schedules -----------------------------------------------------------------------------------
    def add_schedule(self, schedule: Schedule) -> None:
        """Insert."""

    def schedules(self) -> list[Schedule]:
        """Those that were not stopped, oldest first."""

    def schedule(self, schedule_id: str) -> Schedule:
        """One, stopped or not; NotFound where there is none."""

    def advance_schedule(self, schedule: Schedule, *, next_at: datetime, last_job: str, problem: str) -> bool:
        """Go on to the next moment, if it still stands at the one that was read; an empty `last_job` keeps the last."""

    def stop_schedule(self, schedule_id: str, *, at: datetime) -> None:
        """Mark as stopped, once; NotFound where there is none."""

    # Ray's job protocol --------------------------------------------------------------------------
    def name_for_ray(self, job_id: str, submission_id: str) -> None:
        """Let a job answer to this submission id under Ray's protocol; Conflict where another one does."""

    def job_id_for_ray(self, submission_id: str) -> str:
        """The job that answers to it: by a given name, else by its own id. NotFound where none does."""

    def ray_names(self, job_ids: Sequence[str]) -> dict[str, str | None]:
        """The given submission ids of these jobs; None for those deleted under Ray's protocol."""

    def hide_from_ray(self, job_id: str, *, at: datetime) -> None:
        """Forget the job under Ray's protocol, and only there; its submission id is free again."""

    def put_package(self, owner: str, name: str, *, sha256: str, at: datetime) -> None:
        """Insert or replace what one person's package of this name is, by the hash of its content."""

    def package(self, owner: str, name: str) -> str | None:
        """The hash of a person's package, or None."""

    # people --------------------------------------------------------------------------------------
    def pseudonym(self, person: str) -> str:
        """The stable pseudonym under which a person appears in the ledger; made at first use."""

    def erase_person(self, person: str, *, now: datetime) -> str:
        """Forget who is behind a pseudonym, which is returned; the same name gets another one from then on.

        No row tells the name any more; the ledger stays as it is. Raises NotFound where nobody has this name, Conflict
        while the person has a token that is valid at `now`, or a live job.
        """


class Store(Protocol):
    """The durable state."""

    def transaction(self, *, write: bool = True) -> AbstractContextManager[Transaction]:
        """Begin; commit on leaving, roll back on any exception. Database trouble raises StoreError (retryable)."""

    def database_now(self) -> datetime:
        """Database time."""

    def close(self) -> None:
        """Release connections."""


class SealSink(Protocol):
    """A place outside the database where seals of the ledger are only ever added."""

    def append(self, lines: Sequence[str]) -> None:
        """Write the lines durably, each once even when called again after a failure; StoreError when that fails."""


class Bundles(Protocol):
    """Job bundles (zips of the working directory) by content hash; a held job must outlive the submitter's laptop."""

    def put(self, sha256: str, chunks: Iterator[bytes]) -> None:
        """Store; InvalidInput when the content does not hash to `sha256`, is too large or unsafe to unpack. Atomic."""

    def has(self, sha256: str) -> bool:
        """Whether it is stored."""

    def receive(self, chunks: Iterator[bytes]) -> str:
        """Store as `put` does and return the SHA-256, which the sender does not know."""

    def open(self, sha256: str) -> Path:
        """A readable file, or NotFound."""


class DeliveredJournals(Protocol):
    """Energy segments that nodes leave in a folder shared with the server, by attempt; any job may write there."""

    def names(self, root: str, attempt_id: str) -> list[str]:
        """File names of an attempt, in no order; none when it left nothing. StoreError when the folder is not there."""

    def read(self, root: str, attempt_id: str, name: str) -> bytes:
        """One file of a segment's size at most; NotFound for anything else."""


class Vault(Protocol):
    """Keeps what must not be readable at rest, fetches secrets at the moment of use, and logs neither."""

    def seal(self, text: str) -> str:
        """Encrypt and authenticate; the same text gives another answer every time."""

    def unseal(self, sealed: str) -> str:
        """Inverse of `seal`; StoreError when the key is another one or the text was altered."""

    def fingerprint(self, text: str) -> str:
        """A keyed digest (64 hexadecimal digits): equal for equal texts, and no help in guessing them."""

    def secret(self, name: str, ref: SecretRef) -> str:
        """The secret's present value; InvalidInput naming `name` and where it was looked for."""


# ------------------------------------------------------------------------------------------------------------ clusters


@dataclass(frozen=True)
class RaySubmission:
    """What is sent to Ray for one attempt; `runtime_env` already holds our package, env and the working_dir URI.

    On Kubernetes it is said through the object `rayjob`, made from `manifest` where there is none yet.
    """

    submission_id: str
    entrypoint: str
    runtime_env: Mapping[str, Any]
    metadata: Mapping[str, str]
    entrypoint_num_cpus: float = 0.0
    entrypoint_num_gpus: float = 0.0
    entrypoint_memory: int = 0
    entrypoint_resources: Mapping[str, float] | None = None
    entrypoint_label_selector: Mapping[str, str] | None = None
    rayjob: RayJobObject | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RayJob:
    """A job as Ray tells it; evidence, not truth.

    `status` is Ray's own word: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED. `lasted_us` is from its submission to
    its end, None before it or where Ray does not tell.
    """

    submission_id: str
    status: str
    message: str = ""
    error_type: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None
    lasted_us: int | None = None


@dataclass(frozen=True)
class GpuPower:
    """One GPU as Ray shows it: its power in mW (None: not shown), and who holds which part of it.

    `holders` are millionths of the GPU by submission id; empty where nobody does, and where Ray does not say.
    """

    node_id: str
    uuid: str
    power_mw: int | None
    holders: Mapping[str, int]


@dataclass(frozen=True)
class ServedApp:
    """One application of Ray Serve as the cluster tells it.

    `status` is Serve's own word (DEPLOYING, RUNNING, UNHEALTHY, ...); `config` what was put there, None where it came
    another way than by REST; `nodes` are where its replicas run.
    """

    name: str
    status: str
    message: str = ""
    config: Mapping[str, Any] | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Served:
    """What Ray Serve does on a cluster; `port` None: it does not run. `answers`: one of its proxies is healthy."""

    apps: tuple[ServedApp, ...] = ()
    port: int | None = None
    answers: bool = False

    def app(self, name: str) -> ServedApp | None:
        """The application of this name, or None."""
        return next((app for app in self.apps if app.name == name), None)


class ClusterClient(Protocol):
    """One Ray cluster over HTTP. Every call has a timeout and a size cap and raises only ClusterError subclasses."""

    def status(self) -> ClusterStatus:
        """Nodes, usage and epoch now; never raises: a cluster that does not answer has a `problem`."""

    def epoch(self) -> Epoch:
        """Identity of the present control plane."""

    def clock_skew_s(self) -> float | None:
        """How far its clock is ahead of ours, to about a second; None when it does not tell its time."""

    def ensure_package(self, path: Path, name: str) -> str:
        """Upload the zip unless the cluster has it; returns its `gcs://` URI. ClusterRefused when it is too large."""

    def submit(self, submission: RaySubmission) -> None:
        """POST once. ClusterUnclear when the outcome is not known: then ask with `job`, never post blindly again.

        A duplicate id (HTTP 500 "already exists") counts as success: the id was ours and persisted before.
        """

    def job(self, submission_id: str) -> RayJob | None:
        """The job, or None when the cluster clearly does not know the id."""

    def jobs(self) -> list[RayJob]:
        """Every submission job the cluster knows."""

    def stop(self, submission_id: str) -> None:
        """Ask for a stop (SIGTERM, grace, SIGKILL); an unknown id is no error."""

    def logs(self, submission_id: str) -> bytes | None:
        """The driver log so far, at most 64 MiB (its end is kept); None without one. Wakes Ray's job manager."""

    def list_files(self, node_id: str, pattern: str) -> list[str]:
        """Names in the node's session log directory that match the glob."""

    def read_file(self, node_id: str, name: str, *, limit: int) -> bytes:
        """One file of that directory; ClusterError when it is larger than `limit` bytes."""

    def waiting_for_room(self) -> set[str]:
        """Submission ids of the jobs that wait for a placement group which no nodes have room for yet, or any more."""

    def served(self) -> Served:
        """What Ray Serve does there now."""

    def serve(self, applications: Sequence[Mapping[str, Any]], *, host: str, port: int) -> None:
        """Put the whole set of Serve's declared applications; host and port count where it did not run before."""

    def gpu_power(self) -> list[GpuPower]:
        """Every GPU of every node that Ray's own power gauge shows; none where Ray sees no GPUs."""


@dataclass(frozen=True)
class FoundRayJob:
    """A RayJob with our label, as it stands on its Kubernetes cluster.

    `kept` says that it has a cluster which stays until it is released. `job` names the job it was made for, if it was
    made by us, and `attempt` the last attempt that was admitted. `kueue` is why Kueue decides about it, empty where it
    does not.
    """

    namespace: str
    name: str
    uid: str
    manifest: Mapping[str, Any]
    suspended: bool
    ended: bool
    kept: bool = False
    job: str = ""
    attempt: str = ""
    kueue: str = ""


@dataclass(frozen=True)
class FoundRayCluster:
    """A RayCluster with our label: where its dashboard is reached, and what its annotations say of it by our names."""

    namespace: str
    name: str
    address: str
    annotations: Mapping[str, str]


class KubernetesClient(ClusterClient, Protocol):
    """A Kubernetes cluster with KubeRay: a `ClusterClient` whose submissions are RayJobs with clusters of their own.

    `submit` admits a RayJob (or makes it): once per attempt, and never an attempt older than one that was admitted.
    `stop` asks Ray; what Ray does not know yet is suspended at once.
    """

    def rayjobs(self) -> list[FoundRayJob]:
        """Every RayJob with our label in the namespaces that are ours to look at, as of a moment ago."""

    def exists(self, rayjob: RayJobObject) -> bool:
        """Whether the very object is there, asked now."""

    def release(self, found: FoundRayJob) -> None:
        """Have KubeRay delete the cluster of a RayJob whose attempt is over.

        One that has not ended is suspended, or deleted if we made it; an ended one need not wait for us any more.
        """

    def tell(self, found: FoundRayJob, reason: str, message: str, *, warning: bool) -> None:
        """Say something where `kubectl describe` shows it."""

    def ray_clusters(self) -> list[FoundRayCluster]:
        """Every RayCluster with our label that belongs to no RayJob and is ready."""


class Clusters(Protocol):
    """All clusters; local ones are started and re-adopted as needed."""

    def client(self, cluster: Cluster) -> ClusterClient:
        """The (cached) client of a cluster; secrets are read at use. Local heads are started or re-adopted here."""

    def forget(self, name: str) -> None:
        """Drop the cached client."""

    def stop_local(self, name: str) -> None:
        """End a local head that we own (by pid, start time and boot id); no-op when it is gone."""


class KubernetesClusters(Protocol):
    """Those of the clusters that are Kubernetes clusters."""

    def kubernetes(self, cluster: Cluster) -> KubernetesClient:
        """Its (cached) client, the same as `Clusters.client` gives."""


# ---------------------------------------------------------------------------------------------------------------- grid


class GridSource(Protocol):
    """Readings of intensity. Raises only GridError subclasses."""

    def readings(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """What is known or forecast for `[start, end)`, ordered, not overlapping; possibly with holes at the end."""

    def zones(self) -> frozenset[str]:
        """Zones this source can answer for."""


class YearlyAverages(Protocol):
    """The end of the fallback chain, which always answers: the yearly average of a zone, its country or the world."""

    def reading(self, zone: str, start: datetime, end: datetime, now: datetime) -> Reading:
        """One static reading over `[start, end)`, graded by how specific it is."""
