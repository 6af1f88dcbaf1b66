"""`carbon-sched experiment`: run the variants of a file one after another as metered jobs, then compare them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.output import json_option, print_json, say, warn
from carbon_sched.domain.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched.cli.connection import Connection
    from carbon_sched.cli.experiment_file import ExperimentForm, Run
    from carbon_sched.cli.job_source import JobSource
    from carbon_sched.cli.parcel import Parcel
    from carbon_sched.wire import JobRequest, JobView, Receipt

ID = re.compile(r"[0-9a-f]{8}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--repeats", type=click.IntRange(1, 100), help="In place of the file's.")
@click.option("--seed", type=click.IntRange(0), help="Of the order of runs, in place of the file's.")
@click.option("--resume", metavar="ID", help="Go on with an experiment that was interrupted.")
@json_option
def experiment(file: Path, repeats: int | None, seed: int | None, resume: str | None, as_json: bool) -> int:
    """Run variants of a job by turns, and compare them.

    Each variant runs several times, one run at a time, in an order by lot with a rest between runs. Every run is a
    metered job; energy, time and quality are compared as `compare` does, with 95 % intervals. What fails is named.

    \b
    Example:
      carbon-sched experiment examples/techniques/inference.yaml
    """
    from carbon_sched.cli.experiment_file import read_experiment

    form = read_experiment(file)
    changed = {key: value for key, value in (("repeats", repeats), ("seed", seed)) if value is not None}
    trial = _trial(form.model_copy(update=changed), file, resume)
    report = trial.run()
    if as_json:
        print_json(report)
    else:
        from carbon_sched.cli import render, render_experiment

        render.show(render_experiment.experiment(report))
    return int(next((run["exit_code"] for run in report["runs"] if run["exit_code"]), 0))


def _trial(form: ExperimentForm, file: Path, resume: str | None) -> _Trial:
    if resume is not None and not ID.fullmatch(resume):
        raise InvalidInput("--resume", resume, "is not the id of an experiment", "Give the 8 letters that it told")
    identity = resume or os.urandom(4).hex()
    folder = (file.parent / form.folder).absolute() if form.folder else _own_folder(identity)
    return _Trial(form, file.parent, identity, folder, begun=resume is not None)


def _own_folder(identity: str) -> Path:
    return Path(tempfile.gettempdir(), f"carbon-sched-experiment-{identity}")


@dataclass
class _Trial:
    """An experiment under way: jobs by run, and where they ran; `begun` once a run may be stored by a server."""

    form: ExperimentForm
    base: Path
    identity: str
    folder: Path
    cluster: str | None = None
    begun: bool = False
    told: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """Everything in its order; the report."""
        from carbon_sched.cli.connection import connect
        from carbon_sched.cli.experiment_file import runs_of
        from carbon_sched.cli.parcel import packed

        runs = list(runs_of(self.form, str(self.folder)))
        say(f"experiment {self.identity}: {len(runs)} runs, one at a time, in an order from seed {self.form.seed}")
        with self._shared_folder(), packed(self._source(runs[0])) as parcel:
            connection = connect()
            for run in runs:
                self._one(connection, parcel, run, len(runs))
            return self._report(connection)

    @contextmanager
    def _shared_folder(self) -> Iterator[None]:
        """There while runs need it; kept for --resume where the experiment begins and does not come to its end."""
        own = self.form.folder is None and self.form.shares_folder
        if own:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        try:
            yield
        except BaseException:
            if self.begun:
                say(f"what ran is kept; go on with: --resume {self.identity}")
                own = False
            raise
        finally:
            if own:
                shutil.rmtree(self.folder)

    def _source(self, run: Run) -> JobSource:
        from carbon_sched.cli import job_source, runtime_env
        from carbon_sched.options.given import Given

        options = {"working-dir": ".", **self.form.job}
        options["working-dir"] = str(self.base / str(options["working-dir"]))
        environment = runtime_env.from_option("job.runtime-env", options.pop("runtime-env", {}), self.base)
        metadata = {"experiment": self.identity, "run": str(run.number), "seed": str(self.form.seed)}
        if self.cluster is not None:
            options["cluster"] = [self.cluster]
        flags = {key: Given(value, f"job.{key}") for key, value in options.items()}
        flags |= {"name": Given(f"{self.form.name}.{run.name}", "name"), "metadata": Given(metadata, "metadata")}
        words = [str(self.base / self.form.script), *run.args]
        return job_source.read_job(words, is_command=False, flags=flags, environment=environment, file=None)

    def _one(self, connection: Connection, parcel: Parcel, run: Run, runs: int) -> None:
        """Submit a run, unless it was before, and see it through to its receipt; then rest."""
        from carbon_sched.cli.follow import Follower, exit_code_of

        follower = Follower(connection, self._submitted(connection, parcel, run))
        follower.outcome()
        job = follower.job
        if self.cluster is None and job["cluster"]:
            self.cluster = job["cluster"]  # the others follow it: unlike machines would be compared otherwise
        told = _told(run, job, follower.receipt() if job["attempts"] else None, exit_code_of(job)[0])
        self.told.append(told)
        say(f"{run.number}/{runs} {run.name}: {job['state']}, {told['energy_j']:.1f} J, job {job['job_id']}")
        if run.repeat == 0 and not told["good"]:
            raise Conflict(
                f"step {run.name} did not end well (job {job['job_id']}), and the variants need what it makes"
            )
        if run.number < runs:
            time.sleep(self.form.cool_down)

    def _submitted(self, connection: Connection, parcel: Parcel, run: Run) -> JobView:
        from carbon_sched.cli.parcel import name_files, submit
        from carbon_sched.cli.submit import request_of

        request: JobRequest = request_of(self._source(run)).request
        name_files(request, parcel)
        key = f"experiment-{self.identity}-{run.number}"
        self.begun = True
        return connection.ask(lambda client: submit(client, request, parcel, key))

    def _report(self, connection: Connection) -> dict[str, Any]:
        """What every run was, and the comparison of the variants of which at least one run is good."""
        good = {variant.name: self._good(variant.name) for variant in self.form.variants}
        first = self.form.variants[0].name
        if not good[first] or sum(map(bool, good.values())) < 2:
            failed = ", ".join(sorted({run["name"] for run in self.told if not run["good"]}))
            raise Conflict(
                f"experiment {self.identity}: nothing can be compared, since runs of {failed} did not end well; "
                "`carbon-sched logs JOB` shows what they wrote"
            )
        sides = [f"{name}={','.join(jobs)}" for name, jobs in good.items() if jobs]
        whole = all(len(jobs) == self.form.repeats for jobs in good.values())
        asked = {"side": sides, "per": self.form.per, "paired": whole}  # each repeat is a block of all variants
        return {
            "experiment": self.identity,
            "name": self.form.name,
            "seed": self.form.seed,
            "repeats": self.form.repeats,
            "cool_down_s": self.form.cool_down,
            "cluster": self.cluster,
            "runs": self.told,
            "variants": [variant.model_dump() for variant in self.form.variants],
            "comparison": connection.ask(lambda client: client.footprint("/v1/compare", asked)),
        }

    def _good(self, name: str) -> list[str]:
        return [run["job_id"] for run in self.told if run["name"] == name and run["good"]]


def _told(run: Run, job: JobView, receipt: Receipt | None, exit_code: int) -> dict[str, Any]:
    """A run as the report has it. It is good when it succeeded and its energy is settled."""
    settled = receipt is not None and receipt["final"]
    if job["state"] == "succeeded" and not settled:
        warn(f"the energy of job {job['job_id']} did not come in time: it is in no figure")
    by_source = receipt["energy_by_source_j"] if receipt else {}
    return {
        "number": run.number, "name": run.name, "repeat": run.repeat, "job_id": job["job_id"], "state": job["state"],
        "reason": job["reason"], "exit_code": exit_code, "good": job["state"] == "succeeded" and settled,
        "energy_j": sum(by_source.values()), "estimated_j": by_source.get("estimated", 0.0),
    }  # fmt: skip
