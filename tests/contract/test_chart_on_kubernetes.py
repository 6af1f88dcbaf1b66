"""The chart's objects as a real API server takes them: every field known, pods admitted, the account's role enough."""

from __future__ import annotations

import pytest
import requests
import yaml

from tests.contract.test_chart import HERE, METER, TOKEN, VALUE_SETS, pods
from tests.fakes.kube_apiserver import ADMIN
from tests.fakes.kubernetes import CHART, CRDS, crd, helm, render

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PLURALS = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}
EVERYWHERE = ("ClusterRole", "ClusterRoleBinding")
SETS = {**VALUE_SETS, **{f"example {file.stem}": yaml.safe_load(file.read_text(encoding="utf-8"))
                         for file in sorted((CHART / "examples").glob("*.yaml"))}}  # fmt: skip


@pytest.fixture(scope="module")
def server(kube_apiserver):
    """With the Prometheus operator's CRDs, and a namespace for each level of Pod Security."""
    module, file = CRDS["monitoring.coreos.com"]
    defined = [crd(module, file.format(kind)) for kind in ("servicemonitor", "podmonitor")]
    for one in defined:
        kube_apiserver.define(one)
    for level in ("restricted", "privileged"):
        labels = {"pod-security.kubernetes.io/enforce": level}
        kube_apiserver.ask("POST", "api/v1/namespaces", {"metadata": {"name": level, "labels": labels}})
    yield kube_apiserver
    for one in defined:
        kube_apiserver.forget(one)


def path_of(one):
    version, kind = one["apiVersion"], one["kind"]
    group = f"apis/{version}" if "/" in version else f"api/{version}"
    where = "" if kind in EVERYWHERE else f"/namespaces/{one['metadata'].get('namespace', 'ml')}"
    return f"{group}{where}/{PLURALS.get(kind, f'{kind.lower()}s')}"


def tried(server, path, one):
    """What a strict dry run says."""
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    return server.session.post(f"{server.address}/{path}", json=one, params=query, timeout=60)


@pytest.mark.parametrize("name", SETS)
def test_every_object_is_taken_and_every_pod_but_the_meters_is_restricted(server, tmp_path, name):
    objects = render(SETS[name], tmp_path)
    for one in objects:
        answer = tried(server, path_of(one), one)
        assert answer.status_code in (201, 409), (one["kind"], answer.text)  # the chart's own account is there
    for pod_name, pod in pods(objects).items():
        level = "privileged" if pod_name == "DaemonSet meter" else "restricted"
        account = pod.get("serviceAccountName", "default")
        server.session.post(
            f"{server.address}/api/v1/namespaces/{level}/serviceaccounts",
            json={"metadata": {"name": account}},
            timeout=60,
        )
        spec = {key: value for key, value in pod.items() if key != "priorityClassName"}
        answer = tried(server, f"api/v1/namespaces/{level}/pods", {"metadata": {"name": "p"}, "spec": spec})
        assert answer.status_code == 201, (pod_name, answer.text)


def test_the_meter_is_refused_where_pods_must_be_restricted(server, tmp_path):
    pod = pods(render({**TOKEN, **METER}, tmp_path))["DaemonSet meter"]
    answer = tried(server, "api/v1/namespaces/restricted/pods", {"metadata": {"name": "p"}, "spec": pod})
    assert answer.status_code == 403
    assert "violates PodSecurity" in answer.json()["message"]


@pytest.fixture
def install(server, tmp_path):
    """Runs helm as the cluster's administrator, in a namespace where pods must be restricted."""
    cluster = {"server": server.address, "certificate-authority": str(server.ca_file)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "c", "user": {"token": ADMIN}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "restricted"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")

    def call(*arguments):
        done = helm(*arguments, "--kubeconfig", str(file))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_helm_installs_upgrades_and_rolls_back_and_an_uninstalled_release_leaves_its_ledger(server, install, tmp_path):
    def names(plural, group="api/v1"):
        items = server.ask("GET", f"{group}/namespaces/restricted/{plural}")["items"]
        return [one["metadata"]["name"] for one in items]

    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({**TOKEN, "kubeRay": {"enabled": True}, "clusters": {"here": HERE}}))
    told = install("install", "carbon-sched", str(CHART), "-f", str(values))
    assert "exec deploy/carbon-sched -- carbon-sched clusters check NAME" in told
    assert "kubectl get endpoints kubernetes" in told
    assert "carbon-sched-clusters" in names("configmaps")
    told = install("upgrade", "carbon-sched", str(CHART), "--set", "token.existingSecret=t")
    assert "No cluster is declared yet" in told
    assert "carbon-sched-clusters" not in names("configmaps")
    install("rollback", "carbon-sched", "1")
    assert "carbon-sched-clusters" in names("configmaps")
    install("uninstall", "carbon-sched")
    assert names("deployments", "apis/apps/v1") == []
    assert names("persistentvolumeclaims") == ["carbon-sched"]


@pytest.mark.parametrize(
    "path",
    ["secrets", "pods", "services", "configmaps", "serviceaccounts", "events"],
)
def test_the_account_reads_nothing_beyond_its_role(server, path):
    headers = {"Authorization": f"Bearer {server.token()}"}
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(
            f"{server.address}/api/v1/namespaces/ml/{path}", headers=headers, verify=str(server.ca_file), timeout=60
        )
    assert answer.status_code == 403
