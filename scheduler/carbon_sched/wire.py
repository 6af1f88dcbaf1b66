"""Shapes of our REST API, version 1, written once: the server validates with them, the client is typed by them.

TypedDicts, so that the command line loads no validation library. Times are RFC 3339 text in UTC, durations seconds.
Unknown keys are refused by the server.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import NotRequired, TypedDict


class ResourcesRequest(TypedDict, total=False):
    """What the job occupies; `entrypoint_*` go to Ray as they are, the rest describes its workers."""

    entrypoint_num_cpus: float
    entrypoint_num_gpus: float
    entrypoint_memory: int
    entrypoint_resources: dict[str, float]
    entrypoint_label_selector: dict[str, str]
    workers: int
    gpus_per_worker: float
    gpus: float
    gpu_type: str
    gpu_memory_gb: float
    placement: str


class DataRequest(TypedDict):
    """An input that must reach the cluster: `--data URI=SIZE@ZONE`."""

    uri: str
    size_bytes: int
    zone: str


class JobRequest(TypedDict):
    """Body of POST /v1/jobs. Only `entrypoint` is needed.

    `secrets` are environment variables whose value the server reads at dispatch, from `file:PATH` or `env:VARIABLE`.
    `rayjob` is a RayJob manifest, whose entrypoint is then the job's: it is made on the Kubernetes cluster chosen.
    `variants` are arguments by name, the baseline first; `slice` is how many of its `item`s one is tried with.
    """

    entrypoint: str
    name: NotRequired[str]
    runtime_env: NotRequired[dict[str, Any]]
    secrets: NotRequired[dict[str, str]]
    bundle_sha256: NotRequired[str | None]
    metadata: NotRequired[dict[str, str]]
    phase: NotRequired[str]
    stage: NotRequired[str]
    model: NotRequired[str]
    project: NotRequired[str]
    team: NotRequired[str]
    resources: NotRequired[ResourcesRequest]
    duration_s: NotRequired[float | None]
    power_w: NotRequired[float | None]
    earliest: NotRequired[str | None]
    deadline: NotRequired[str | None]
    max_delay_s: NotRequired[float | None]
    interruptible: NotRequired[bool]
    restart_s: NotRequired[float | None]
    storage: NotRequired[str]
    data: NotRequired[list[DataRequest]]
    clusters: NotRequired[list[str]]
    policy: NotRequired[str]
    priority: NotRequired[str]
    now: NotRequired[bool]
    after: NotRequired[list[str]]
    rayjob: NotRequired[dict[str, Any]]
    variants: NotRequired[dict[str, str]]
    quality_floor: NotRequired[str]
    item: NotRequired[str]
    slice: NotRequired[int]


class ScheduleRequest(TypedDict):
    """Body of POST /v1/schedules: a request that is submitted whenever `cron` is due in `zone` (UTC by default)."""

    cron: str
    zone: NotRequired[str]
    request: JobRequest


class ScheduleView(TypedDict):
    """A schedule; `problem` is why its last moment brought no job, empty where it did."""

    schedule_id: str
    name: str
    team: str
    submitter: str
    cron: str
    zone: str
    created_at: str
    next_at: str
    last_job: str | None
    problem: str
    stopped_at: str | None


class AppRequest(TypedDict):
    """Body of PUT /v1/serve-apps/{name}: `application` as Ray Serve's own configuration takes it.

    `replicas` with `gpus_per_replica` are the room it needs; `latencies_ms` the users' latencies to clusters. Its other
    fields are those of an `AppSpec` (domain/serve_app.py) and of a job.
    """

    name: str
    application: dict[str, Any]
    bundle_sha256: NotRequired[str | None]
    replicas: NotRequired[int]
    gpus_per_replica: NotRequired[float]
    gpu_type: NotRequired[str]
    power_w: NotRequired[float | None]
    clusters: NotRequired[list[str]]
    model: NotRequired[str]
    project: NotRequired[str]
    team: NotRequired[str]
    policy: NotRequired[str]
    metadata: NotRequired[dict[str, str]]
    max_latency_ms: NotRequired[float | None]
    latencies_ms: NotRequired[dict[str, float]]
    horizon_s: NotRequired[float]
    min_gain: NotRequired[float]
    min_stay_s: NotRequired[float]
    max_age_s: NotRequired[float]
    drain_s: NotRequired[float]


class SiteView(TypedDict):
    """A service on one cluster; `job_id` is the job that meters it, whose receipt holds what it used there."""

    cluster: str
    job_id: str
    address: str
    chosen_at: str
    expected_g_per_kwh: float
    healthy_at: str | None
    leaves_at: str | None


class AppView(TypedDict):
    """A service; `problem` is what a person should know, or empty."""

    name: str
    state: str
    team: str
    model: str
    submitter: str
    created_at: str
    address: str | None
    current: SiteView | None
    coming: SiteView | None
    leaving: list[SiteView]
    problem: str


class EndpointView(TypedDict):
    """Where a service is reached now. An address may be kept for `max_age_s`: so long it answers, whatever moves."""

    name: str
    address: str
    cluster: str
    max_age_s: float


class RequestsView(TypedDict):
    """What a service's replicas answered from `since` to `until`, and what they used: idle time included.

    `energy_j` is IT energy, metered; `j_per_request` times `requests` is all of it. `batch_size` is the mean number of
    requests in flight while there were any. `boundary` says what is in the figures. `serve_requests` is what Ray Serve
    counted itself, which comes up to 20 s late: beside the middleware's count, or where no `replicas` have a middleware
    in its place. Unknown is None.
    """

    name: str
    since: str
    until: str
    boundary: str
    replicas: int
    requests: int
    failed: int
    serve_requests: int | None
    serve_failed: int | None
    input_tokens: int
    output_tokens: int
    batch_size: float | None
    p50_s: float | None
    p95_s: float | None
    energy_j: float
    co2e_g: float | None
    j_per_request: float | None
    co2e_g_per_request: float | None
    j_per_output_token: float | None
    co2e_g_per_output_token: float | None


class JobAmendment(TypedDict, total=False):
    """Body of PATCH /v1/jobs/{id}: what a job that has not ended asks for from now on; what is left out stays.

    `now` starts a waiting job at once, and takes its earliest start back. A `deadline` takes the place of the longest
    delay, unless that is given too. With `amendments`, the number that the caller saw, it is refused where somebody
    else amended the job since. Asking for what is so already changes nothing.
    """

    now: bool
    deadline: str
    max_delay_s: float
    amendments: int


class ResolveRequest(TypedDict):
    """Body of POST /v1/jobs/{id}/resolve: succeeded, failed, stopped or requeue."""

    resolution: str
    note: NotRequired[str]


class AttemptView(TypedDict):
    """One submission to one cluster; times are the wrapper's own."""

    attempt_id: str
    number: int
    cluster: str
    opened_at: str
    started_at: str | None
    ended_at: str | None
    exit_code: int | None
    outcome: str
    reason: str
    cause: str
    collected: bool


