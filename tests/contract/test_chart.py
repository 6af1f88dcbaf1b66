"""The chart, rendered by real helm: valid objects, least rights, no secret, and bad values refused with a remedy."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from carbon_sched.domain.kubernetes import Kubernetes
from carbon_sched.policy.load import parse_policy
from carbon_sched.policy.presets import preset
from carbon_sched.service.declared import clusters_of
from carbon_sched.settings import load_settings
from tests.fakes.kubernetes import CHART, KUBE_VERSION, ROOT, helm, render, try_render, validate

TOKEN: dict[str, Any] = {"token": {"existingSecret": "carbon-sched-token"}}
SEVERAL = {**TOKEN, "replicaCount": 3, "database": {"existingSecret": "db"}, "shared": {"existingClaim": "rwx"}}
METER = {"meter": {"enabled": True}}
MONITORED = {"metrics": {"serviceMonitor": {"enabled": True, "tokenSecret": {"name": "prom"}}}}
LYON = {"address": "https://lyon.example", "zone": "FR", "token": "file:/run/secrets/lyon/token"}
HERE = {
    "zone": "NO",
    "kubernetes": {"create_in": ["ml"]},
    "pools": [
        {
            "name": "a",
            "node_resources": {"CPU": 32, "GPU": 8, "memory": 2.0e11},
            "max_nodes": 4,
            "node_lifetime": "on-demand",
        }
    ],
}

VALUE_SETS: dict[str, dict[str, Any]] = {
    "least": TOKEN,
    "several": SEVERAL,
    "one on PostgreSQL": {**TOKEN, "database": {"existingSecret": "db", "key": "uri"}},
    "no hook": {**SEVERAL, "database": {"existingSecret": "db", "migrateInHook": False}},
    "existing claim": {**TOKEN, "storage": {"existingClaim": "mine"}},
    "storage class": {**TOKEN, "storage": {"size": "100Gi", "storageClassName": "fast"}},
    "clusters": {**TOKEN, "secrets": ["lyon"],
                 "clusters": {"lyon": {**LYON, "home": True}, "oslo": {**LYON, "zone": "NO"}}},
    "kuberay everywhere": {**TOKEN, "kubeRay": {"enabled": True}},
    "kuberay in two namespaces": {**TOKEN, "kubeRay": {"enabled": True, "namespaces": ["ml", "nlp"]}},
    "clusters, and the one that it is on": {
        **TOKEN, "secrets": ["lyon"], "kubeRay": {"enabled": True, "namespaces": ["ml", "nlp"]},
        "clusters": {"here": {**HERE, "home": True}, "lyon": {**LYON, **HERE, "kubernetes": {"namespaces": ["a"]}}}},
    "policies": {**TOKEN, "policies": {"all": {"extends": "balanced", "team": "*"}}},
    "settings": {**TOKEN, "config": {"requests_per_s": 5, "allowed_hosts": ["p.example"], "grid": {"providers": []}}},
    "tls": {**TOKEN, "tls": {"existingSecret": "cert"}},
    "tls, several, monitored": {**SEVERAL, **MONITORED, "tls": {"existingSecret": "cert"}},
    "ingress": {**TOKEN, "ingress": {"enabled": True, "className": "nginx", "hosts": ["c.example"],
                                     "tls": [{"hosts": ["c.example"], "secretName": "t"}]}},
    "meter": {**TOKEN, **METER},
    "meter, monitored": {**TOKEN, **METER, **MONITORED},
    "open network": {**TOKEN, "networkPolicy": {"enabled": False}},
    "named network": {**TOKEN, "networkPolicy": {
        "ingressFrom": [{"namespaceSelector": {}}], "egress": [{"ports": [{"port": 443}]}]}},
    "own account": {**TOKEN, "serviceAccount": {"create": False, "name": "mine"}},
    "names and registry": {**TOKEN, "fullnameOverride": "carbon", "imagePullSecrets": ["pull"],
                           "image": {"repository": "registry.example/c", "tag": "1@sha256:0", "pullPolicy": "Always"}},
    "placement": {**SEVERAL, "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}],
                  "topologySpread": False, "affinity": {"nodeAffinity": {}}, "priorityClassName": "high",
                  "podLabels": {"part": "a"}, "podAnnotations": {"p": "q"},
                  "extraEnv": [{"name": "TZ", "value": "UTC"}]},
    "load balancer": {**TOKEN, "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}},
                      "log": {"level": "debug", "format": "text"}},
}  # fmt: skip


@pytest.fixture(params=VALUE_SETS, scope="module")
def objects(request, tmp_path_factory):
    return render(VALUE_SETS[request.param], tmp_path_factory.mktemp("values"))


def pods(objects):
    """The pod specs among the objects, by kind and component."""
    found = {}
    for one in objects:
        spec = one["spec"] if one["kind"] == "Pod" else one.get("spec", {}).get("template", {}).get("spec")
        if spec:
            found[f"{one['kind']} {one['metadata']['labels']['app.kubernetes.io/component']}"] = spec
    return found


def of_kind(objects, kind, ending=""):
    (found,) = (one for one in objects if one["kind"] == kind and one["metadata"]["name"].endswith(ending))
    return found


def test_every_object_is_what_its_published_schema_asks_for(objects):
    assert [problem for one in objects for problem in validate(one)] == []


def test_the_schemas_find_what_is_wrong(tmp_path):
    server = of_kind(render(TOKEN, tmp_path), "Deployment")
    server["spec"]["template"]["spec"]["containers"][0]["port"] = 1
    server["spec"]["replicas"] = "one"
    assert len(validate(server)) == 2


def test_every_pod_but_the_meters_satisfies_pod_security_restricted(objects):
    for name, pod in pods(objects).items():
        if name != "DaemonSet meter":
            assert beyond_restricted(pod) == [], name
            assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in pod["containers"])


def beyond_restricted(pod: dict[str, Any]) -> list[str]:
    """What Kubernetes' Pod Security Standard "restricted" would refuse, in the words of its table."""
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    found += [f"volume {v['name']}" for v in pod.get("volumes", []) if not (set(v) - {"name"}) <= allowed]
    outer = pod.get("securityContext", {})
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        inner = {**outer, **container.get("securityContext", {})}
        capabilities = inner.get("capabilities", {})
        checks = {
            "privileged": not inner.get("privileged", False),
            "privilege escalation": inner.get("allowPrivilegeEscalation") is False,
            "capabilities": capabilities.get("drop") == ["ALL"]
            and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "runAsNonRoot": inner.get("runAsNonRoot") is True and inner.get("runAsUser") != 0,
            "seccomp": inner.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "host ports": not any("hostPort" in port for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {name}" for name, holds in checks.items() if not holds]
    return found


def test_the_meters_exceptions_are_those_that_the_readme_lists(tmp_path):
    meter = pods(render({**TOKEN, **METER}, tmp_path))["DaemonSet meter"]
    assert beyond_restricted(meter) == [
        "hostPID", "volume meeting-place", "volume keys", "volume powercap", "volume machine-id",
        "meter: capabilities", "meter: runAsNonRoot",
    ]  # fmt: skip
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    added = meter["containers"][0]["securityContext"]["capabilities"]["add"]
    for word in ("hostPID", "runAsUser: 0", "meetingPlace", "keyFolder", "powercap", "/etc/machine-id", *added):
        assert word in readme, word


def test_no_secret_is_rendered_and_only_servers_that_hold_rayjobs_may_speak_to_kubernetes(objects):
    assert "Secret" not in {one["kind"] for one in objects}
    roles = [one for one in objects if one["kind"] in ("Role", "ClusterRole")]
    may = {name for name, pod in pods(objects).items() if pod["automountServiceAccountToken"]}
    assert may == ({"Deployment server"} if roles else set())
    assert not any(
        "*" in rule[key] for one in roles for rule in one["rules"] for key in ("apiGroups", "resources", "verbs")
    )
    assert len([one for one in objects if one["kind"].endswith("RoleBinding")]) == len(roles)


def test_every_selector_meets_the_pods_it_is_meant_for(objects):
    labels = {
        kind: one["spec"]["template"]["metadata"]["labels"]
        for one in objects
        if (kind := one["kind"]) in ("Deployment", "DaemonSet")
    }
    assert of_kind(objects, "Service")["spec"]["selector"].items() <= labels["Deployment"].items()
    for one in objects:
        if one["kind"] in ("Deployment", "DaemonSet"):
            assert one["spec"]["selector"]["matchLabels"].items() <= labels[one["kind"]].items()
        if one["kind"] == "PodDisruptionBudget":
            assert one["spec"]["selector"]["matchLabels"].items() <= labels["Deployment"].items()
        if one["kind"] == "PodMonitor":
            assert one["spec"]["selector"]["matchLabels"].items() <= labels["DaemonSet"].items()


def test_what_is_mounted_is_there(objects):
    for name, pod in pods(objects).items():
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
    claims = {one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"}
    configs = {one["metadata"]["name"] for one in objects if one["kind"] == "ConfigMap"}
    for volume in next(iter(p for n, p in pods(objects).items() if n == "Deployment server"))["volumes"]:
        if "configMap" in volume:
            assert volume["configMap"]["name"] in configs
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in {*claims, "mine", "rwx"}


def test_the_rendered_files_are_what_the_server_reads(objects, tmp_path):
    """Settings, clusters and policies through the very code that reads them in the pod."""
    config = tmp_path / "config.yaml"
    maps = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
    config.write_text(next(data["config.yaml"] for data in maps.values() if "config.yaml" in data), encoding="utf-8")
    settings = load_settings({"data_dir": tmp_path / "data"}, config)
    assert f"{of_kind(objects, 'Service')['metadata']['name']}.ml.svc" in settings.allowed_hosts
    assert (settings.clusters_file is not None) == any(name.endswith("-clusters") for name in maps)
    assert (settings.policies_dir is not None) == any(name.endswith("-policies") for name in maps)
    for name, data in maps.items():
        if name.endswith("-clusters"):
            file = tmp_path / "clusters.yaml"
            file.write_text(data["clusters.yaml"], encoding="utf-8")
            assert {cluster.zone for cluster in clusters_of(file, lambda zone: zone)} <= {"FR", "NO"}
        if name.endswith("-policies"):
            for file_name, content in data.items():
                assert parse_policy(content.encode(), file_name, preset).name == file_name.removesuffix(".yaml")


def test_an_entry_with_kubernetes_and_no_address_is_the_cluster_that_the_release_is_on(tmp_path):
    maps = render(VALUE_SETS["clusters, and the one that it is on"], tmp_path)
    (tmp_path / "clusters.yaml").write_text(of_kind(maps, "ConfigMap", "-clusters")["data"]["clusters.yaml"])
    here, lyon = clusters_of(tmp_path / "clusters.yaml", lambda zone: zone)
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert (here.address, here.ca_file) == ("https://kubernetes.default.svc", f"{account}/ca.crt")
    assert str(here.token) == f"file:{account}/token"
    assert here.kubernetes == Kubernetes(("ml", "nlp"), ("ml",))
    assert here.pools[0].node_resources["memory"] == 2e11
    assert (lyon.address, lyon.kubernetes) == (LYON["address"], Kubernetes(("a",)))


def test_the_account_of_another_kubernetes_cluster_is_rendered_alone():
    alone = ("-s", "templates/serviceaccount.yaml", "-s", "templates/kuberay.yaml", "--kube-version", KUBE_VERSION)
    needed = ("--set", "token.existingSecret=none", "--set", "kubeRay.enabled=true")
    done = helm("template", "carbon-sched", str(CHART), "-n", "ml", *needed, *alone)
    assert [(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(done.stdout)] == [
        ("ServiceAccount", "carbon-sched"),
        ("ClusterRole", "carbon-sched-kuberay"),
        ("ClusterRoleBinding", "carbon-sched-kuberay"),
    ]


def test_several_servers_share_what_they_must_and_are_spread(tmp_path):
    objects = render(SEVERAL, tmp_path)
    pod = pods(objects)["Deployment server"]
    assert "--shared-dir=/shared" in pod["containers"][0]["args"]
    assert {"name": "data", "emptyDir": {}} in pod["volumes"]
    assert [one["topologyKey"] for one in pod["topologySpreadConstraints"]] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    assert of_kind(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert of_kind(objects, "Job")["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert "PersistentVolumeClaim" not in {one["kind"] for one in objects}


def test_a_change_of_settings_restarts_servers_and_one_of_clusters_or_policies_does_not(tmp_path):
    def checksum(**values):
        server = of_kind(render({**TOKEN, **values}, tmp_path), "Deployment")
        return server["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum(config={"requests_per_s": 5}) != checksum(config={"requests_per_s": 6})
    assert checksum(clusters={"lyon": LYON}) == checksum(clusters={"lyon": {**LYON, "pue": 1.3}})


def test_the_network_is_closed_but_for_what_is_named(tmp_path):
    policy = of_kind(render(TOKEN, tmp_path), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [sorted(port["port"] for port in rule["ports"]) for rule in policy["egress"]] == [[53, 53], [8290]]
    assert policy["ingress"] == [{"ports": [{"port": 8290}], "from": [{"podSelector": {}}]}]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "token.existingSecret: '' names no Secret. Make one: kubectl create secret"),
        (
            {**TOKEN, "replicaCount": 2},
            "2 servers cannot share one SQLite file. Name a Secret with a postgresql:// URL",
        ),
        ({**TOKEN, "replicaCount": 2, "database": {"existingSecret": "db"}}, "Name a ReadWriteMany claim"),
        ({**TOKEN, "replicaCount": 0}, "replicaCount"),
        ({**TOKEN, "replicas": 2}, "'replicas' not allowed"),
        ({**TOKEN, "meter": {"enable": True}}, "'enable' not allowed"),
        ({**TOKEN, "clusters": {"lyon": {"address": "https://l.example"}}}, "missing property 'zone'"),
        ({**TOKEN, "clusters": {"lyon": {"zone": "FR"}}}, "clusters.lyon.address: '' names no Ray dashboard"),
        ({**TOKEN, "clusters": {"here": HERE}}, "kubeRay.enabled: false gives the servers no account here"),
        (
            {**TOKEN, "kubeRay": {"enabled": True}, "clusters": {"here": {**HERE, "pools": []}}},
            "clusters.here.pools: [] names no nodes",
        ),
        (
            {**TOKEN, "kubeRay": {"enabled": True, "namespaces": ["nlp"]}, "clusters": {"here": HERE}},
            "namespace ml is not among kubeRay.namespaces",
        ),
        ({**TOKEN, "clusters": {"lyon": {**LYON, "pue": 0.8}}}, "/clusters/lyon/pue"),
        ({**TOKEN, "clusters": {"lyon": {**LYON, "token": "secret"}}}, "/clusters/lyon/token"),
        ({**TOKEN, "clusters": {"lyon": {**LYON, "puee": 1.2}}}, "'puee' not allowed"),
        ({**TOKEN, "clusters": {"a": {**LYON, "home": True}, "b": {**LYON, "home": True}}}, "a and b are all home"),
        ({**TOKEN, "policies": {"all": {"name": "other"}}}, "/policies/all"),
        ({**TOKEN, "ingress": {"enabled": True}}, "ingress.hosts: [] names no host"),
        ({**TOKEN, "metrics": {"serviceMonitor": {"enabled": True}}}, "/metrics asks for a token"),
        ({**TOKEN, "serviceAccount": {"create": False}}, "serviceAccount.name: '' names no account"),
        ({**TOKEN, "service": {"port": 99_999}}, "/service/port"),
        ({**TOKEN, "storage": {"size": "much"}}, "/storage/size"),
        ({**TOKEN, "log": {"level": "loud"}}, "/log/level"),
        ({**TOKEN, "meter": {"meetingPlace": "/"}}, "/meter/meetingPlace"),
        ({**TOKEN, "terminationGracePeriodSeconds": 5}, "/terminationGracePeriodSeconds"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(tmp_path, values, told):
    done = try_render(values, tmp_path)
    assert done.returncode != 0
    assert told in done.stderr


@pytest.mark.parametrize("example", sorted(path.name for path in (CHART / "examples").glob("*.yaml")))
def test_the_examples_render_and_lint(tmp_path, example):
    file = CHART / "examples" / example
    linted = helm("lint", "--strict", str(CHART), "-f", str(file))
    assert linted.returncode == 0, linted.stdout
    objects = render(yaml.safe_load(file.read_text(encoding="utf-8")), tmp_path)
    assert [problem for one in objects for problem in validate(one)] == []


def test_the_charts_readme_is_what_helm_docs_makes_of_it(tmp_path):
    if shutil.which("helm-docs") is None:
        pytest.skip("there is no helm-docs on PATH: .ci/provision helm-docs")
    shutil.copytree(CHART, tmp_path / "chart")
    subprocess.run(["helm-docs", "--chart-search-root", str(tmp_path)], check=True, capture_output=True)
    made = (tmp_path / "chart" / "README.md").read_text(encoding="utf-8")
    assert made == (CHART / "README.md").read_text(encoding="utf-8"), "run: helm-docs --chart-search-root helm"


def test_the_chart_carries_the_packages_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    namespace: dict[str, str] = {}
    exec((ROOT / "scheduler/carbon_sched/__init__.py").read_text(encoding="utf-8"), namespace)
    assert chart["appVersion"] == namespace["__version__"]
