"""Turn a JobRequest into a JobSpec, refusing what cannot be meant: names the field, the value and the remedy."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, TypeVar

from carbon_sched.domain.cluster import SecretRef
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import (
    Bundle,
    DataInput,
    Dependency,
    Estimate,
    Flexibility,
    JobSpec,
    Phase,
    Placement,
    Resources,
)
from carbon_sched.domain.kubernetes import RayJobObject
from carbon_sched.domain.time import from_rfc3339
from carbon_sched.domain.variant import variants_of
from carbon_sched.options.rayjob import bundles_of, entrypoint_of, require_usable, runtime_env_of
from carbon_sched.service.runtime_env import UNWRAPPED_KEYS

if TYPE_CHECKING:
    from datetime import datetime
    from enum import Enum

    from carbon_sched.domain.variant import Variants
    from carbon_sched.wire import JobRequest, ResourcesRequest

    AnyEnum = TypeVar("AnyEnum", bound=Enum)

LABEL = re.compile(r"[^\x00-\x1f\x7f]{0,200}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_ENTRYPOINT = 100_000
MAX_DEPTH = 32


def job_spec(request: JobRequest, *, submitter: str, now: datetime) -> JobSpec:
    """The validated spec of a request; raises InvalidInput for the first field that cannot be used."""
    entrypoint, manifest = request["entrypoint"], request.get("rayjob")
    if manifest is not None:
        _require_of_manifest(request, manifest)
    if not entrypoint.strip() or len(entrypoint) > MAX_ENTRYPOINT or "\0" in entrypoint:
        remedy = "Give the command to run, for example 'python job.py', at most 100,000 characters"
        raise InvalidInput("entrypoint", entrypoint, "is not a command", remedy)
    labels = {
        key: label(key, str(request.get(key, ""))) for key in ("name", "stage", "model", "project", "team", "policy")
    }
    return JobSpec(
        entrypoint=entrypoint,
        name=labels["name"] or _name_from(entrypoint),
        runtime_env=_runtime_env(runtime_env_of(manifest) if manifest else request.get("runtime_env", {})),
        secrets={name: _secret(name, text) for name, text in request.get("secrets", {}).items()},
        bundle_sha256=_sha256(request.get("bundle_sha256")),
        metadata=request.get("metadata", {}),
        phase=one_of("phase", request.get("phase", Phase.OTHER.value), Phase),
        stage=labels["stage"],
        model=labels["model"],
        project=labels["project"],
        team=labels["team"],
        submitter=submitter,
        resources=_resources(request.get("resources", {}), bundles_of(manifest) if manifest else ()),
        flexibility=flexibility_of(request, now),
        estimate=Estimate(
            _positive("duration", request.get("duration_s"), "seconds"),
            _positive("power", request.get("power_w"), "watts"),
        ),
        data=tuple(DataInput(item["uri"], _size(item["size_bytes"]), item["zone"]) for item in request.get("data", [])),
        clusters=tuple(request.get("clusters", [])),
        start_now=bool(request.get("now", False)),
        after=tuple(_dependency(text) for text in request.get("after", [])),
        variants=_variants(request),
        policy=labels["policy"],
        rayjob=_rayjob(manifest) if manifest else None,
    )


def _require_of_manifest(request: JobRequest, manifest: dict[str, object]) -> None:
    """What a manifest says is not said again beside it; files and secrets reach its pods by Kubernetes' own means."""
    require_usable(manifest)
    if request["entrypoint"] != entrypoint_of(manifest):
        raise InvalidInput("entrypoint", request["entrypoint"], "is not the RayJob's", "Say it in the manifest alone")
    for field in ("runtime_env", "bundle_sha256", "secrets"):
        if request.get(field):
            remedy = "Say it in the manifest: runtimeEnvYAML, and secretKeyRef in its pods for secrets"
            raise InvalidInput(field, "(not shown)", "does not go with a RayJob", remedy)


def _rayjob(manifest: dict[str, Any]) -> RayJobObject:
    metadata = manifest["metadata"]
    return RayJobObject(metadata.get("namespace", "default"), metadata["name"])


def label(field: str, value: str) -> str:
    """`value`, if it is one printable line of at most 200 characters."""
    if not LABEL.fullmatch(value):
        raise InvalidInput(field, value, "is not a label", "Use at most 200 printable characters on one line")
    return value


def _dependency(text: str) -> Dependency:
    job_id, colon, how = text.partition(":")
    if not job_id or (colon and how != "ok"):
        raise InvalidInput("after", text, "is not JOB or JOB:ok", "Give the id of a job, and :ok if it must succeed")
    return Dependency(job_id, bool(colon))