class JobView(TypedDict):
    """A job as GET /v1/jobs/{id} shows it. `planned_start` is set while it is delayed.

    `position` is its place among queued jobs, by class and age; who starts first is also a matter of fair share, of
    room and of the grid's hours. What it asks of time (`now` to `max_delay_s`) is as it was amended last, `amendments`
    times in all.
    """

    job_id: str
    name: str
    state: str
    reason: str
    cause: str
    position: int | None
    after: list[str]
    version: int
    entrypoint: str
    phase: str
    stage: str
    model: str
    project: str
    team: str
    submitter: str
    submitted_at: str
    planned_start: str | None
    now: bool
    earliest: str | None
    deadline: str | None
    max_delay_s: float | None
    amendments: int
    cluster: str | None
    finished_at: str | None
    exit_code: int | None
    metadata: dict[str, str]
    attempts: list[AttemptView]
    batch: BatchView | None


class BatchView(TypedDict):
    """How far a batch has come. Energy and gCO2e are those metered so far of all its attempts, per item that is done.

    `expected_end` is at the pace of the attempt that runs, None where none does; `late` says that it is after the
    job's deadline. Unknown is None.
    """

    done: int
    total: int
    at: str
    energy_j: float
    co2e_g: float | None
    j_per_item: float | None
    co2e_g_per_item: float | None
    expected_end: str | None
    deadline: str | None
    late: bool


