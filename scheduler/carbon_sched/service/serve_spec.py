"""Turn a request for a service into its spec, refusing what cannot be meant: names field, value and remedy."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import Phase
from carbon_sched.domain.serve_app import AppSpec
from carbon_sched.service.runtime_env import SERVICE
from carbon_sched.service.spec import SHA256

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from carbon_sched.wire import AppRequest, JobRequest

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
ROUTE = re.compile(r"/[A-Za-z0-9_./~-]{0,200}")
WEEK_S = 7 * 86_400.0
ATTENDANT = "python -m carbon_sched_runtime.serve_watch"
"""What a service's job runs: it reads Serve's own counters. It holds the room, and its wrapper meters the replicas."""
AS_ASKED = {"cluster": "clusters", "workers": "replicas", "gpus_per_worker": "gpus_per_replica"}
"""Fields of that job by the name that they have in a service."""
LABELS = ("model", "project", "team", "policy")
OURS = ("name", "route_prefix")


def app_spec(request: AppRequest, seal: Callable[[str], str]) -> AppSpec:
    """The validated spec; `seal` encrypts what may hold secrets. Raises InvalidInput for the first wrong field."""
    name, application = request["name"], dict(request["application"])
    if not NAME.fullmatch(name):
        raise InvalidInput("name", name, "is not a service's name", "Use a-z, 0-9 and -, at most 41 characters")
    _require_application(application)
    limit, latencies = request.get("max_latency_ms"), request.get("latencies_ms", {})
    for field, value in (("latency.max_ms", limit), *((f"latency.clusters.{k}", v) for k, v in latencies.items())):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InvalidInput(field, value, "is not a latency", "Give milliseconds, 0 or more")
    spec = AppSpec(
        name=name,
        route_prefix=_route(application.get("route_prefix", "/")),
        sealed_application=seal(json.dumps({key: application[key] for key in application if key not in OURS})),
        request=_job_request(request),
        bundle_sha256=_bundle(request.get("bundle_sha256")),
        max_latency_ms=limit,
        latencies_ms=latencies,
        horizon_s=_seconds(request, "horizon_s", AppSpec.horizon_s, 60.0),
        min_gain=_share(request.get("min_gain", AppSpec.min_gain)),
        min_stay_s=_seconds(request, "min_stay_s", AppSpec.min_stay_s, 0.0),
        max_age_s=_seconds(request, "max_age_s", AppSpec.max_age_s, 0.0),
        drain_s=_seconds(request, "drain_s", AppSpec.drain_s, 0.0),
    )
    if spec.drain_s <= spec.max_age_s:
        remedy = f"Give more than max_age, which is {spec.max_age_s:g} s, and the longest request on top"
        raise InvalidInput("drain", spec.drain_s, "is over before clients ask for the address again", remedy)
    return spec


def _require_application(application: Mapping[str, Any]) -> None:
    path, environment = application.get("import_path"), application.get("runtime_env", {})
    if not isinstance(path, str) or not re.fullmatch(r"[\w.]+[:.]\w+", path):
        remedy = "Give it as Ray Serve takes it, for example chat:app"
        raise InvalidInput("application.import_path", path, "is no module and name", remedy)
    if not isinstance(environment, dict):
        raise InvalidInput("application.runtime_env", environment, "is no mapping", "Give it as Ray takes it")
    variables = environment.get("env_vars", {})
    if not isinstance(variables, dict) or not all(isinstance(text, str) for text in variables.values()):
        raise InvalidInput("application.runtime_env.env_vars", "(not shown)", "does not map to text", "Quote values")
    for name in variables:
        if name.startswith("CARBON_SCHED_"):
            raise InvalidInput("application.runtime_env.env_vars", name, "is set by carbon-sched", "Leave it out")
    if environment.get("image_uri") or environment.get("container"):
        remedy = "Install what it needs on the cluster, or by pip in runtime_env"
        raise InvalidInput("application.runtime_env", "image_uri", "runs what we cannot meter", remedy)


def _route(value: Any) -> str:
    if not isinstance(value, str) or not ROUTE.fullmatch(value):
        raise InvalidInput("application.route_prefix", value, "is not a route", "Give a path such as /chat")
    return value.rstrip("/") or "/"


def _job_request(request: AppRequest) -> JobRequest:
    """The job that stands for the service; never delayed, expected to run for the horizon."""
    replicas = request.get("replicas", 1)
    if not 1 <= replicas <= 10_000:
        raise InvalidInput("replicas", replicas, "is not a number of replicas", "Give 1 or more")
    job: JobRequest = {
        "entrypoint": f"{ATTENDANT} {request['name']}",
        "name": f"serve-app {request['name']}",
        "phase": Phase.INFERENCE_ONLINE.value,
        "max_delay_s": 0.0,
        "duration_s": request.get("horizon_s", AppSpec.horizon_s),
        "resources": {"workers": replicas, "gpus_per_worker": request.get("gpus_per_replica", 0.0)},
        "metadata": {**request.get("metadata", {}), SERVICE: request["name"]},
        "clusters": list(request.get("clusters", [])),
    }
    if request.get("gpu_type"):
        job["resources"]["gpu_type"] = request["gpu_type"]
    if request.get("power_w") is not None:
        job["power_w"] = request["power_w"]
    for label in LABELS:
        if request.get(label):
            job[label] = request[label]  # type: ignore[literal-required]  # one of LABELS
    return job


def _bundle(value: str | None) -> str | None:
    if value is not None and not SHA256.fullmatch(value):
        raise InvalidInput("bundle_sha256", value, "is not a SHA-256", "Upload it first with PUT /v1/bundles/SHA256")
    return value


def _seconds(request: AppRequest, field: str, default: float, least: float) -> float:
    value = request.get(field, default)
    if not isinstance(value, (int, float)) or not (math.isfinite(value) and least <= value <= WEEK_S):
        raise InvalidInput(field.removesuffix("_s"), value, "is not a duration", f"Give {least:g} s to 7 days")
    return float(value)


def _share(value: float) -> float:
    if not (math.isfinite(value) and 0 <= value < 1):
        raise InvalidInput("min_gain", value, "is not a share", "Give 0 to 1, for example 0.15")
    return value