def _name_from(entrypoint: str) -> str:
    """A readable default: the first word that is a file, else the first word."""
    words = entrypoint.split()
    script = next((word for word in words if word.endswith((".py", ".sh"))), words[0])
    return script.rsplit("/", 1)[-1].strip("'\"")[:200]


def _sha256(value: str | None) -> str | None:
    if value is not None and not SHA256.fullmatch(value):
        raise InvalidInput(
            "bundle_sha256", value, "is not a SHA-256", "Upload the bundle first with PUT /v1/bundles/SHA256"
        )
    return value


def _variants(request: JobRequest) -> Variants | None:
    """The job's variants; None where it names none, and then nothing that belongs to them may be given."""
    arguments, floor = request.get("variants"), request.get("quality_floor")
    if arguments is None:
        for field in ("quality_floor", "item", "slice"):
            if request.get(field) is not None:
                raise InvalidInput(field, request[field], "is for jobs with variants", "Name some, or leave it out")
        return None
    if floor is None:
        remedy = "Say what quality must be kept, such as accuracy>=0.8"
        raise InvalidInput("quality_floor", "", "is missing beside variants", remedy)
    if request.get("rayjob") or any(key in request.get("runtime_env", {}) for key in UNWRAPPED_KEYS):
        remedy = "Leave the variants out, or the image and the RayJob"
        raise InvalidInput(
            "variants", ", ".join(arguments), "cannot be tried in an image of the job's own or a RayJob", remedy
        )
    return variants_of(arguments, floor, request.get("item", "item"), request.get("slice", 100))


def _runtime_env(value: dict[str, object]) -> dict[str, object]:
    if _depth(value) > MAX_DEPTH:
        raise InvalidInput("runtime_env", "(not shown)", f"is nested more than {MAX_DEPTH} levels", "Flatten it")
    env_vars = value.get("env_vars", {})
    if not isinstance(env_vars, dict):
        raise InvalidInput("runtime_env.env_vars", "(not shown)", "is not a map of text to text", "Write NAME: value")
    for name, text in env_vars.items():
        _variable("runtime_env.env_vars", name)
        if not isinstance(text, str):
            raise InvalidInput("runtime_env.env_vars", name, "does not have text as its value", "Quote the value")
    modules = value.get("py_modules", [])
    if not isinstance(modules, list) or not all(isinstance(module, str) for module in modules):
        raise InvalidInput("runtime_env.py_modules", modules, "is not a list of texts", "Write a list of URIs")
    working_dir = value.get("working_dir")
    if working_dir is not None and "://" not in str(working_dir):
        remedy = (
            "Upload the folder as a bundle (the command line does), or name a remote one such as s3://bucket/dir.zip"
        )
        raise InvalidInput("runtime_env.working_dir", working_dir, "is a local path", remedy)
    return value


def _depth(value: object) -> int:
    """How many levels a document has; counted without recursion, which deep ones would exhaust."""
    level, depth = [value], 0
    while level:
        depth += 1
        below = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [item for items in below for item in items]
    return depth


def _variable(field: str, name: str) -> None:
    if name.startswith("CARBON_SCHED_"):
        raise InvalidInput(field, name, "is set by carbon-sched itself", "Leave it out")
    if not VARIABLE.fullmatch(name):
        raise InvalidInput(field, name, "is not the name of an environment variable", "Use letters, digits and _")


def _secret(name: str, text: str) -> SecretRef:
    _variable("secret", name)
    return secret_ref("secret", text)


def secret_ref(field: str, text: str) -> SecretRef:
    """Where a secret is read from: `file:PATH` or `env:VARIABLE`; the text is never echoed, it may be the secret."""
    kind, _, where = text.partition(":")
    if kind not in ("file", "env") or not where:
        remedy = "Give file:PATH or env:VARIABLE; secrets themselves are never stored"
        raise InvalidInput(field, "(not shown)", "is not a reference to a secret", remedy)
    return SecretRef(file=where) if kind == "file" else SecretRef(env=where)


def one_of(field: str, value: str, enum: type[AnyEnum]) -> AnyEnum:
    """The member of this value; InvalidInput, naming those there are."""
    try:
        return enum(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in enum)
        raise InvalidInput(field, value, "is not known", f"Use one of: {known}") from None


def _positive(field: str, value: float | None, unit: str) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise InvalidInput(field, value, f"is not a positive number of {unit}", f"Give {unit} above zero")
    return value


def _amount(field: str, value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1e15):
        raise InvalidInput(field, value, "is not an amount", "Give zero or a positive number")
    return value


def _size(value: int) -> int:
    return int(_amount("data.size_bytes", value))


