"""helm and the published schemas of what the chart makes, where `.ci/provision` has put them.

The schemas are those of Kubernetes' own OpenAPI document and of the CRDs of the Prometheus operator and KubeRay, made
strict: a field that a schema does not name is an error here, while an API server would drop it without a word.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "carbon-sched"
KUBERNETES = "k8s.io/kubernetes@v1.33.2"
MONITORING = "github.com/prometheus-operator/prometheus-operator@v0.83.0"
KUBERAY = "github.com/ray-project/kuberay/ray-operator@v1.4.2"
CRDS = {
    "monitoring.coreos.com": (MONITORING, "example/prometheus-operator-crd/monitoring.coreos.com_{}s.yaml"),
    "ray.io": (KUBERAY, "config/crd/bases/ray.io_{}s.yaml"),
}
KUBE_VERSION = "1.33.2"


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm; skips where there is none."""
    if shutil.which("helm") is None:
        pytest.skip("there is no helm on PATH: .ci/provision helm")
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, timeout=60, check=False)


def render(values: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The objects of the chart with these values, release `r` in namespace `ml`."""
    done = try_render(values, folder)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def try_render(values: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """`helm template`, whatever comes of it."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return helm("template", "r", str(CHART), "--namespace", "ml", "--kube-version", KUBE_VERSION, "-f", str(file))


def validate(one: dict[str, Any]) -> list[str]:
    """What the published schema of its kind finds wrong in an object."""
    group = one["apiVersion"].partition("/")[0]
    errors = _validator(group, one["apiVersion"], one["kind"]).iter_errors(one)
    return [f"{one['kind']} {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in errors]


@cache
def _validator(group: str, api_version: str, kind: str) -> jsonschema.Draft4Validator:
    folder, name = CRDS.get(group, ("", ""))
    schema = _crd(folder, name.format(kind.lower())) if folder else _kubernetes(api_version, kind)
    return jsonschema.Draft4Validator(schema)


def _module(name: str) -> Path:
    if shutil.which("go") is None:
        pytest.skip("there is no go on PATH, whose module cache holds the schemas")
    done = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, cwd="/", check=True)
    folder = Path(done.stdout.strip(), name)
    if not folder.is_dir():
        pytest.skip(f"the schemas of {name} are not here: .ci/provision kubernetes-schemas")
    return folder


@cache
def _definitions() -> dict[str, Any]:
    text = (_module(KUBERNETES) / "api/openapi-spec/swagger.json").read_text(encoding="utf-8")
    definitions = json.loads(text)["definitions"]
    for name in list(definitions):  # both are written as text or number
        if name.endswith((".IntOrString", ".Quantity")):
            definitions[name] = {"type": ["string", "number"]}
    return {name: _strict(one) for name, one in definitions.items()}


def _kubernetes(api_version: str, kind: str) -> dict[str, Any]:
    group, _, version = api_version.rpartition("/")
    wanted = {"group": group, "version": version, "kind": kind}
    names = [n for n, one in _definitions().items() if wanted in one.get("x-kubernetes-group-version-kind", [])]
    assert len(names) == 1, f"{api_version} {kind}: {names}"
    return {"$ref": f"#/definitions/{names[0]}", "definitions": _definitions()}


def crd(module: str, file: str) -> dict[str, Any]:
    """A published CustomResourceDefinition."""
    text = (_module(module) / file).read_text(encoding="utf-8")
    return dict(yaml.load(text, yaml.CSafeLoader))


def _crd(module: str, file: str) -> dict[str, Any]:
    schema = _strict(crd(module, file)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return dict(schema)


def _strict(schema: Any) -> Any:
    """The schema, with what it does not name forbidden."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "number"]}
    made = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made["additionalProperties"] = False
    return made
