"""The jobs of the fake Ray head: what Ray tells about them, and how their entrypoints run as processes of the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

TERMINAL = frozenset({"STOPPED", "SUCCEEDED", "FAILED"})


@dataclass
class FakeJob:
    """One submitted job, as `/api/jobs/` tells it and with what Ray would know beside."""

    submission_id: str
    request: dict[str, Any]
    node_id: str
    start_time: int
    status: str = "PENDING"
    message: str = "Job has not started yet."
    error_type: str | None = None
    exit_code: int | None = None
    end_time: int | None = None
    stop_asked: bool = False
    process: subprocess.Popen[bytes] | None = None
    supervised: bool = True
    job_id: str | None = None  # once its driver is connected

    def details(self) -> dict[str, Any]:
        started = self.status != "PENDING"
        return {
            "type": "SUBMISSION",
            "job_id": self.job_id,
            "submission_id": self.submission_id,
            "driver_info": None,
            "status": self.status,
            "entrypoint": self.request["entrypoint"],
            "message": self.message,
            "error_type": self.error_type,
            "start_time": self.start_time,  # of the POST
            "end_time": self.end_time,
            "metadata": self.request.get("metadata"),
            "runtime_env": self.request.get("runtime_env"),
            "driver_agent_http_address": None,
            "driver_node_id": self.node_id if started else None,
            "driver_exit_code": None if self.status == "STOPPED" else self.exit_code,
        }

    @property
    def wants(self) -> dict[str, float]:
        asked = {
            "CPU": self.request.get("entrypoint_num_cpus") or 0,
            "GPU": self.request.get("entrypoint_num_gpus") or 0,
            "memory": self.request.get("entrypoint_memory") or 0,
            **(self.request.get("entrypoint_resources") or {}),
        }
        return {name: float(amount) for name, amount in asked.items() if amount}


class FakeJobs:
    """The part of a fake head that holds and runs jobs."""

    release: tuple[int, ...]
    cpus: float
    gpus: float
    resources: dict[str, float]
    packages: dict[str, bytes]
    jobs: dict[str, FakeJob]
    lock: threading.RLock
    folder: Path
    logs: Path

    def begin(self, submission_id: str) -> None:
        """Without execution: the job starts now."""
        job = self.jobs[submission_id]
        job.status, job.message = "RUNNING", "Job is currently running."

    def finish(self, submission_id: str, status: str = "SUCCEEDED", exit_code: int | None = 0, **more: Any) -> None:
        """The job ends now, as Ray tells it."""
        with self.lock:
            job = self.jobs[submission_id]
            job.status, job.exit_code, job.end_time = status, exit_code, int(time.time() * 1000)
            job.message = more.get("message", "Job finished successfully." if status == "SUCCEEDED" else status)
            job.error_type = more.get("error_type")

    def total(self) -> dict[str, float]:
        named = {
            "CPU": self.cpus,
            "GPU": self.gpus,
            "memory": 16.0 * 2**30,
            "object_store_memory": 1e8,
            **self.resources,
        }
        return {**{name: amount for name, amount in named.items() if amount}, "node:127.0.0.1": 1.0}

    def used(self) -> dict[str, float]:
        used = dict.fromkeys(self.total(), 0.0)
        for job in self.jobs.values():
            if job.status == "RUNNING":
                for name, amount in job.wants.items():
                    used[name] = used.get(name, 0.0) + amount
        return used

    def fits(self, job: FakeJob) -> bool:
        total, used = self.total(), self.used()
        return all(used.get(name, 0.0) + amount <= total.get(name, 0.0) for name, amount in job.wants.items())

    # jobs ----------------------------------------------------------------------------------------

    def start_what_fits(self) -> None:
        with self.lock:
            for job in self.jobs.values():
                if job.status == "PENDING" and self.fits(job):
                    self.start(job)

    def start(self, job: FakeJob) -> None:
        environment = job.request.get("runtime_env") or {}
        try:
            path, cwd = self.unpack(environment)
        except KeyError as missing:
            message = f"runtime_env setup failed: package {missing} not found"
            kind = "RUNTIME_ENV_SETUP_FAILURE" if self.release >= (2, 54) else None
            self.finish(job.submission_id, "FAILED", None, message=message, error_type=kind)
            return
        log = (self.logs / f"job-driver-{job.submission_id}.log").open("ab")
        extra = {
            **environment.get("env_vars", {}),
            "PYTHONPATH": os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")]),
            "RAY_ADDRESS": "127.0.0.1:1",
            "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(
                {
                    "runtime_env": environment,
                    "metadata": {"job_submission_id": job.submission_id, **(job.request.get("metadata") or {})},
                }
            ),
        }
        job.process = subprocess.Popen(
            job.request["entrypoint"], shell=True, cwd=cwd, env={**os.environ, **extra}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        if self.release > (2, 9):  # from another process than the entrypoint: before, among or after its lines
            log.write(f"Running entrypoint for job {job.submission_id}: {job.request['entrypoint']}\n".encode())
        log.close()
        self.begin(job.submission_id)
        threading.Thread(target=self.supervise, args=(job,), daemon=True).start()
        if job.stop_asked:  # of a stop while PENDING Ray remembers only this: it starts, and is stopped then
            self.stop_running(job)

    def supervise(self, job: FakeJob) -> None:
        code = job.process.wait()
        with self.lock:
            if job.supervised and job.status == "RUNNING":
                if job.stop_asked:
                    self.finish(job.submission_id, "STOPPED", code, message="Job was intentionally stopped.")
                elif code == 0:
                    self.finish(job.submission_id)
                else:
                    message = f"Job entrypoint command failed with exit code {code}"
                    self.finish(job.submission_id, "FAILED", code, message=message,
                                error_type="JOB_ENTRYPOINT_COMMAND_ERROR")  # fmt: skip
        self.start_what_fits()

    def stop_running(self, job: FakeJob) -> None:
        job.stop_asked = True
        if job.process is None:
            return
        wait_s = float((job.request.get("runtime_env") or {}).get("env_vars", {}).get("RAY_JOB_STOP_WAIT_TIME_S", 3))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGTERM)
        killer = threading.Timer(wait_s, self.kill, (job,))
        killer.daemon = True
        killer.start()

    def kill(self, job: FakeJob) -> None:
        if job.process is not None and job.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.process.pid, signal.SIGKILL)

    def kill_jobs(self) -> None:
        for job in self.jobs.values():
            job.supervised = False
            self.kill(job)
            if job.process is not None:
                job.process.wait()

    def wake(self) -> None:
        """Only a POST or /logs makes Ray look after jobs that a dead head left behind."""
        with self.lock:
            for job in self.jobs.values():
                if not job.supervised and job.status not in TERMINAL:
                    self.finish(job.submission_id, "FAILED", None, message="failed to get job supervisor",
                                error_type="JOB_SUPERVISOR_ACTOR_DIED")  # fmt: skip

    def unpack(self, environment: dict[str, Any]) -> tuple[list[Path], Path]:
        resources = self.logs.parent / "runtime_resources"
        modules = [self.unpacked(uri, resources / "py_modules_files") for uri in environment.get("py_modules", [])]
        if not environment.get("working_dir"):
            return modules, self.folder
        folder = self.unpacked(environment["working_dir"], resources / "working_dir_files")
        return [*modules, folder], folder

    def unpacked(self, uri: str, into: Path) -> Path:
        name = uri.removeprefix("gcs://")
        folder = into / name.removesuffix(".zip")
        if not folder.exists():
            content = self.packages[name]
            draft = into / f".{name}"
            into.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
            with zipfile.ZipFile(draft) as archive:
                archive.extractall(folder)
        return folder