def _resources(asked: ResourcesRequest, pods: tuple[Bundle, ...] = ()) -> Resources:
    """What is asked for; `pods` are those that a RayJob brings, in place of workers and GPUs."""
    entry = Bundle(
        cpus=_amount("entrypoint_num_cpus", asked.get("entrypoint_num_cpus", 0.0)),
        gpus=_amount("entrypoint_num_gpus", asked.get("entrypoint_num_gpus", 0.0)),
        memory=int(_amount("entrypoint_memory", asked.get("entrypoint_memory", 0))),
        resources={
            k: _amount(f"entrypoint_resources.{k}", v) for k, v in asked.get("entrypoint_resources", {}).items()
        },
    )
    workers = int(_amount("workers", asked.get("workers", 0)))
    per_worker = _amount("gpus_per_worker", asked.get("gpus_per_worker", 0.0))
    gpus = _amount("gpus", asked.get("gpus", 0.0))
    if gpus and workers:
        raise InvalidInput(
            "gpus", gpus, "contradicts workers", "Give either --gpus, or --workers with --gpus-per-worker"
        )
    if per_worker and not workers:
        raise InvalidInput("gpus_per_worker", per_worker, "needs workers", "Add --workers N")
    if pods and (gpus or workers or entry.as_resources()):
        raise InvalidInput("gpus", gpus or workers, "does not go with a RayJob", "Say it in the manifest's pods")
    bundles = [*pods, entry] if entry.as_resources() else list(pods)
    bundles += [Bundle(cpus=1.0, gpus=per_worker)] * workers
    bundles += [Bundle(gpus=gpus)] if gpus else []
    return Resources(
        entrypoint_cpus=entry.cpus,
        entrypoint_gpus=entry.gpus,
        entrypoint_memory=entry.memory,
        entrypoint_resources=entry.resources,
        entrypoint_label_selector=asked.get("entrypoint_label_selector", {}),
        bundles=tuple(bundles),
        placement=one_of("placement", asked.get("placement", Placement.PACK.value), Placement),
        gpu_type=asked.get("gpu_type") or None,
        gpu_memory_gb=_amount("gpu_memory_gb", asked.get("gpu_memory_gb", 0.0)),
    )


LONGEST_RESTART_S = 6 * 3600.0


def _instant(field: str, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return from_rfc3339(value)
    except ValueError:
        remedy = "Use RFC 3339 with a zone, for example 2026-11-23T18:00:00Z"
        raise InvalidInput(field, value, "is not a time", remedy) from None


def flexibility_of(request: JobRequest, now: datetime) -> Flexibility:
    """What a request declares about time; raises InvalidInput for what cannot be kept from `now` on."""
    earliest, deadline = _instant("earliest", request.get("earliest")), _instant("deadline", request.get("deadline"))
    max_delay = request.get("max_delay_s")
    if max_delay is not None and not (math.isfinite(max_delay) and max_delay >= 0):
        raise InvalidInput("max_delay", max_delay, "is not a duration", "Give zero or more, for example 6h")
    if deadline is not None and deadline <= max(now, earliest or now):
        shown = (earliest or now).isoformat(timespec="seconds")
        raise InvalidInput("deadline", request.get("deadline"), f"is not after {shown}", "Give a later deadline")
    duration = request.get("duration_s")
    if deadline is not None and duration and (deadline - max(now, earliest or now)).total_seconds() < duration:
        remedy = f"Give a later deadline, or a --duration below {(deadline - max(now, earliest or now))}"
        raise InvalidInput("deadline", request.get("deadline"), "is before the earliest possible end", remedy)
    return Flexibility(earliest, deadline, max_delay, *_interruption(request))


def _interruption(request: JobRequest) -> tuple[bool, float | None, str]:
    """Whether the job may be suspended, what that costs, and where its state lies; the two mean nothing without it."""
    interruptible, cost, storage = (
        request.get("interruptible", False),
        request.get("restart_s"),
        request.get("storage", ""),
    )
    if cost is not None and not (math.isfinite(cost) and 0 <= cost <= LONGEST_RESTART_S):
        raise InvalidInput("restart_cost", cost, "is not a duration", "Give 0 to 6h, for example 2m")
    for field, given in (("restart_cost", cost), ("storage", storage or None)):
        if given is not None and not interruptible:
            raise InvalidInput(
                field, given, "is for jobs that may be suspended", "Add --interruptible, or leave it out"
            )
    if "\0" in storage or len(storage) > 1000:
        raise InvalidInput("storage", storage[:100], "is not a place", "Give a folder or URI that the job can write")
    return bool(interruptible), cost, storage