class JobList(TypedDict):
    """GET /v1/jobs, newest first; pass `next` as `after` for the next page."""

    jobs: list[JobView]
    next: str | None


class CandidateView(TypedDict):
    """One cluster at its best allowed start; `reason` says why when it is not feasible.

    Of `co2e_g`, `overhead_g` are nodes that come for the job and `transfer_g` data on its way; the share of the GPUs'
    manufacture (`embodied_*`) stands beside it. `room_g_per_kwh` is what the last room of the starting hour is worth
    to the waiting jobs, null while there is enough.
    """

    cluster: str
    zone: str
    feasible: bool
    reason: str
    start: str | None
    end: str | None
    energy_kwh: float | None
    co2e_g: float | None
    now_co2e_g: float | None
    room_g_per_kwh: float | None
    intensity_g_per_kwh: float | None
    pue: float | None
    grade: str | None
    overhead_g: float
    transfer_g: float
    embodied_low_g: float | None
    embodied_high_g: float | None


class StartView(TypedDict):
    """Expected grams of a run that starts at `start`; low and high if every hour came at its 10 % or 90 % quantile."""

    start: str
    co2e_g: float
    low_g: float
    high_g: float


class DecisionView(TypedDict):
    """GET /v1/jobs/{id}/decision and dry runs (`job_id` empty there). `verdict` is place, delay, hold or refuse.

    `curve` is what every start on the chosen cluster would emit. A job that may wait starts by `latest_start`; with a
    deadline, a run from then on still ends in time with the probability `deadline_confidence`.
    """

    job_id: str
    verdict: str
    decided_at: str
    reason: str
    cluster: str | None
    start: str | None
    expected_energy_kwh: float | None
    expected_co2e_g: float | None
    expected_duration_s: float | None
    expected_power_w: float | None
    estimate_source: str
    references: dict[str, float]
    candidates: list[CandidateView]
    policy: str
    curve: list[StartView]
    latest_start: str | None
    deadline_confidence: float | None


class LogChunk(TypedDict):
    """GET /v1/jobs/{id}/logs?attempt=A&offset=N&wait_s=S: text from byte `offset` on of one attempt's log.

    Go on with the chunk's `attempt` (0 before any) and `next_offset` until `final`: behind the end of one attempt's log
    the next one's begins. Without `attempt`, the newest's.
    """

    attempt: int
    text: str
    next_offset: int
    final: bool


class ReceiptDevice(TypedDict):
    """Energy of one device for this job."""

    machine: str
    device: str
    kind: str
    source: str
    reporter: str
    rule: str
    energy_j: float
    error_pct: float


class ReceiptReference(TypedDict):
    """The same measured energy as it would have been booked elsewhere; `saved_g` may be negative."""

    name: str
    cluster: str
    zone: str
    start: str
    co2e_g: float
    saved_g: float
    note: str


class ReceiptWindow(TypedDict):
    """A stretch of an attempt that its own code named (`meter.window`): the attempt's own energy over that time.

    `co2e_g` is None, and `co2e_g_per_unit` empty, where the intensity is not known for all of it.
    """

    attempt: str
    name: str
    start: str
    end: str
    energy_j: float
    co2e_g: float | None
    units: dict[str, float]
    j_per_unit: dict[str, float]
    co2e_g_per_unit: dict[str, float]


class ReceiptPerUnit(TypedDict):
    """All that the job used, start-up and lost work too, by the `amount` of work its windows counted.

    `energy_j` (IT energy) and `co2e_g` are for one unit; `co2e_g` is None where some intensity is not known.
    """

    amount: float
    energy_j: float
    co2e_g: float | None


class ReceiptOverhead(TypedDict):
    """What a suspension took of an attempt beside its work; part of the receipt's energy and CO2e.

    `kind` is `lost-work` (since the last saved state, done again afterwards), `saving` or `restart`. `co2e_g` is None
    where the intensity is not known for all of it.
    """

    attempt: str
    kind: str
    start: str
    end: str
    energy_j: float
    co2e_g: float | None


