"""One Ray cluster over its dashboard's HTTP: the port `ClusterClient`, for Ray 2.9 and newer.

What each oddity handled here looks like was seen on Ray 2.9.3, 2.40.0 and 2.60.0;
`tests/fakes/ray_head.py` repeats them.
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from carbon_sched.clusters import ray_answers, ray_serve
from carbon_sched.clusters.http import (
    CHUNK_BYTES,
    HTTP_NOT_FOUND,
    HTTP_OK,
    HTTP_SERVER_ERROR,
    MEBIBYTE,
    Answer,
    Limits,
    file_size,
)
from carbon_sched.clusters.log_text import tail_of_json_text
from carbon_sched.clusters.ray_gauge import gpu_power
from carbon_sched.clusters.ray_http import RayHttp, sent_at
from carbon_sched.domain.cluster import ClusterStatus, Epoch, Node
from carbon_sched.domain.errors import ClusterError, ClusterRefused, ClusterUnclear
from carbon_sched.ports import RayJob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from carbon_sched.clusters.http import Endpoint
    from carbon_sched.ports import Clock, GpuPower, RaySubmission, Served

OLDEST_RAY = (2, 9)
LABEL_SELECTOR_RAY = (2, 54)
PACKAGE_BYTES = 100 * MEBIBYTE
LOG_BYTES = 64 * MEBIBYTE
# JSON spells one byte of text with at most six: `\u00e9` is two bytes of UTF-8, a control character one.
LOG_LIMITS = Limits(total_s=300.0, answer_bytes=8 * LOG_BYTES)
UPLOAD_LIMITS = Limits(read_s=120.0, total_s=600.0)
# Before Ray answered errors with 500 it put one byte (0 for an error) before every block of up to 64 KiB.
UNMARKED_FILES_RAY = (2, 45)
MARKED_FILE_BYTES = 64 * 1024
MARKED_ERROR = b"Closing HTTP stream due to internal server error.\n"
# The monitor reports every 5 s.
STALE_REPORT_S = 120.0
OUR_VARIABLES = ("CARBON_SCHED_", "RAY_")
LEAST_SECRET = 4
"""Shorter values, such as 1 or yes, are no secrets, and blotting them out would make messages unreadable."""
NOT_PLACED = frozenset({"PENDING", "RESCHEDULING"})
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class RayClient:
    """Implements `ports.ClusterClient`; may be used from several threads at once."""

    def __init__(self, name: str, endpoint: Callable[[], Endpoint], clock: Clock, limits: Limits | None = None) -> None:
        """Speak to whatever `endpoint` names at the time of each call; it may raise ClusterError itself."""
        self.name = name
        self._http = RayHttp(name, endpoint, clock, limits)
        self._clock = clock
        self._known = _Known()

    def close(self) -> None:
        """Drop open connections."""
        self._http.close()

    # what the cluster is -------------------------------------------------------------------------

    def status(self) -> ClusterStatus:
        """Nodes, usage and epoch now; trouble of any kind is told in `problem`."""
        seen = ClusterStatus(self.name, self._clock.now())
        try:
            seen = replace(seen, address=self._http.endpoint().address)
            return self._look(seen)
        except ClusterError as error:
            return replace(seen, problem=str(error))

    def _look(self, seen: ClusterStatus) -> ClusterStatus:
        version = self._version()
        seen = replace(seen, ray_version=version.ray_version)
        if parse_version(version.ray_version) < OLDEST_RAY:
            return replace(seen, problem=f"it runs Ray {version.ray_version}; 2.9 or newer is needed")
        nodes = self._nodes()
        seen = replace(seen, epoch=self._epoch(version, nodes), nodes=nodes)
        if not nodes:
            return replace(seen, problem="its dashboard answers, but no node is alive (yet)")
        return replace(seen, nodes=self._with_usage(nodes))

    def epoch(self) -> Epoch:
        """Identity of the present control plane."""
        version = self._version()
        return self._epoch(version, () if version.session_name else self._nodes())

    def ray_version(self) -> str:
        """The version that the cluster says it runs."""
        return self._version().ray_version

    def clock_skew_s(self) -> float | None:
        """How far the head's clock is ahead of ours, to about a second; None when it does not tell its time."""
        before = self._clock.now().timestamp()
        answer = self._http.ask("GET", "/api/version")
        ours = (before + self._clock.now().timestamp()) / 2
        # The header leaves out the fraction of the second, which is half a one on average.
        return sent_at(answer) + 0.5 - ours if answer.date else None

    def wants_token(self) -> bool | None:
        """Whether the cluster refuses requests without a token; None where Ray is too old to say (before 2.52: no)."""
        answer = self._http.ask("GET", "/api/authentication_mode")
        if answer.status == HTTP_NOT_FOUND:
            return None
        return self._http.parse(ray_answers.AuthenticationMode, answer, "/api/authentication_mode").mode != "disabled"

    def _version(self) -> ray_answers.Version:
        version = self._http.read(ray_answers.Version, "/api/version")
        self._known = replace(self._known, version=parse_version(version.ray_version))
        return version

    def _ray(self) -> tuple[int, ...]:
        """The version last seen; asked for once if never."""
        return self._known.version or parse_version(self._version().ray_version)

    def _epoch(self, version: ray_answers.Version, nodes: tuple[Node, ...]) -> Epoch:
        """Ray before 2.10 names neither session nor cluster; there a new head has a new node id."""
        if not version.session_name:
            return Epoch(next((node.node_id for node in nodes if node.is_head), ""), "")
        if self._known.epoch is None or self._known.epoch.session_name != version.session_name:
            answer = self._http.ask("GET", "/cluster_id")
            known = answer.status != HTTP_NOT_FOUND
            cluster_id = self._http.parse(ray_answers.ClusterId, answer, "/cluster_id").data.cluster_id if known else ""
            self._known = replace(self._known, epoch=Epoch(version.session_name, cluster_id))
        return self._known.epoch or Epoch(version.session_name, "")

    def _nodes(self) -> tuple[Node, ...]:
        answer = self._http.read(ray_answers.Nodes, "/api/v0/nodes", detail="1", limit="10000")
        return tuple(
            Node(node.node_id, node.node_ip, node.is_head_node, node.resources_total or {}, labels=node.labels or {})
            for node in answer.data.result.result
            if node.state == "ALIVE"
        )

    def _with_usage(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        """What is taken on each node, as far as Ray says.

        The status of the classic autoscaler is exact and light. It is missing under the newer one, and for the first
        seconds of a head; the node summary then tells the same as text, where this Ray has it.
        """
        answer = self._http.ask_well("/api/cluster_status")
        status = self._http.parse(ray_answers.ClusterStatusAnswer, answer, "/api/cluster_status")
        loads = status.usage_by_node(newer_than=sent_at(answer) - STALE_REPORT_S)
        used = {
            node.node_id: ray_answers.usage_from_load(loads.get(node.node_id, {}), node.resources) for node in nodes
        }
        if not all(used.values()):
            texts = self._http.read(ray_answers.Summary, "/nodes", view="summary").data.usage_text
            used = {name: known or ray_answers.usage_from_text(texts.get(name, "")) for name, known in used.items()}
        if not any(used.values()) and self._never_used():
            used = {node.node_id: dict.fromkeys(node.resources, 0.0) for node in nodes}
        return tuple(replace(node, used=used[node.node_id] or None) for node in nodes)

    def _never_used(self) -> bool:
        """Whether no job and no driver was ever seen: whatever is taken in Ray is taken for one of them."""
        answer = self._http.ask("GET", "/api/jobs/")
        return answer.status == HTTP_OK and answer.body.strip() == b"[]"

    # packages ------------------------------------------------------------------------------------

    def ensure_package(self, path: Path, name: str) -> str:
        """Upload the zip unless the cluster has it; returns its `gcs://` URI. ClusterRefused when it is too large."""
        size = file_size(path)
        if size > PACKAGE_BYTES:
            raise ClusterRefused(
                f"package {name} has {size} bytes; Ray's dashboard takes {PACKAGE_BYTES} (100 MiB) at most"
            )
        target = f"/api/packages/gcs/{name}"
        # Asking also keeps a package that is there from being collected for the next ten minutes.
        answer = self._http.ask("GET", target)
        if answer.status == HTTP_OK:
            return f"gcs://{name}"
        if answer.status != HTTP_NOT_FOUND:
            raise self._http.failure(answer, target)
        answer = self._http.request("PUT", target, upload=path, limits=UPLOAD_LIMITS)
        if answer.status != HTTP_OK:
            raise self._http.failure(answer, target)
        return f"gcs://{name}"

    # jobs ----------------------------------------------------------------------------------------

    def submit(self, submission: RaySubmission) -> None:
        """POST once; "already exists" counts as success. ClusterUnclear when the outcome is not known."""
        _check_id(submission.submission_id)
        if submission.entrypoint_label_selector:
            self._check_label_selector()
        answer = self._http.request("POST", "/api/jobs/", json=_request_body(submission))
        if answer.status == HTTP_OK:
            sent = self._http.parse(ray_answers.Submitted, answer, "/api/jobs/")
            if sent.submission_id != submission.submission_id:
                raise ClusterUnclear(f"{self._name}: the answer to our submission is about {sent.submission_id!r}")
            return
        if f"submission_id {submission.submission_id} already exists" in answer.text:
            return
        quotable = replace(answer, secrets=(*answer.secrets, *_confidential(dict(submission.runtime_env))))
        raise self._http.failure(quotable, "/api/jobs/")

    def _check_label_selector(self) -> None:
        version = self._ray()
        if version < LABEL_SELECTOR_RAY:
            needed = ".".join(map(str, LABEL_SELECTOR_RAY))
            raise ClusterRefused(
                f"{self._name}: its Ray {'.'.join(map(str, version))} does not know entrypoint label selectors; "
                f"{needed} or newer does"
            )

    def job(self, submission_id: str) -> RayJob | None:
        """The job, or None when the cluster clearly does not know the id."""
        target = f"/api/jobs/{_check_id(submission_id)}"
        answer = self._http.ask("GET", target)
        if self._says_unknown(answer, submission_id):
            return None
        if answer.status != HTTP_OK:
            raise self._http.failure(answer, target)
        job = _ray_job(self._http.parse(ray_answers.JobDetails, answer, target))
        if job.submission_id != submission_id:
            raise ClusterUnclear(
                f"{self._name}: asked for job {submission_id}, it answered about {job.submission_id!r}"
            )
        return job

    def jobs(self) -> list[RayJob]:
        """Every submission job the cluster knows."""
        return [_ray_job(job) for job in self._job_details()]

    def waiting_for_room(self) -> set[str]:
        """Submission ids of the jobs with a placement group that is not placed, or no longer."""
        groups = self._http.read(ray_answers.PlacementGroups, "/api/v0/placement_groups", limit="10000").data.result
        waiting = {group.creator_job_id for group in groups.result if group.state in NOT_PLACED}
        jobs = self._job_details() if waiting else []
        return {job.submission_id or "" for job in jobs if job.job_id in waiting}

    def _job_details(self) -> list[ray_answers.JobDetails]:
        """Those that were submitted; drivers that nobody submitted are left out."""
        answer = self._http.ask_well("/api/jobs/")
        try:
            details = ray_answers.JOB_LIST.validate_json(answer.body)
        except ValidationError as error:
            raise self._http.not_ray(answer, "/api/jobs/", error) from None
        return [job for job in details if job.submission_id]

    def stop(self, submission_id: str) -> None:
        """Ask for a stop; an unknown id is no error."""
        target = f"/api/jobs/{_check_id(submission_id)}/stop"
        answer = self._http.ask("POST", target)
        if self._says_unknown(answer, submission_id):
            return
        if answer.status != HTTP_OK:
            raise self._http.failure(answer, target)
        self._http.parse(ray_answers.Stopped, answer, target)

    def logs(self, submission_id: str) -> bytes | None:
        """The driver's log, at most its last 64 MiB; None when there is none. Wakes Ray's job manager.

        Ray reads the log as text and fails on a byte that is not UTF-8; the file itself is fetched then.
        """
        target = f"/api/jobs/{_check_id(submission_id)}/logs"
        with self._http.stream("GET", target, limits=LOG_LIMITS) as (head, body):
            if head.status == HTTP_OK:
                if head.media_type != "application/json":
                    raise self._http.not_ray(head, target, "no JSON")
                try:
                    return tail_of_json_text(body, "logs", LOG_BYTES) or None
                except ValueError as error:
                    raise self._http.not_ray(head, target, error) from None
            answer = replace(head, body=b"".join(body))
        if self._says_unknown(answer, submission_id):
            return None
        if answer.status == HTTP_SERVER_ERROR and "UnicodeDecodeError" in answer.text:
            job = self.job(submission_id)
            if job is not None and job.driver_node_id:
                return self.read_file(job.driver_node_id, f"job-driver-{submission_id}.log", limit=LOG_BYTES)
        raise self._http.failure(answer, target)

    # files of a node's session log directory -----------------------------------------------------

    def list_files(self, node_id: str, pattern: str) -> list[str]:
        """Names in the node's session log directory that match the glob, sorted; folders are left out."""
        answer = self._http.read(ray_answers.LogNames, "/api/v0/logs", node_id=node_id, glob=pattern)
        names = {name for group in answer.data.result.values() for name in group}
        return sorted(name for name in names if not name.endswith("/"))

    def read_file(self, node_id: str, name: str, *, limit: int) -> bytes:
        """One file of that directory, byte for byte; ClusterRefused when there is none or it is larger than `limit`."""
        marked = self._ray() < UNMARKED_FILES_RAY
        allowed = limit + 1 if marked else limit
        limits = replace(self._http.limits, answer_bytes=allowed + CHUNK_BYTES)
        params = {"node_id": node_id, "filename": name, "lines": "-1"}
        read = bytearray()
        with self._http.stream("GET", "/api/v0/logs/file", params=params, limits=limits) as (head, body):
            if head.status != HTTP_OK:
                raise self._file_failure(replace(head, body=b"".join(body)), name)
            for piece in body:
                read += piece
                if marked and read[:1] == b"0":
                    raise ClusterRefused(
                        f"{self._name}: file {name}: {head.quoted(read[1:].decode('utf-8', 'replace'))}"
                    )
                if len(read) > allowed:
                    raise ClusterRefused(f"{self._name}: file {name} on node {node_id} is larger than {limit} bytes")
        content = self._unmarked(bytes(read), name) if marked else bytes(read)
        # Ray loses the error for a file that is not there now and then, and sends nothing with HTTP 200 instead.
        if not content and not self.list_files(node_id, glob.escape(name)):
            raise ClusterRefused(f"{self._name}: file {name} is not found on node {node_id}")
        return content

    # Ray Serve -----------------------------------------------------------------------------------

    def served(self) -> Served:
        """What Ray Serve does there now."""
        return ray_serve.served(self._http)

    def serve(self, applications: Sequence[Mapping[str, Any]], *, host: str, port: int) -> None:
        """Put the whole set of Serve's declared applications."""
        ray_serve.serve(self._http, applications, host=host, port=port)

    # Ray's own gauge -----------------------------------------------------------------------------

    def gpu_power(self) -> list[GpuPower]:
        """Every GPU of every node that Ray's own power gauge shows."""
        return gpu_power(self._http)

    def _unmarked(self, read: bytes, name: str) -> bytes:
        content = read[1:]
        if MARKED_ERROR in content:
            raise ClusterUnclear(f"{self._name}: file {name} could not be read to its end")
        if len(content) > MARKED_FILE_BYTES:
            old = f"Ray before {'.'.join(map(str, UNMARKED_FILES_RAY))}"
            raise ClusterRefused(
                f"{self._name}: file {name} is larger than 64 KiB, which {old} does not hand out unchanged"
            )
        return content

    def _says_unknown(self, answer: Answer, submission_id: str) -> bool:
        """Only Ray's own sentence counts: a proxy's 404 says nothing about the job."""
        return answer.status == HTTP_NOT_FOUND and f"Job {submission_id} does not exist" in answer.text

    def _file_failure(self, answer: Answer, name: str) -> ClusterError:
        if "A file is not found" in answer.text or "doesn't exist" in answer.text:
            return ClusterRefused(f"{self._name}: file {name}: {answer.quoted(answer.text)}")
        return self._http.failure(answer, "/api/v0/logs/file")

    @property
    def _name(self) -> str:
        return f"cluster {self.name!r}"


@dataclass(frozen=True)
class _Known:
    """What was learned and does not change while the cluster's version and session stay; replaced as a whole."""

    version: tuple[int, ...] = ()
    epoch: Epoch | None = None


def parse_version(text: str) -> tuple[int, ...]:
    """`2.60.0rc1` -> (2, 60, 0); development builds (`3.0.0.dev0`) count as the newest there is."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _request_body(submission: RaySubmission) -> dict[str, object]:
    """Only what was asked for: older Ray refuses fields that it does not know."""
    body: dict[str, object] = {
        "submission_id": submission.submission_id,
        "entrypoint": submission.entrypoint,
        "runtime_env": dict(submission.runtime_env),
        "metadata": dict(submission.metadata),
    }
    if submission.entrypoint_num_cpus:
        body["entrypoint_num_cpus"] = submission.entrypoint_num_cpus
    if submission.entrypoint_num_gpus:
        body["entrypoint_num_gpus"] = submission.entrypoint_num_gpus
    if submission.entrypoint_memory:
        body["entrypoint_memory"] = submission.entrypoint_memory
    if submission.entrypoint_resources:
        body["entrypoint_resources"] = dict(submission.entrypoint_resources)
    if submission.entrypoint_label_selector:
        body["entrypoint_label_selector"] = dict(submission.entrypoint_label_selector)
    return body


def _ray_job(job: ray_answers.JobDetails) -> RayJob:
    message = job.message or ""
    for value in _confidential(job.runtime_env):  # a failed setup may quote the whole environment
        message = message.replace(value, "***")
    ended = job.start_time and job.end_time and job.end_time >= job.start_time
    return RayJob(
        submission_id=job.submission_id or "",
        status=job.status,
        message=message,
        error_type=job.error_type,
        driver_node_id=job.driver_node_id,
        driver_exit_code=job.driver_exit_code,
        lasted_us=1000 * (job.end_time - job.start_time) if ended and job.end_time and job.start_time else None,
    )


def _confidential(runtime_env: Any) -> tuple[str, ...]:
    """The user's values among a job's variables, longest first: any of them may be a secret, and none is repeated."""
    given = runtime_env.get("env_vars") if isinstance(runtime_env, dict) else None
    if not isinstance(given, dict):
        return ()
    values = {str(value) for name, value in given.items() if not name.startswith(OUR_VARIABLES)}
    return tuple(sorted((v for v in values if len(v) >= LEAST_SECRET), key=len, reverse=True))


def _check_id(submission_id: str) -> str:
    """Ray accepts ids with a slash and then cannot find them; ours never have one."""
    if not JOB_ID.fullmatch(submission_id):
        raise ClusterRefused(f"{submission_id!r} cannot be a submission id: only letters, digits, '-' and '_'")
    return submission_id
