"""Between Ray's words and ours: a submission becomes a request, a job becomes Ray's details. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from typing_extensions import NotRequired, TypedDict

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import JobState
from carbon_sched.domain.time import UTC, to_epoch
from carbon_sched.options.given import Given
from carbon_sched.options.request import OPTIONS, build

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from carbon_sched.domain.job import Attempt, Job
    from carbon_sched.wire import JobRequest

HINT = "carbon-sched."
HINTS = tuple(name for name in OPTIONS if name not in ("metadata", "working-dir", "runtime-env"))
"""What Ray's own fields do not say; flags of Ray's for the entrypoint may be said either way."""
LISTS = ("cluster", "data", "secret", "after", "variant")
FLAGS = ("interruptible", "now")
RESOURCES = (
    "entrypoint_num_cpus",
    "entrypoint_num_gpus",
    "entrypoint_memory",
    "entrypoint_resources",
    "entrypoint_label_selector",
)
SUBMISSION_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")
STATUS = {
    JobState.QUEUED: "PENDING",
    JobState.DISPATCHING: "PENDING",
    JobState.STARTING: "PENDING",
    JobState.RUNNING: "RUNNING",
    JobState.STOPPING: "RUNNING",
    JobState.SUCCEEDED: "SUCCEEDED",
    JobState.FAILED: "FAILED",
    JobState.REFUSED: "FAILED",
    JobState.LOST: "FAILED",
    JobState.STOPPED: "STOPPED",
}


class Submission(TypedDict):
    """Body of POST /api/jobs/, as Ray's clients send it; `job_id` is the old name of `submission_id`."""

    entrypoint: str
    submission_id: NotRequired[str | None]
    job_id: NotRequired[str | None]
    runtime_env: NotRequired[dict[str, Any] | None]
    metadata: NotRequired[dict[str, str] | None]
    entrypoint_num_cpus: NotRequired[float | None]
    entrypoint_num_gpus: NotRequired[float | None]
    entrypoint_memory: NotRequired[int | None]
    entrypoint_resources: NotRequired[dict[str, float] | None]
    entrypoint_label_selector: NotRequired[dict[str, str] | None]


class Details(TypedDict):
    """A job as Ray's `JobDetails`; times are milliseconds since 1970. What only a cluster knows is None."""

    type: str
    job_id: str | None
    submission_id: str
    driver_info: dict[str, str] | None
    status: str
    entrypoint: str
    message: str
    error_type: str | None
    start_time: int
    end_time: int | None
    metadata: dict[str, str]
    runtime_env: dict[str, Any]
    driver_agent_http_address: str | None
    driver_node_id: str | None
    driver_exit_code: int | None


setattr(Submission, "__pydantic_config__", {"extra": "forbid"})  # noqa: B010 - as in wire.py


def request_of(body: Submission, now: datetime, content_of: Callable[[str], str]) -> JobRequest:
    """Our request for a submission; `content_of` gives the SHA-256 of an uploaded package by its `gcs://` URI.

    Raises InvalidInput for hints that cannot be meant.
    """
    metadata = body.get("metadata") or {}
    request = build(body["entrypoint"], hints(metadata), now, UTC).request
    if "name" not in request and metadata.get("job_name"):
        request["name"] = metadata["job_name"]
    asked = {name: value for name in RESOURCES if (value := body.get(name)) is not None}
    if asked:
        request["resources"] = {**request.get("resources", {}), **asked}  # type: ignore[typeddict-item]
    request["metadata"] = metadata
    environment = dict(body.get("runtime_env") or {})
    if str(environment.get("working_dir", "")).startswith("gcs://"):
        request["bundle_sha256"] = content_of(environment.pop("working_dir"))
    if isinstance(modules := environment.get("py_modules"), list):
        environment["py_modules"] = [_stored(module, content_of) for module in modules]
    request["runtime_env"] = environment
    return request


def hints(metadata: Mapping[str, str]) -> dict[str, Given]:
    """`submit`'s options from metadata keys such as `carbon-sched.max-delay`; lists are separated by commas.

    Raises InvalidInput for a key that is no option: a word that is not understood must not be taken for one that is.
    """
    found: dict[str, Given] = {}
    for key, text in metadata.items():
        if not key.startswith(HINT):
            continue
        name = key.removeprefix(HINT).replace("_", "-")
        if name not in HINTS:
            raise InvalidInput(key, text, "is not a hint", f"There are: {', '.join(HINTS)}")
        value: Any = text
        if name in LISTS:
            value = [item.strip() for item in text.split(",")]
        elif name in FLAGS and text.lower() in ("true", "false"):
            value = text.lower() == "true"
        found[name] = Given(value, key)
    return found


def submission_id_of(body: Submission) -> str | None:
    """The id that was chosen, if any; InvalidInput for one that no URL could name."""
    chosen = body.get("submission_id") or body.get("job_id")
    if chosen is not None and not SUBMISSION_ID.fullmatch(chosen):
        raise InvalidInput("submission_id", chosen, "is not an id", "Use letters, digits and _ . -, at most 200")
    return chosen


def details(job: Job, submission_id: str, attempt: Attempt | None = None) -> Details:
    """The job in Ray's words. `start_time` is when it was submitted, as with Ray."""
    spec = job.spec
    return {
        "type": "SUBMISSION",
        "job_id": None,
        "submission_id": submission_id,
        "driver_info": None,
        "status": STATUS[job.state],
        "entrypoint": spec.entrypoint,
        "message": job.reason,
        "error_type": None,
        "start_time": round(to_epoch(job.submitted_at) * 1000),
        "end_time": None if job.finished_at is None else round(to_epoch(job.finished_at) * 1000),
        "metadata": dict(spec.metadata),
        "runtime_env": dict(spec.runtime_env),
        "driver_agent_http_address": None,
        "driver_node_id": (attempt.node_id or None) if attempt else None,
        "driver_exit_code": job.exit_code,
    }


def _stored(module: Any, content_of: Callable[[str], str]) -> Any:
    """A module that was uploaded to us, by its content; a wheel keeps its name, by which it is installed."""
    if not str(module).startswith("gcs://"):
        return module
    name = str(module).removeprefix("gcs://")
    return f"bundle://{content_of(module)}" + (f"/{name}" if name.endswith(".whl") else "")