class Receipt(TypedDict):
    """GET /v1/jobs/{id}/receipt. `final` is false while the job runs or its energy is not completely collected."""

    job_id: str
    name: str
    state: str
    final: bool
    missing: list[str]
    cluster: str | None
    zone: str | None
    started_at: str | None
    ended_at: str | None
    duration_s: float | None
    energy_kwh: float
    energy_by_source_j: dict[str, float]
    devices: list[ReceiptDevice]
    pue: float | None
    pue_source: str
    facility_kwh: float
    intensity_g_per_kwh: float | None
    intensity_provider: str
    intensity_basis: str
    intensity_grade: str
    co2e_g: float
    co2e_ug: int
    expected_co2e_g: float | None
    references: list[ReceiptReference]
    notes: list[str]
    quality: dict[str, float]
    variant: str | None
    windows: list[ReceiptWindow]
    per_unit: dict[str, ReceiptPerUnit]
    suspensions: int
    overhead: list[ReceiptOverhead]
    ledger_head: str


class LocalRequest(TypedDict, total=False):
    """A Ray head the server starts on its own machine."""

    cpus: int | None
    gpus: int | None


class KubernetesRequest(TypedDict, total=False):
    """Of a Kubernetes cluster: `address` is its API server's. RayJobs are taken up in `namespaces`; none means all."""

    namespaces: list[str]
    create_in: list[str]
    discover: bool


class PoolRequest(TypedDict):
    """Nodes of one kind; `node_resources` in Ray's names."""

    name: str
    node_resources: dict[str, float]
    max_nodes: int
    gpu_type: NotRequired[str | None]
    node_lifetime: NotRequired[str]
    provisioning_s: NotRequired[float]
    idle_timeout_s: NotRequired[float]


class ClusterRequest(TypedDict):
    """Body of PUT /v1/clusters/{name}. Exactly one of `address` and `local`. Secrets as `file:PATH` or `env:VAR`.

    `meter_keys` are public keys of its machine meters, as `carbon-sched meter key` prints them. `push_to` is this
    server's address as the cluster's nodes reach it: they push their energy journals there. `journal_store` is
    `file:PATH`, a folder that nodes and server mount at the same path: nodes leave their energy journals there.
    """

    zone: str
    address: NotRequired[str]
    local: NotRequired[LocalRequest | None]
    pue: NotRequired[float | None]
    pue_period: NotRequired[str]
    pue_source: NotRequired[str]
    token: NotRequired[str | None]
    ca_file: NotRequired[str | None]
    headers: NotRequired[dict[str, str]]
    allow_plain_http_token: NotRequired[bool]
    residency: NotRequired[list[str]]
    pools: NotRequired[list[PoolRequest]]
    price_per_gpu_hour: NotRequired[float | None]
    start_grace_s: NotRequired[float]
    home: NotRequired[bool]
    push_to: NotRequired[str]
    serve_address: NotRequired[str]
    journal_store: NotRequired[str]
    meter_keys: NotRequired[list[str]]
    kubernetes: NotRequired[KubernetesRequest | None]


class DrainRequest(TypedDict, total=False):
    """Body of POST /v1/clusters/{name}/drain; with `evict`, jobs there are stopped and queued again."""

    evict: bool


class ClusterView(TypedDict):
    """GET /v1/clusters[/{name}]: what is configured and what was last seen. `problem` is None when it is usable.

    `cordoned`: it gets no new jobs. `jobs_open` counts those that are there, or on their way.
    """

    name: str
    zone: str
    pue: float
    pue_period: str
    pue_source: str
    address: str
    local: bool
    home: bool
    residency: list[str]
    cordoned: bool
    jobs_open: int
    problem: str | None
    checked_at: str | None
    ray_version: str
    nodes: int
    cpus: float
    cpus_used: float | None
    gpus: float
    gpus_used: float | None
    intensity_g_per_kwh: float
    intensity_grade: str
    intensity_provider: str


class ClusterCheck(TypedDict):
    """POST /v1/clusters/{name}/check: plain-language findings; `level` is ok, warning or problem."""

    name: str
    findings: list[dict[str, str]]


