"""The tables, and the constraints that the database holds by itself. What needs a trigger is in `guards.py`.

Times are integer microseconds since 1970 (UTC), energies microjoules, intensities mg/kWh. A change here needs a
migration: see `migrations/README.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    not_,
)

from carbon_sched.domain.access import Kind, Role
from carbon_sched.domain.job import FINAL_STATES, JobEvent, JobState
from carbon_sched.store.columns import CauseText, Document, Instant, OutsideText, Serial

if TYPE_CHECKING:
    from collections.abc import Iterable

    from carbon_sched.domain.cause import Cause

ACCEPTED = "accepted"
"""The event of a new job's first row; every other one is a `JobEvent`."""

AMENDED = "amended"
"""An event that is no move: the job's spec was changed, its state was not."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in sorted(values))})"


def _cause(name: str) -> Column[Cause]:
    """Empty by default, so that code older than the column may write rows."""
    return Column(name, CauseText, nullable=False, server_default="")


_STATES = [state.value for state in JobState]
_EVENTS = [ACCEPTED, *(event.value for event in JobEvent)]
_FINAL = _one_of("state", (state.value for state in FINAL_STATES))

schema_info = Table(
    "schema_info",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),  # the number of the last migration that ran
    Column("min_code", Integer, nullable=False),  # code that knows fewer migrations than this must not open it
    CheckConstraint("id = 1", name="one_row"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("state", Text, CheckConstraint(_one_of("state", _STATES), name="state"), nullable=False),
    Column("event", Text, CheckConstraint(_one_of("event", _EVENTS), name="event"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("reason", OutsideText, nullable=False),
    _cause("cause"),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, CheckConstraint("attempts >= 0", name="attempts"), nullable=False),
    Column("amendments", Integer, nullable=False, server_default="0"),
    Column("submitted_at", Instant, nullable=False),
    Column("not_before", Instant),
    Column("finished_at", Instant),
    Column("exit_code", Integer),
    Column("idempotency_key", Text, unique=True),
    Column("request_sha256", Text, nullable=False),
    Column("spec", Document, nullable=False),
    # copies of what is in the spec, and of the newest attempt's cluster, for the filters of `jobs`
    Column("name", OutsideText, nullable=False),
    Column("team", OutsideText, nullable=False),
    Column("project", OutsideText, nullable=False),
    Column("phase", Text, nullable=False),
    Column("cluster", Text),
    CheckConstraint(f"(finished_at IS NOT NULL) = ({_FINAL})", name="finished_at_in_final_states"),
    CheckConstraint("exit_code IS NULL OR finished_at IS NOT NULL", name="exit_code_in_final_states"),
)
# Live jobs are few beside the finished ones; a finished job enters the other index once, at its end.
LIVE, FINISHED = jobs.c.finished_at.is_(None), jobs.c.finished_at.is_not(None)
_BY_TIME = (jobs.c.submitted_at, jobs.c.job_id)
Index("ix_jobs_live", *_BY_TIME, sqlite_where=LIVE, postgresql_where=LIVE)
Index("ix_jobs_finished", jobs.c.state, *_BY_TIME, sqlite_where=FINISHED, postgresql_where=FINISHED)
Index("ix_jobs_submitted_at", *_BY_TIME)
for _column in (jobs.c.team, jobs.c.project, jobs.c.name, jobs.c.cluster):
    Index(f"ix_jobs_{_column.name}", _column, *_BY_TIME)

job_events = Table(
    "job_events",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("job_id", Text, ForeignKey(jobs.c.job_id), nullable=False),
    Column("at", Instant, nullable=False),
    Column("event", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", OutsideText, nullable=False),
    _cause("cause"),
    Index("ix_job_events_job_id", "job_id", "id"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("job_id", Text, ForeignKey(jobs.c.job_id), nullable=False),
    Column("decided_at", Instant, nullable=False),
    Column("document", Document, nullable=False),
    Index("ix_decisions_job_id", "job_id", "id"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("attempt_id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey(jobs.c.job_id), nullable=False),
    Column("number", Integer, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("start_by", Instant, nullable=False),
    Column("epoch", OutsideText, nullable=False),
    Column("accepted", Boolean),
    Column("node_id", OutsideText, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("exit_code", Integer),
    Column("outcome", Text, nullable=False),
    Column("reason", OutsideText, nullable=False),
    _cause("cause"),
    _cause("recalled"),
    Column("collected", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("job_id", "number"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint("exit_code IS NULL OR outcome <> ''", name="exit_code_when_ended"),
)
OPEN = attempts.c.outcome == literal_column("''")  # a bound value would not match the partial index
UNCOLLECTED = not_(attempts.c.collected)
Index("uq_attempts_open", attempts.c.job_id, unique=True, sqlite_where=OPEN, postgresql_where=OPEN)
Index(
    "ix_attempts_uncollected",
    attempts.c.opened_at,
    attempts.c.attempt_id,
    sqlite_where=UNCOLLECTED,
    postgresql_where=UNCOLLECTED,
)

runs = Table(
    "runs",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("attempt_id", Text, ForeignKey(attempts.c.attempt_id), nullable=False, unique=True),
    Column("name", OutsideText, nullable=False),
    Column("document", Document, nullable=False),
    Index("ix_runs_name", "name", "id"),
    sqlite_autoincrement=True,  # readers go on from the number they saw last
)

batch_states = Table(
    "batch_states",
    metadata,
    Column("attempt_id", Text, ForeignKey(attempts.c.attempt_id), primary_key=True),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("since", Instant, nullable=False),
    Column("at", Instant, nullable=False),
    Column("energy_uj", BigInteger, nullable=False),
    Column("co2e_ug", BigInteger),
)

serve_apps = Table(
    "serve_apps",
    metadata,
    Column("name", Text, primary_key=True),
    Column("document", Document, nullable=False),
    Column("version", BigInteger, nullable=False),
)

request_counts = Table(
    "request_counts",
    metadata,
    Column("attempt_id", Text, ForeignKey(attempts.c.attempt_id), primary_key=True),
    Column("at", Instant, primary_key=True),
    Column("replicas", Document, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("payload", Document, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", Instant, nullable=False),  # while claimed: when the lease runs out
    Column("claims", Integer, nullable=False),  # counts claims and returns: the fence of whoever holds the newest one
    UniqueConstraint("kind", "key"),
    Index("ix_outbox_due", "kind", "due_at"),
    sqlite_autoincrement=True,  # an id that came back would let an old claim match a new action
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("term", BigInteger, nullable=False),  # counts holders: a fence that is never given twice
    Column("expires_at", Instant, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("team", OutsideText, primary_key=True),
    Column("project", OutsideText, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # days since 1970, UTC, of the attempt's end
    Column("cpu_s", Float, nullable=False),
    Column("gpu_s", Float, nullable=False),
)

clusters = Table(
    "clusters",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("document", Document, nullable=False),
    sqlite_autoincrement=True,
)

segments = Table(
    "segments",
    metadata,
    Column("segment_id", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("attempt_id", Text, nullable=False),
    Column("received_at", Instant, nullable=False),
)

spans = Table(
    "spans",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("segment_id", Text, ForeignKey(segments.c.segment_id), nullable=False),
    Column("owner", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("device_kind", Text, nullable=False),
    Column("start_at", Instant, nullable=False),
    Column("end_at", Instant, nullable=False),
    Column("energy_uj", BigInteger, CheckConstraint("energy_uj >= 0", name="energy_uj"), nullable=False),
    Column("source", Text, nullable=False),
    Column("reporter", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("error_ppm", BigInteger, nullable=False),
    Column("segment_sha256", Text, nullable=False),
    Column("flags", Document, nullable=False),
    CheckConstraint("end_at > start_at", name="interval"),
    Index("ix_spans_owner", "owner", "start_at"),
)

readings = Table(
    "readings",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("content_sha256", Text, nullable=False, unique=True),
    Column("zone", Text, nullable=False),
    Column("start_at", Instant, nullable=False),
    Column("end_at", Instant, nullable=False),
    Column("intensity_mg_per_kwh", BigInteger, nullable=False),
    Column("signal", Text, nullable=False),
    Column("basis", Text, nullable=False),
    Column("perimeter", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("grade", Text, nullable=False),
    Column("provider", OutsideText, nullable=False),
    Column("issued_at", Instant, nullable=False),
    Column("fetched_at", Instant, nullable=False),
    Column("low_mg_per_kwh", BigInteger),
    Column("high_mg_per_kwh", BigInteger),
    Column("model_version", OutsideText, nullable=False),
    Column("payload_sha256", Text, nullable=False),
    Column("licence", OutsideText, nullable=False),
    Column("retention", Text, nullable=False),
    CheckConstraint("end_at > start_at", name="interval"),
    CheckConstraint("intensity_mg_per_kwh >= 0", name="intensity"),
    Index("ix_readings_zone", "zone", "end_at", "start_at"),
)

ledger = Table(
    "ledger",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=False),
    Column("prev", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

people = Table(
    "people",
    metadata,
    Column("id", Serial, primary_key=True),  # the number in the pseudonym: never given twice, also after an erasure
    Column("person", Text, nullable=False, unique=True),
    sqlite_autoincrement=True,
)

policies = Table(
    "policies",
    metadata,
    Column("version", Serial, primary_key=True),
    Column("name", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("applied_at", Instant, nullable=False),
    Column("applied_by", OutsideText, nullable=False),
    Column("reason", OutsideText, nullable=False),
    Column("restored", BigInteger),
    Index("ix_policies_name", "name", "version"),
    sqlite_autoincrement=True,
)

budget_lines = Table(
    "budget_lines",
    metadata,
    Column("attempt_id", Text, ForeignKey(attempts.c.attempt_id), primary_key=True),
    Column("budget", Text, primary_key=True),
    Column("period_start", Instant, nullable=False),
    Column("reserved_ug", BigInteger, nullable=False),
    Column("reserved_uj", BigInteger, nullable=False),
    Column("settled_ug", BigInteger),
    Column("settled_uj", BigInteger),
    CheckConstraint("(settled_ug IS NULL) = (settled_uj IS NULL)", name="settled"),
    CheckConstraint("reserved_ug >= 0 AND reserved_uj >= 0", name="reserved"),
)
Index("ix_budget_lines_budget", budget_lines.c.budget, budget_lines.c.period_start)
_UNSETTLED = budget_lines.c.settled_ug.is_(None)
Index("ix_budget_lines_unsettled", budget_lines.c.attempt_id, sqlite_where=_UNSETTLED, postgresql_where=_UNSETTLED)

budget_approvals = Table(
    "budget_approvals",
    metadata,
    Column("job_id", Text, ForeignKey(jobs.c.job_id), primary_key=True),
    Column("budget", Text, primary_key=True),
    Column("period_start", Instant, primary_key=True),
    Column("approved_at", Instant, nullable=False),
    Column("approved_by", OutsideText, nullable=False),
    Column("reason", OutsideText, nullable=False),
)

credentials = Table(
    "credentials",
    metadata,
    Column("token_id", Text, primary_key=True),
    Column("sha256", Text, nullable=False, unique=True),  # of the secret, which nobody but its holder has
    Column("kind", Text, CheckConstraint(_one_of("kind", (kind.value for kind in Kind)), name="kind"), nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, CheckConstraint(_one_of("role", (role.value for role in Role)), name="role"), nullable=False),
    Column("teams", Document),  # NULL: every team
    Column("created_at", Instant, nullable=False),
    Column("created_by", OutsideText, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    Column("parent", Text),  # no foreign key: the server's own token has no row
)

schedules = Table(
    "schedules",
    metadata,
    Column("schedule_id", Text, primary_key=True),
    Column("cron", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("name", OutsideText, nullable=False),
    Column("team", OutsideText, nullable=False),
    Column("submitter", OutsideText, nullable=False),
    Column("sealed_request", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("next_at", Instant, nullable=False),
    Column("last_job", Text, nullable=False),
    Column("problem", OutsideText, nullable=False),
    Column("stopped_at", Instant),
)
RUNNING = schedules.c.stopped_at.is_(None)
Index("ix_schedules_running", schedules.c.created_at, sqlite_where=RUNNING, postgresql_where=RUNNING)

plan_state = Table(
    "plan_state",
    metadata,
    Column("id", BigInteger, CheckConstraint("id = 1", name="one"), primary_key=True, autoincrement=False),
    Column("state", Document, nullable=False),
)

ray_jobs = Table(
    "ray_jobs",
    metadata,
    Column("job_id", Text, ForeignKey(jobs.c.job_id), primary_key=True),
    Column("submission_id", OutsideText, unique=True),
    Column("deleted_at", Instant),
    CheckConstraint("(submission_id IS NULL) = (deleted_at IS NOT NULL)", name="deleted"),
)

ray_packages = Table(
    "ray_packages",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("name", OutsideText, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("stored_at", Instant, nullable=False),
)
