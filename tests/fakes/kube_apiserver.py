"""A real kube-apiserver over a real etcd, with KubeRay's CRDs: what `kube_api.py` is compared with.

There are no controllers and no kubelets: the operator is `kuberay.py`, and behind services stands `ray_heads.py`. The
client under test is the service account of the chart, with the chart's role. `.ci/provision --all` builds both.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fakes.fault_proxy import FaultProxy
from tests.fakes.kube_api import KINDS
from tests.fakes.kubernetes import KUBERAY, crd, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from tests.fakes.ray_heads import RayHeads

Json = dict[str, Any]
PROGRAMS = ("etcd", "kube-apiserver")
ADMIN = "the-tests-own-token"
RELEASE = "ml"
"""Namespace of the chart's account, and of most RayJobs."""
NAMESPACES = (RELEASE, "nlp")
START_S = 90.0
GROUPS = {"rayjobs": "apis/ray.io/v1", "rayclusters": "apis/ray.io/v1", "localqueues": "apis/kueue.x-k8s.io/v1beta1"}
OURS = ("rayjobs", "rayclusters", "services", "endpoints", "pods", "configmaps", "events")
LOCAL_QUEUES = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "localqueues.kueue.x-k8s.io", "annotations": {
        "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/kueue"}},
    "spec": {
        "group": "kueue.x-k8s.io", "scope": "Namespaced",
        "names": {"plural": "localqueues", "singular": "localqueue", "kind": "LocalQueue"},
        "versions": [{"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}],
    },
}  # fmt: skip
"""As far as we read Kueue's."""


class KubeApiserver:
    """Both processes in a folder of their own. `watch_cache=False` has every watch depend on etcd's own history."""

    def __init__(self, *, watch_cache: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cs-kube-"))
        self.watch_cache = watch_cache
        self.etcd = f"http://127.0.0.1:{_free_port()}"
        self.port = _free_port()
        self.address = f"https://127.0.0.1:{self.port}"
        self.ca_file = self.folder / "certificates" / "apiserver.crt"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {ADMIN}"
        self.session.verify = str(self.ca_file)
        self.session.trust_env = False  # a CA bundle named there would win over ours
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Until it is ready, with namespaces, CRDs, and the chart's account and role."""
        peers = f"http://127.0.0.1:{_free_port()}"
        self._run(
            "etcd", f"--data-dir={self.folder / 'etcd'}", f"--listen-client-urls={self.etcd}",
            f"--advertise-client-urls={self.etcd}", f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
        )  # fmt: skip
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        signing, tokens = self.folder / "accounts.key", self.folder / "tokens.csv"
        signing.write_bytes(key.private_bytes(*form))
        tokens.write_text(f'{ADMIN},tests,tests,"system:masters"\n')
        self._run(
            "kube-apiserver", f"--etcd-servers={self.etcd}", "--bind-address=127.0.0.1", f"--secure-port={self.port}",
            f"--cert-dir={self.ca_file.parent}", f"--token-auth-file={tokens}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={signing}",
            f"--service-account-signing-key-file={signing}", "--service-cluster-ip-range=10.0.0.0/16",
            f"--watch-cache={str(self.watch_cache).lower()}",
        )  # fmt: skip
        self._wait(lambda: self.session.get(f"{self.address}/readyz", timeout=5).ok)
        self._furnish()

    def stop(self) -> None:
        for process in self.processes:  # asked kindly, it would wait a minute for watches to end
            process.kill()
            process.wait()
        shutil.rmtree(self.folder)

    def ask(self, method: str, path: str, body: Json | None = None, **query: str) -> Any:
        """As the cluster's administrator."""
        answer = self.session.request(method, f"{self.address}/{path}", json=body, params=query, timeout=60)
        if not answer.ok:
            raise AssertionError(method, path, answer.text)
        return answer.json()

    def forget_history(self) -> None:
        """Without a watch cache: no watch can be begun from what was seen before, for something has changed since."""
        path = f"api/v1/namespaces/{RELEASE}/configmaps"
        self.ask("POST", path, {"metadata": {"generateName": "later-"}})
        there = requests.post(f"{self.etcd}/v3/kv/range", json={"key": "AA=="}, timeout=10).json()
        wanted = {"revision": there["header"]["revision"], "physical": True}
        requests.post(f"{self.etcd}/v3/kv/compaction", json=wanted, timeout=30).raise_for_status()

    def token(self) -> str:
        """Of the chart's account, as a pod of it would be given."""
        path = f"api/v1/namespaces/{RELEASE}/serviceaccounts/r-carbon-sched/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        return str(self.ask("POST", path, asked)["status"]["token"])

    def define(self, one: Json) -> None:
        """A CRD, until it is served."""
        self.ask("POST", "apis/apiextensions.k8s.io/v1/customresourcedefinitions", one)
        spec = one["spec"]
        path = f"{self.address}/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        self._wait(lambda: self.session.get(path, timeout=5).ok)

    def forget(self, one: Json) -> None:
        """A CRD, with all its objects, until it is not served any more."""
        self.ask("DELETE", f"apis/apiextensions.k8s.io/v1/customresourcedefinitions/{one['metadata']['name']}")
        path = f"{self.address}/apis/{one['spec']['group']}/v1beta1/{one['spec']['names']['plural']}"
        self._wait(lambda: self.session.get(path, timeout=5).status_code == 404)

    def clear(self) -> None:
        """Delete what a test made."""
        for plural in OURS:
            for one in self.of(plural):
                if one["metadata"].get("finalizers"):
                    self.ask("PUT", path_of(plural, one), {**one, "metadata": {**one["metadata"], "finalizers": []}})
                with contextlib.suppress(AssertionError):  # endpoints go with their service
                    self.ask("DELETE", path_of(plural, one))

    def of(self, plural: str) -> list[Json]:
        """In our namespaces, oldest first."""
        found = []
        for namespace in NAMESPACES:
            found += self.ask("GET", f"{GROUPS.get(plural, 'api/v1')}/namespaces/{namespace}/{plural}")["items"]
        return sorted(found, key=lambda one: int(one["metadata"]["resourceVersion"]))

    # how -----------------------------------------------------------------------------------------

    def _run(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.log").open("wb") as log:
            self.processes.append(subprocess.Popen([program, *arguments], stdout=log, stderr=log, cwd=self.folder))

    def _wait(self, good: Any) -> None:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(requests.RequestException, OSError):
                if good():
                    return
            ended = [process.args[0] for process in self.processes if process.poll() is not None]  # type: ignore[index]
            logs = {name: (self.folder / f"{name}.log").read_text()[-3000:] for name in ended}
            assert not ended, logs
            assert time.monotonic() < deadline, (self.folder / "kube-apiserver.log").read_text()[-3000:]
            time.sleep(0.1)

    def _furnish(self) -> None:
        for name in NAMESPACES:
            self.ask("POST", "api/v1/namespaces", {"metadata": {"name": name}})
            self.ask("POST", f"api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        for plural in ("rayjobs", "rayclusters"):
            self.define(crd(KUBERAY, f"config/crd/bases/ray.io_{plural}.yaml"))
        values = {"token": {"existingSecret": "t"}, "kubeRay": {"enabled": True}}
        rbac = "apis/rbac.authorization.k8s.io/v1"
        paths = {
            "ServiceAccount": f"api/v1/namespaces/{RELEASE}/serviceaccounts",
            "ClusterRole": f"{rbac}/clusterroles",
            "ClusterRoleBinding": f"{rbac}/clusterrolebindings",
        }
        for one in render(values, self.folder):
            if one["kind"] in paths:
                self.ask("POST", paths[one["kind"]], one)


class RealKubeApi:
    """One test's view of it, with the face of `FakeKubeApi`; Ray heads listen where its proxy may go.

    The operator is at the server itself; `faulty` puts a proxy that fails before it for everybody else.
    """

    def __init__(self, server: KubeApiserver, heads: RayHeads, *, faulty: bool = False) -> None:
        self.server = server
        self.operator_at = self.address = server.address
        self.proxy = FaultProxy(server.port, str(server.ca_file)) if faulty else None
        self.session = {"headers": server.session.headers, "verify": server.session.verify, "trust_env": False}
        self._end = contextlib.ExitStack()
        host = _reachable_host()
        self.heads_at = (host, self._end.enter_context(heads.serve_at(host)))
        token = server.folder / "token"
        token.write_text(server.token())
        self.token, self.ca_file = f"file:{token}", str(server.ca_file)
        if self.proxy is not None:
            self._end.callback(self.proxy.close)
            self.address, self.ca_file = self.proxy.address, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self.server.clear()

    @property
    def fault(self) -> Callable[[str, str], str]:
        return self._faulty().fault

    @fault.setter
    def fault(self, fault: Callable[[str, str], str]) -> None:
        self._faulty().fault = fault

    def expire(self) -> None:
        self.server.forget_history()
        self._faulty().end_watches()

    def _faulty(self) -> FaultProxy:
        assert self.proxy is not None
        return self.proxy

    def of(self, plural: str) -> list[Json]:
        return self.server.of(plural)

    def create(self, plural: str, one: Json) -> Json:
        """Where Kueue's objects are made, Kueue is installed, for as long as this test takes."""
        if plural == "localqueues":
            self.server.define(LOCAL_QUEUES)
            self._end.callback(self.server.forget, LOCAL_QUEUES)
        group = GROUPS.get(plural, "api/v1")
        kind = KINDS.get(plural, "LocalQueue")
        typed = {"apiVersion": group.partition("/")[2], "kind": kind, **one}
        namespace = one["metadata"].get("namespace", "default")
        return dict(self.server.ask("POST", f"{group}/namespaces/{namespace}/{plural}", typed))

    def replace(self, key: tuple[str, str, str], one: Json, *, status: bool) -> Json:
        path = f"{GROUPS[key[0]]}/namespaces/{key[1]}/{key[0]}/{key[2]}"
        return dict(self.server.ask("PUT", f"{path}/status" if status else path, one))

    def delete(self, key: tuple[str, str, str], uid: str | None) -> Json:
        assert uid is None
        return dict(self.server.ask("DELETE", f"{GROUPS[key[0]]}/namespaces/{key[1]}/{key[0]}/{key[2]}"))


def path_of(plural: str, one: Json) -> str:
    """Of an object."""
    metadata = one["metadata"]
    return f"{GROUPS.get(plural, 'api/v1')}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


@pytest.fixture(scope="session")
def kube_apiserver() -> Iterator[KubeApiserver]:
    """One for all tests of a process."""
    yield from running(KubeApiserver())


def running(server: KubeApiserver) -> Iterator[KubeApiserver]:
    """Started and, whatever happens, stopped; skips where the programs are not installed."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        shutil.rmtree(server.folder)
        pytest.skip(f"{' and '.join(missing)} not on PATH: .ci/provision etcd kube-apiserver")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _reachable_host() -> str:
    """An address of this machine that is not a loopback's: no API server lets its proxy go there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but its loopback's, where no API server's proxy may go")
        return str(asked.getsockname()[0])