class IntensityView(TypedDict):
    """Carbon intensity of a zone over `[start, end)`; low and high are the 10 % and 90 % quantiles of a forecast."""

    zone: str
    start: str
    end: str
    g_per_kwh: float
    low_g_per_kwh: float | None
    high_g_per_kwh: float | None
    signal: str
    basis: str
    perimeter: str
    kind: str
    grade: str
    provider: str
    model_version: str
    issued_at: str
    fetched_at: str
    licence: str


class GridNow(TypedDict):
    """GET /v1/grid/now?zone=A&zone=B: comparable intensities; without zones, of all clusters."""

    at: str
    readings: list[IntensityView]
    notes: list[str]


class ZoneReadings(TypedDict):
    """One zone: readings in order of time, without gaps."""

    zone: str
    readings: list[IntensityView]


class SkillView(TypedDict):
    """How the `issues` hourly own forecasts of a zone that came true in the last 28 days did; shares are 0..1.

    `captured` is the share of a perfect forecast's saving (a 4 h job that must end within 24 h), `damped_captured` that
    of a simple profile, `possible` what there was to save: null where there was nothing. `mape_pct` is the mean error
    of the first day, `covered` the share of hours within the 10-90 band (null while there is no band).
    """

    issues: int
    captured: float | None
    damped_captured: float | None
    possible: float | None
    mape_pct: float | None
    covered: float | None


class ZoneForecast(ZoneReadings):
    """What is expected of one zone, and how our own forecasts of it did lately (null: too few to judge)."""

    skill: SkillView | None


class GridForecast(TypedDict):
    """GET /v1/grid/forecast?zone=A&zone=B&hours=N: comparable outlooks over `[at, until)`; notes say what was done."""

    at: str
    until: str
    zones: list[ZoneForecast]
    notes: list[str]


class GridHistory(TypedDict):
    """GET /v1/grid/history?zone=A&since=T: what would be booked for `[since, until)`."""

    zone: str
    since: str
    until: str
    readings: list[IntensityView]


class ProviderView(TypedDict):
    """One of GET /v1/grid/providers. `key` says where it is read, `zones` (if configured) for which it is asked.

    `problems` are the zones whose newest request failed, and why.
    """

    provider: str
    configured: bool
    zones: list[str]
    coverage: str
    counts: str
    forecast: str
    needs_key: str
    key: str
    licence: str
    options: list[str]
    problems: dict[str, str]


class GridFinding(TypedDict):
    """What the check of one provider or file found; `problem`, `detail` and `remedy` are empty when all is well.

    `forecast_until` is None without a forecast; a provider is asked for the next hours only, so it may reach further.
    """

    provider: str
    zone: str
    ok: bool
    problem: str
    detail: str
    remedy: str
    newest_at: str | None
    g_per_kwh: float | None
    forecast_until: str | None


class GridCheck(TypedDict):
    """POST /v1/grid/check: every configured source was asked once, past its memory."""

    findings: list[GridFinding]


class PolicyRequest(TypedDict):
    """Body of POST /v1/policies: a policy file. `after` is the last version that was looked at.

    With `backtest_margin_ppm` the jobs of the last weeks are replayed before and after: CO2e may grow by no more than
    that part of what it was, late jobs by no more than that part of all.
    """

    content: str
    reason: NotRequired[str]
    after: NotRequired[int | None]
    backtest_margin_ppm: NotRequired[int | None]


class RollbackRequest(TypedDict, total=False):
    """Body of POST /v1/policies/{name}/rollback; without `to`, the version before the present one."""

    to: int | None
    reason: str


class PolicyBacktest(TypedDict):
    """What a change of policies would have done to the jobs that ran from `since` to `until`; `told` says it in words.

    `left_out` jobs of that time could not be replayed. `late` counts those that missed what they had declared.
    """

    since: str
    until: str
    jobs: int
    left_out: int
    before_ug: int
    after_ug: int
    before_late: int
    after_late: int
    margin_ppm: int
    worse: bool
    told: str


class PolicyView(TypedDict):
    """A policy, or one version of it. `version` and what follows are null for a preset as it is shipped.

    `backtest` is in the answer to applying with one, and null elsewhere; the ledger keeps it.
    """

    name: str
    label: str
    description: str
    team: str
    levels: list[str]
    content: str | None
    version: int | None
    applied_at: str | None
    applied_by: str | None
    reason: str | None
    restored: int | None
    backtest: PolicyBacktest | None


