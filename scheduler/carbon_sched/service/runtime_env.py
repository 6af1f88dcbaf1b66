"""What we add to a job on its way to Ray: our wrapper around the entrypoint, our package, our environment."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.job import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from carbon_sched.domain.job import Attempt, JobSpec

STOP_GRACE_S = 20
SERVICE = "serve-app"
"""The label of a job that stands for a service: the service's name."""
LINGER_S = 60
"""Of a stopped job's wrapper on Kubernetes: its energy is collected meanwhile, then its RayJob is suspended."""
UNWRAPPED_KEYS = ("image_uri", "container")
"""Runtime environments whose Python is not the cluster's: metered from outside, graded lower (design section 5)."""


BUNDLE = "bundle://"
"""How a runtime_env's `py_modules` name what was uploaded to us: `bundle://SHA256`, or `bundle://SHA256/NAME.whl`."""


@dataclass(frozen=True)
class StoredModule:
    """A Python module that travels from our bundle store; `package` is its name on a cluster."""

    uri: str
    sha256: str
    package: str


@dataclass(frozen=True)
class RuntimePackage:
    """The zip with `carbon_sched_runtime`, named by its content."""

    path: Path
    name: str


def package_name(sha256: str) -> str:
    """What a bundle is called on a cluster: by its content, so that nobody's can stand for somebody else's."""
    return f"_ray_pkg_{sha256[:32]}.zip"


def stored_modules(spec: JobSpec) -> list[StoredModule]:
    """Those of a job's `py_modules` that we have to upload."""
    found = []
    for uri in spec.runtime_env.get("py_modules", []):
        if uri.startswith(BUNDLE):
            sha256, _, wheel = uri.removeprefix(BUNDLE).partition("/")
            found.append(StoredModule(uri, sha256, wheel or package_name(sha256)))
    return found


def is_wrapped(spec: JobSpec) -> bool:
    """Whether our wrapper can run around this job."""
    return not any(key in spec.runtime_env for key in UNWRAPPED_KEYS)


def entrypoint_for(spec: JobSpec) -> str:
    """The command given to Ray; the user's own command is one quoted argument, run by the wrapper as Ray would."""
    if not is_wrapped(spec):
        return spec.entrypoint
    command = spec.entrypoint
    if spec.variants is not None:
        command = f"python -m carbon_sched_runtime.variants {shlex.quote(command)}"
    return f"exec python -m carbon_sched_runtime.run -- {shlex.quote(command)}"


def runtime_env_for(
    spec: JobSpec,
    attempt: Attempt,
    uris: Mapping[str, str],
    environment: Mapping[str, str],
    sinks: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The user's runtime_env with our package, the uploaded working_dir and our environment variables added.

    `uris` holds `runtime` (our package), for an uploaded folder `working_dir`, and each stored module by its `bundle://`
    URI, as `gcs://` URIs; `environment` the job's own variables, secrets included; `sinks` where segments go.
    """
    env: dict[str, Any] = dict(spec.runtime_env)
    if "working_dir" in uris:
        env["working_dir"] = uris["working_dir"]
    modules = [uris.get(module, module) for module in env.get("py_modules", [])]
    if modules or is_wrapped(spec):
        env["py_modules"] = [*([uris["runtime"]] if is_wrapped(spec) else []), *modules]
    env["env_vars"] = {**_our_variables(spec, attempt), **sinks, **environment}
    return env


def _our_variables(spec: JobSpec, attempt: Attempt) -> dict[str, str]:
    resources = spec.resources
    return {
        "CARBON_SCHED_JOB": attempt.job_id,
        "CARBON_SCHED_ATTEMPT": attempt.attempt_id,
        "CARBON_SCHED_GPUS": f"{resources.gpus:g}",
        "CARBON_SCHED_CPUS": f"{resources.cpus:g}",
        **_stopping(spec),
        # scripts that call ray.init(runtime_env=...) themselves keep working (ray.md, section 6)
        "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
        **_of_the_run(spec, attempt),
        **_of_the_service(spec),
    }


def _of_the_service(spec: JobSpec) -> dict[str, str]:
    """Whose replicas are metered on other nodes too, for the job that stands for a service."""
    name = spec.metadata.get(SERVICE) if spec.phase is Phase.INFERENCE_ONLINE else None
    return {"CARBON_SCHED_SERVE_APP": name} if name else {}


def _stopping(spec: JobSpec) -> dict[str, str]:
    """How long Ray lets a stopped job end by itself.

    On Kubernetes the wrapper then stays a while: KubeRay takes a RayJob whose Ray job has ended for done, and could
    not suspend it any more.
    """
    grace_s = max(STOP_GRACE_S, spec.flexibility.restart_s or 0)
    if spec.rayjob is None:
        return {"RAY_JOB_STOP_WAIT_TIME_S": f"{grace_s:.0f}"}
    return {"RAY_JOB_STOP_WAIT_TIME_S": f"{grace_s + LINGER_S:.0f}", "CARBON_SCHED_LINGER_S": f"{LINGER_S}"}


def _of_the_run(spec: JobSpec, attempt: Attempt) -> dict[str, str]:
    """What a job that may be suspended finds its state by, the same in every attempt; read by `carbon_sched.job`."""
    if not spec.flexibility.interruptible:
        return {}
    resumed = {"CARBON_SCHED_RESUMED": "1"} if attempt.number > 1 else {}
    return {"CARBON_SCHED_RUN_NAME": f"cs-{attempt.job_id}", "CARBON_SCHED_STORAGE": spec.flexibility.storage} | resumed
