"""A Ray head without Ray: its dashboard's routes with the oddities of real ones, and lies on request.

It passes the contract suite that real heads pass (tests/contract/test_ray_client.py). Entrypoints really run, as child
processes of the test, unless `execute=False`: then `begin` and `finish` move jobs by hand. Versions: 2.60, 2.40, 2.9.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import socketserver
import tempfile
import threading
import time
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tests.fakes.ray_head_http import Handler, Lie, Reply, text, told
from tests.fakes.ray_head_jobs import TERMINAL, FakeJob, FakeJobs

if TYPE_CHECKING:
    from typing_extensions import Self

BODY_BYTES = 104_857_600
BLOCK_BYTES = 65_536
FIELDS = {
    "entrypoint", "submission_id", "job_id", "runtime_env", "metadata", "entrypoint_num_cpus", "entrypoint_num_gpus",
    "entrypoint_memory", "entrypoint_resources",
}  # fmt: skip


class Server(ThreadingHTTPServer):
    """Without the library's search for the name of this machine, which takes long."""

    daemon_threads = True
    server_bind = socketserver.TCPServer.server_bind


@dataclass
class FakeRayHead(FakeJobs):
    """Use as a context manager; `address` is what a cluster is configured with."""

    version: str = "2.60.0"
    token: str | None = None
    cpus: float = 4.0
    gpus: float = 0.0
    resources: dict[str, float] = field(default_factory=dict)
    autoscaler: str = "v1"  # or "v2", or "none": where usage is told
    ready: bool = True  # the dashboard answers before the node is alive
    execute: bool = True
    port: int = 0
    number: int = 0  # one of several, each with a node of its own
    nodes: list[dict[str, Any]] = field(default_factory=list)  # of the summary
    actors: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, FakeJob] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    applications: list[dict[str, Any]] = field(default_factory=list)
    serve_options: dict[str, Any] | None = None
    serve_installed: bool = True
    seen: list[tuple[str, str]] = field(default_factory=list)
    received: list[dict[str, str]] = field(default_factory=list)
    lies: list[Lie] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.lives = 0
        self.folder = Path(tempfile.mkdtemp(prefix="cs-fake-ray-"))
        self.new_life()

    def __enter__(self) -> Self:
        head = self

        class OurHandler(Handler):
            fake = head

        self.server = Server(("127.0.0.1", self.port), OurHandler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        self.kill_jobs()
        shutil.rmtree(self.folder, ignore_errors=True)

    # what a test does to it ----------------------------------------------------------------------

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def release(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split(".")[:2])

    def lie(self, how: str, path: str = "", *, method: str = "", times: int = 1, **more: Any) -> None:
        """Answer the next `times` requests that match (`path` is a regular expression) otherwise; see Lie."""
        self.lies.append(Lie(how, method, path, times, **more))

    def count(self, method: str, path: str) -> int:
        """How many requests of this method and path (a regular expression) arrived."""
        return sum(1 for m, p in self.seen if m == method and re.fullmatch(path, p))

    def restart(self, *, fault_tolerant: bool = False) -> None:
        """The head dies with its drivers and comes back: empty, or (with an external Redis) remembering."""
        with self.lock:
            self.kill_jobs()
            if not fault_tolerant:
                self.jobs.clear()
                self.packages.clear()
                self.new_life()
                return
            for job in self.jobs.values():
                job.supervised = False  # nobody notices before the job manager is woken

    def new_life(self) -> None:
        self.lives += 1
        self.session_name = f"session_2026-01-01_00-00-00_{self.lives:06d}_{self.port or 1}"
        self.cluster_id = f"{self.lives:056x}"
        self.node_id = f"{self.number:028x}{self.lives + 0xA0:028x}"
        self.logs = self.folder / self.session_name / "logs"
        self.logs.mkdir(parents=True)

    def put_file(self, name: str, content: bytes) -> None:
        """A file in the node's session log directory."""
        (self.logs / name).write_bytes(content)

    # routes --------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Reply:
        for pattern, verb, name in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if match and verb == method:
                return getattr(self, name)(query=query, body=body, **match.groupdict())
        return text("404: Not Found", 404)

    ROUTES: ClassVar = [
        (r"/api/version", "GET", "get_version"),
        (r"/cluster_id", "GET", "get_cluster_id"),
        (r"/api/authentication_mode", "GET", "get_mode"),
        (r"/api/v0/nodes", "GET", "get_nodes"),
        (r"/nodes", "GET", "get_summary"),
        (r"/api/v0/actors", "GET", "get_actors"),
        (r"/api/v0/placement_groups", "GET", "get_groups"),
        (r"/api/cluster_status", "GET", "get_status"),
        (r"/api/jobs/", "GET", "get_jobs"),
        (r"/api/jobs/", "POST", "post_job"),
        (r"/api/jobs/(?P<job>[^/]+)", "GET", "get_job"),
        (r"/api/jobs/(?P<job>[^/]+)/stop", "POST", "post_stop"),
        (r"/api/jobs/(?P<job>[^/]+)/logs", "GET", "get_logs"),
        (r"/api/serve/applications/", "GET", "get_applications"),
        (r"/api/serve/applications/", "PUT", "put_applications"),
        (r"/api/packages/gcs/(?P<name>[^/]+)", "GET", "get_package"),
        (r"/api/packages/gcs/(?P<name>[^/]+)", "PUT", "put_package"),
        (r"/api/v0/logs", "GET", "list_logs"),
        (r"/api/v0/logs/file", "GET", "get_file"),
    ]

    def get_version(self, **_: Any) -> Reply:
        version = {"version": "4", "ray_version": self.version, "ray_commit": "0" * 40}
        return told(version | ({"session_name": self.session_name} if self.release >= (2, 10) else {}))

    def get_cluster_id(self, **_: Any) -> Reply:
        if self.release < (2, 10):
            return text("404: Not Found", 404)
        return told({"result": True, "msg": "Fetched cluster id", "data": {"clusterId": self.cluster_id}})

    def get_mode(self, **_: Any) -> Reply:
        if self.release < (2, 52):
            return text("404: Not Found", 404)
        return told({"authentication_mode": "token" if self.token else "disabled"})

    def get_nodes(self, **_: Any) -> Reply:
        node = {
            "node_id": self.node_id, "node_ip": "127.0.0.1", "is_head_node": True, "state": "ALIVE",
            "resources_total": self.total(), "labels": {"ray.io/node-id": self.node_id}, "end_time_ms": 0,
        }  # fmt: skip
        nodes = [node] if self.ready else []
        found = {"total": len(nodes), "num_after_truncation": len(nodes), "num_filtered": len(nodes), "result": nodes}
        more = {"partial_failure_warning": "", "warnings": None}
        return told({"result": True, "msg": "", "data": {"result": {**found, **more}}})

    def get_summary(self, **_: Any) -> Reply:
        usage = {}
        if self.release > (2, 40) and self.autoscaler != "none":
            used = self.used()
            lines = [
                _usage_line(name, used[name], total) for name, total in self.total().items() if "node:" not in name
            ]
            usage = {self.node_id: "\n".join(lines)}
        data = {"summary": self.nodes, "nodeLogicalResources": usage}
        return told({"result": True, "msg": "Node summary fetched.", "data": data})

    def get_actors(self, query: dict[str, str], **_: Any) -> Reply:
        """Filtered by equality in one column, as Ray does."""
        found = [actor for actor in self.actors if actor[query["filter_keys"]] == query["filter_values"]]
        return told({"result": True, "msg": "", "data": {"result": {"total": len(found), "result": found}}})

    def get_groups(self, **_: Any) -> Reply:
        return told({"result": True, "msg": "", "data": {"result": {"total": len(self.groups), "result": self.groups}}})

    def get_status(self, **_: Any) -> Reply:
        status = None
        if self.autoscaler == "v1":
            used = self.used()
            usage = {_camel(name): [used[name], total] for name, total in self.total().items()}
            report = {"usage": usage, "usageByNode": {self.node_id: usage}, "resourceDemand": [], "headIp": None}
            status = {"time": time.time(), "monitorPid": 1, "loadMetricsReport": report}
        data = {"autoscalingStatus": None, "autoscalingError": None, "clusterStatus": status}
        return told({"result": True, "msg": "Got cluster status.", "data": data})

    def get_jobs(self, **_: Any) -> Reply:
        driver = {"type": "DRIVER", "job_id": "02000000", "submission_id": None, "status": "RUNNING", "entrypoint": ""}
        return told([*([driver] if self.jobs else []), *(job.details() for job in list(self.jobs.values()))])

    def post_job(self, body: bytes, **_: Any) -> Reply:
        request = json.loads(body)
        known = FIELDS | ({"entrypoint_label_selector"} if self.release >= (2, 54) else set())
        for name in request:
            if name not in known:
                return text(f"Traceback (most recent call last):\n  ...\nTypeError: JobSubmitRequest.__init__() got an "
                            f"unexpected keyword argument '{name}'\n", 400)  # fmt: skip
        self.wake()
        submission_id = request.get("submission_id") or f"raysubmit_{len(self.jobs)}"
        with self.lock:
            if submission_id in self.jobs:
                sentence = f"ValueError: Job with submission_id {submission_id} already exists."
                return text(f"Traceback (most recent call last):\n  ...\n{sentence} Please use a different "
                            "submission_id.\n.\n", 500)  # fmt: skip
            job = FakeJob(submission_id, request, self.node_id, int(time.time() * 1000))
            self.jobs[submission_id] = job
        if self.execute:
            self.start_what_fits()
        return told({"job_id": submission_id, "submission_id": submission_id})

    def get_job(self, job: str, **_: Any) -> Reply:
        known = self.jobs.get(job)
        return told(known.details()) if known else text(f"Job {job} does not exist", 404)

    def post_stop(self, job: str, **_: Any) -> Reply:
        known = self.jobs.get(job)
        if known is None:
            return text(f"Job {job} does not exist", 404)
        self.wake()
        known.stop_asked = True
        if known.status == "RUNNING":
            self.stop_running(known)
        return told({"stopped": known.status not in TERMINAL})

    def get_logs(self, job: str, **_: Any) -> Reply:
        if job not in self.jobs:
            return text(f"Job {job} does not exist", 404)
        self.wake()
        path = self.logs / f"job-driver-{job}.log"
        try:
            return told({"logs": path.read_text("utf-8") if path.exists() else ""})
        except UnicodeDecodeError as error:
            return text(f"Traceback (most recent call last):\n  ...\nUnicodeDecodeError: {error}\n", 500)

    def get_applications(self, **_: Any) -> Reply:
        """Before the first PUT there is no controller, and nothing that it would tell."""
        if not self.serve_installed:
            return text("Serve dependencies are not installed. Please run `pip install ray[serve]`.", 501)
        if self.serve_options is None:
            return told({"controller_info": {}, "proxies": {}, "applications": {}, "target_capacity": None})
        proxy = {"node_id": self.node_id, "node_ip": "127.0.0.1", "status": "HEALTHY"}
        return told({
            "controller_info": {"node_id": self.node_id}, "proxy_location": "EveryNode",
            "http_options": self.serve_options, "proxies": {self.node_id: proxy},
            "applications": {app["name"]: self._application(app) for app in self.applications},
        })  # fmt: skip

    def _application(self, config: dict[str, Any]) -> dict[str, Any]:
        replica = {"node_id": self.node_id, "replica_id": "r", "state": "RUNNING", "pid": 1}
        return {
            "name": config["name"], "status": "RUNNING", "message": "", "last_deployed_time_s": 1.0,
            "deployed_app_config": config, "deployments": {"D": {"name": "D", "replicas": [replica]}},
        }  # fmt: skip

    def put_applications(self, body: bytes, **_: Any) -> Reply:
        """The whole set; options of HTTP count the first time alone."""
        config = json.loads(body)
        if any("import_path" not in app for app in config["applications"]):
            return text("ValidationError(...): import_path: Field required", 400)
        self.serve_options = self.serve_options or {**config["http_options"], "root_path": ""}
        self.applications = config["applications"]
        return Reply(200, b"")

    def get_package(self, name: str, **_: Any) -> Reply:
        if name in self.packages:
            return Reply(200, b"")
        return text(f"Package gcs://{name} does not exist", 404)

    def put_package(self, name: str, body: bytes, **_: Any) -> Reply:
        if len(body) > BODY_BYTES:
            return text(f"Maximum request body size {BODY_BYTES} exceeded.", 413)
        self.packages[name] = body
        return Reply(200, b"")

    def list_logs(self, query: dict[str, str], **_: Any) -> Reply:
        if query.get("node_id") != self.node_id:
            return text("500 Internal Server Error\n\nServer got itself in trouble", 500)
        found = [path for path in self.logs.iterdir() if fnmatch.fnmatch(path.name, query.get("glob", "*"))]
        names = sorted(path.name + "/" * path.is_dir() for path in found)
        return told({"result": True, "msg": "", "data": {"result": {"internal": names} if names else {}}})

    def get_file(self, query: dict[str, str], **_: Any) -> Reply:
        path = self.logs / query["filename"]
        problem = ""
        if query.get("node_id") != self.node_id:
            problem = f"Agent for node id: {query.get('node_id')} doesn't exist."
        elif not path.is_file():
            problem = f"A file is not found at: {path}"
        marks = self.release < (2, 45)
        if problem and not marks:
            return text(problem, 500)
        if problem:
            block = f"0Closing HTTP stream due to internal server error.\n{problem}".encode()
            return Reply(200, b"", "text/plain", [block])
        content = path.read_bytes()
        blocks = [content[at : at + BLOCK_BYTES] for at in range(0, len(content), BLOCK_BYTES)]
        return Reply(200, b"", "text/plain", [b"1" + block for block in blocks] if marks else blocks)


def _usage_line(name: str, used: float, total: float) -> str:
    if name in ("memory", "object_store_memory"):
        return f"{used / 2**30:.2f}GiB/{total / 2**30:.2f}GiB {name}"
    return f"{used}/{total} {name}"


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)