class BudgetView(TypedDict):
    """A budget in its present period; amounts in micrograms of CO2e and microjoules of IT energy.

    `settled` is metered, `reserved` expected of what is not over; `forecast` extends both to the whole period and is
    null on its first day. A limit is null where there is none.
    """

    budget: str
    team: list[str]
    project: list[str]
    model: list[str]
    every: str
    start: str
    end: str
    over: str
    limit_ug: int | None
    settled_ug: int
    reserved_ug: int
    forecast_ug: int | None
    limit_uj: int | None
    settled_uj: int
    reserved_uj: int
    forecast_uj: int | None


class ApproveRequest(TypedDict):
    """Body of POST /v1/jobs/{id}/approve: let it exceed the budgets that hold it."""

    reason: str


class Approval(TypedDict):
    """The budgets that a job may exceed now."""

    job_id: str
    budgets: list[str]


class SettingView(TypedDict):
    """A value that holds, as it would stand in a file; `level` and `place` are empty where no file sets it."""

    key: str
    value: Any
    level: str
    place: str
    locked_by: str


class EffectiveView(TypedDict):
    """What a policy means for one job: GET /v1/jobs/{id}/policy."""

    policy: str
    label: str
    settings: list[SettingView]


class ServerView(TypedDict):
    """GET /v1/server."""

    version: str
    pid: int
    started_at: str
    url: str
    data_dir: str
    database: str
    jobs_live: int
    leader: bool
    local_clusters: list[str]
    ledger_size: int
    ledger_head: str


class SealView(TypedDict):
    """GET /v1/ledger/seal: `line` is what the places hold; `problems` by place, for those that are behind."""

    key: str
    line: str | None
    sealed_at: str | None
    size: int | None
    places: list[str]
    problems: dict[str, str]


class ImportRequest(TypedDict):
    """Body of POST /v1/ledger/imports: the text of an emissions.csv; `timezone` (IANA) is of the times in it."""

    content: str
    timezone: str
    team: NotRequired[str]
    project: NotRequired[str]
    model: NotRequired[str]
    phase: NotRequired[str]
    stage: NotRequired[str]


class Imported(TypedDict):
    """How many runs were imported."""

    runs: int


class VerifyView(TypedDict):
    """GET /v1/ledger/verify."""

    ok: bool
    size: int
    head: str
    first_bad_seq: int | None
    problem: str


class TokenRequest(TypedDict):
    """Body of POST /v1/tokens. `teams` None or left out: every team, and jobs without one."""

    name: str
    role: str
    lifetime_s: float
    teams: NotRequired[list[str] | None]


class EraseRequest(TypedDict):
    """Body of POST /v1/people/erase: the name to forget."""

    person: str


class Erased(TypedDict):
    """What stands in the person's place from now on."""

    pseudonym: str


class TokenView(TypedDict):
    """A token without its secret."""

    token_id: str
    name: str
    role: str
    teams: list[str] | None
    created_at: str
    created_by: str
    expires_at: str
    revoked_at: str | None


class NewToken(TokenView):
    """Answer of POST /v1/tokens; `token` is the secret, shown once."""

    token: str


class LoginCode(TypedDict):
    """Answer of POST /v1/login-codes: a path on this server that works once, for two minutes."""

    path: str


class SessionView(TypedDict):
    """GET /v1/session: who the caller is. `csrf_token` goes into the header X-CSRF-Token of a browser's changes."""

    name: str
    role: str
    teams: list[str] | None
    csrf_token: str | None


class Problem(TypedDict):
    """Every error answer (RFC 9457 problem+json)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    exit_code: int
    field: NotRequired[str]
    value: NotRequired[str]
    remedy: NotRequired[str]


for _request in (
    ResourcesRequest,
    DataRequest,
    JobRequest,
    LocalRequest,
    PoolRequest,
    ClusterRequest,
    PolicyRequest,
    RollbackRequest,
    ApproveRequest,
    TokenRequest,
    ResolveRequest,
    DrainRequest,
):
    # how pydantic is told, without importing it, that unknown keys are refused
    setattr(_request, "__pydantic_config__", {"extra": "forbid"})  # noqa: B010 - no attribute that a type checker knows
