"""Ray's own client against us: the real `JobSubmissionClient`, the real application, fake clusters."""

from __future__ import annotations

import asyncio
import tarfile
import threading

import pytest
import requests
from sqlalchemy import select
from websockets.sync.client import connect

from carbon_sched.store.tables import ray_packages
from tests.fakes.real_server import eventually
from tests.fakes.served import TOKEN, served

__all__ = ["served"]

pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # Ray's own call


def of_ray(module: str):
    """A module of Ray's, imported by the tests that use it: at import Ray sets variables for the whole process."""
    return pytest.importorskip(f"ray.{module}", reason="Ray is not installed")


def client_of(served, token: str = TOKEN):
    return of_ray("job_submission").JobSubmissionClient(served.url, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def ray(served):
    return client_of(served)


def job_of(served, submission_id: str):
    with served.world.store.transaction(write=False) as tx:
        return tx.job(tx.job_id_for_ray(submission_id))


def statuses(ray) -> dict[str, str]:
    return {job.submission_id: job.status.value for job in ray.list_jobs()}


def test_a_job_runs_from_submission_to_receipt(served, ray):
    submission_id = ray.submit_job(entrypoint="python job.py", metadata={"who": "ada"})
    assert ray.get_job_status(submission_id) == "PENDING"
    served.world.settle()
    served.world.run_to_end(job_of(served, submission_id))
    info = ray.get_job_info(submission_id)
    assert (info.status, info.type, info.entrypoint) == ("SUCCEEDED", "SUBMISSION", "python job.py")
    assert info.metadata == {"who": "ada"}
    assert info.driver_exit_code == 0
    assert info.end_time - info.start_time == 10_000
    assert served.client.receipt(submission_id)["co2e_ug"] == 55_000


@pytest.mark.parametrize(("exit_code", "status"), [(0, "SUCCEEDED"), (3, "FAILED")])
def test_how_a_job_ended(served, ray, exit_code, status):
    submission_id = ray.submit_job(entrypoint="python job.py")
    served.world.settle()
    served.world.run_to_end(job_of(served, submission_id), exit_code=exit_code)
    info = ray.get_job_info(submission_id)
    assert (info.status, info.driver_exit_code) == (status, exit_code)


def test_a_chosen_id_is_the_jobs_and_nobody_elses(served, ray):
    assert ray.submit_job(entrypoint="true", submission_id="train-7") == "train-7"
    with pytest.raises(RuntimeError, match=r"train-7 already exists\. Please use a different submission_id"):
        ray.submit_job(entrypoint="true", submission_id="train-7")
    assert statuses(ray) == {"train-7": "PENDING"}
    assert ray.submit_job(entrypoint="true", job_id="older-clients-call-it-so") == "older-clients-call-it-so"


@pytest.mark.parametrize("chosen", ["a/b", "a b", "ü", "x" * 201])
def test_an_id_that_no_url_could_name_is_refused(ray, chosen):
    with pytest.raises(RuntimeError, match="is not an id"):
        ray.submit_job(entrypoint="true", submission_id=chosen)
    assert ray.list_jobs() == []


def test_jobs_of_all_clients_are_in_one_queue(served, ray):
    ours = served.client.submit({"entrypoint": "true"}, idempotency_key="k")["job_id"]
    theirs = ray.submit_job(entrypoint="false")
    assert statuses(ray) == {ours: "PENDING", theirs: "PENDING"}
    assert {job["job_id"] for job in served.client.jobs()["jobs"]} == {ours, theirs}
    assert ray.stop_job(ours)
    assert served.client.stop(theirs)["state"] == "stopped"
    assert statuses(ray) == {ours: "STOPPED", theirs: "STOPPED"}


def test_an_ended_job_is_not_stopped_again(served, ray):
    submission_id = ray.submit_job(entrypoint="true")
    assert ray.stop_job(submission_id)
    assert not ray.stop_job(submission_id)


def test_deleting_takes_an_ended_job_off_rays_list_and_nowhere_else(served, ray):
    submission_id = ray.submit_job(entrypoint="true", submission_id="again")
    with pytest.raises(RuntimeError, match="in a non-terminal state"):
        ray.delete_job(submission_id)
    ray.stop_job(submission_id)
    assert ray.delete_job(submission_id)
    assert ray.list_jobs() == []
    for gone in (ray.get_job_info, ray.delete_job, ray.stop_job, ray.get_job_logs):
        with pytest.raises(RuntimeError, match="Job again does not exist"):
            gone(submission_id)
    assert [job["state"] for job in served.client.jobs()["jobs"]] == ["stopped"]
    assert ray.submit_job(entrypoint="true", submission_id="again") == "again"


def test_what_is_not_there(ray):
    for call in (ray.get_job_info, ray.get_job_status, ray.stop_job, ray.delete_job, ray.get_job_logs):
        with pytest.raises(RuntimeError, match="Job nobody does not exist"):
            call("nobody")


def test_the_version_is_enough_for_every_field_that_rays_client_sends(served, ray):
    submission_id = ray.submit_job(
        entrypoint="true",
        entrypoint_num_cpus=0.5,
        entrypoint_num_gpus=1,
        entrypoint_memory=1 << 20,
        entrypoint_resources={"disk": 1},
        entrypoint_label_selector={"ray.io/node": "a"},
    )
    resources = job_of(served, submission_id).spec.resources
    assert (resources.entrypoint_cpus, resources.entrypoint_gpus, resources.entrypoint_memory) == (0.5, 1, 1 << 20)
    assert resources.entrypoint_resources == {"disk": 1}
    assert resources.entrypoint_label_selector == {"ray.io/node": "a"}


# what travels ------------------------------------------------------------------------------------


def test_a_folder_and_modules_travel_through_our_store_to_the_cluster(served, ray, tmp_path):
    folder, module = tmp_path / "work", tmp_path / "mine"
    for made in (folder, module):
        made.mkdir()
        (made / "__init__.py").write_text(f"name = {made.name!r}\n")
    environment = {"working_dir": str(folder), "py_modules": [str(module)], "env_vars": {"KEY": "value"}}
    submission_id = ray.submit_job(entrypoint="python -c 'import mine'", runtime_env=environment)
    ray.submit_job(entrypoint="python -c 'import mine'", runtime_env=dict(environment))  # nothing to upload any more
    served.world.settle()
    job = job_of(served, submission_id)
    assert "env_vars" not in job.spec.runtime_env
    cluster = served.world.clusters["clean"]
    (sent,) = (one.runtime_env for one in cluster.submissions if one.submission_id == f"cs-{job.job_id}-a1")
    assert sent["env_vars"]["KEY"] == "value"
    (_, theirs) = sent["py_modules"]
    for uri in (sent["working_dir"], theirs):
        assert uri.removeprefix("gcs://") in cluster.packages


def test_a_package_is_only_its_uploaders(served, ray, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "job.py").write_text("print()")
    ray.submit_job(entrypoint="true", runtime_env={"working_dir": str(tmp_path / "w")})
    with served.world.store.transaction(write=False) as tx:
        (name,) = (row.name for row in tx._db.rows(select(ray_packages)))
    bob = {"Authorization": f"Bearer {served.token('submitter', ['nlp'], name='bob')}"}
    path = f"{served.url}/api/packages/gcs/{name}"
    assert requests.get(path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5).status_code == 200
    assert requests.get(path, headers=bob, timeout=5).status_code == 404
    body = {"entrypoint": "true", "runtime_env": {"working_dir": f"gcs://{name}"}}
    answer = requests.post(f"{served.url}/api/jobs/", json=body, headers=bob, timeout=5)
    assert (answer.status_code, "was not uploaded here" in answer.text) == (400, True)


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [("x.zip", b"no zip", 400), ("..%2Fx.zip", b"", 404), ("x%00.zip", b"", 400), ("x.zip", b"\0" * 105_000_000, 413)],
)
def test_a_package_that_cannot_be_used_is_refused(served, name, body, status):
    url, headers = f"{served.url}/api/packages/gcs/{name}", {"Authorization": f"Bearer {TOKEN}"}
    assert requests.put(url, data=body, headers=headers, timeout=20).status_code == status


def test_a_packed_working_dir_that_is_no_zip_is_refused_before_anything_is_queued(served, ray, tmp_path):
    packed = tmp_path / "work.tar.gz"
    (tmp_path / "job.py").write_text("print()")
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(tmp_path / "job.py", "job.py")
    with pytest.raises((RuntimeError, ValueError), match=r"zip"):
        ray.submit_job(entrypoint="python job.py", runtime_env={"working_dir": str(packed)})
    assert ray.list_jobs() == []


def test_hints_are_the_options_of_submit(served, ray):
    hints = {
        "carbon-sched.phase": "finetuning",
        "carbon-sched.max_delay": "6h",
        "carbon-sched.duration": "30m",
        "carbon-sched.team": "nlp",
        "carbon-sched.cluster": "clean",
        "carbon-sched.interruptible": "true",
        "carbon-sched.gpus": "2",
        "job_name": "nightly",
    }
    spec = job_of(served, ray.submit_job(entrypoint="true", metadata=hints)).spec
    assert (spec.phase.value, spec.team, spec.name, spec.clusters) == ("finetuning", "nlp", "nightly", ("clean",))
    assert (spec.flexibility.max_delay_s, spec.flexibility.interruptible) == (21_600, True)
    assert (spec.estimate.duration_s, spec.resources.gpus) == (1800, 2)
    assert spec.metadata == hints


def test_a_job_waits_only_for_jobs_that_its_submitter_sees(served, ray):
    theirs = ray.submit_job(entrypoint="true", metadata={"carbon-sched.team": "vision"})
    nlp = client_of(served, served.token("submitter", ["nlp"]))
    mine = nlp.submit_job(entrypoint="true")
    later = nlp.submit_job(
        entrypoint="true", metadata={"carbon-sched.after": f"{mine}:ok", "carbon-sched.now": "false"}
    )
    assert set(statuses(nlp)) == {mine, later}
    with pytest.raises(RuntimeError, match="404"):
        nlp.submit_job(entrypoint="true", metadata={"carbon-sched.after": f"{mine}, {theirs}"})


@pytest.mark.parametrize(("hint", "value"), [("max-delay", "soon"), ("colour", "green"), ("interruptible", "maybe")])
def test_a_hint_that_cannot_be_meant_is_told_by_its_name(ray, hint, value):
    with pytest.raises(RuntimeError, match=f"400: carbon-sched.{hint}"):
        ray.submit_job(entrypoint="true", metadata={f"carbon-sched.{hint}": value})
    assert ray.list_jobs() == []


# logs --------------------------------------------------------------------------------------------


def write(served, submission_id: str, text: str) -> None:
    name = f"job-driver-cs-{job_of(served, submission_id).job_id}-a1.log"
    files = served.world.clusters["clean"].files
    files[name] = files.get(name, b"") + text.encode()


def test_logs_are_read_and_tailed_to_the_end(served, ray):
    submission_id = ray.submit_job(entrypoint="python job.py")
    assert ray.get_job_logs(submission_id) == ""
    pieces: list[str] = []
    first = threading.Event()

    async def tail() -> None:
        async for piece in ray.tail_job_logs(submission_id):
            pieces.append(piece)
            first.set()

    tailing = threading.Thread(target=lambda: asyncio.run(tail()))
    tailing.start()
    served.world.settle()
    write(served, submission_id, "one\n")
    assert first.wait(20)
    write(served, submission_id, "zwei ☕\n")
    served.world.run_to_end(job_of(served, submission_id))
    tailing.join(20)
    assert not tailing.is_alive()
    assert "".join(pieces) == "one\nzwei ☕\n" == ray.get_job_logs(submission_id)


def test_a_tail_of_a_waiting_job_ends_with_its_client(served, ray):
    submission_id = ray.submit_job(entrypoint="true")
    address = f"{served.url.replace('http', 'ws')}/api/jobs/{submission_id}/logs/tail"
    with connect(address, additional_headers={"Authorization": f"Bearer {TOKEN}"}, proxy=None):
        assert served.server.server_state.tasks
    eventually(lambda: served.server.server_state.tasks, good=lambda tasks: not tasks)


def test_a_tail_of_what_is_not_there_or_not_ones_own_is_refused(served, ray):
    theirs = ray.submit_job(entrypoint="true", metadata={"carbon-sched.team": "vision"})

    async def tail(client, submission_id):
        return [piece async for piece in client.tail_job_logs(submission_id)]

    for client, asked in ((ray, "nobody"), (client_of(served, served.token("viewer", ["nlp"])), theirs)):
        with pytest.raises(Exception, match="404"):
            asyncio.run(tail(client, asked))


# access ------------------------------------------------------------------------------------------


def test_rays_client_hears_why_it_is_not_let_in(served):
    with pytest.raises(of_ray("exceptions").AuthenticationError, match="missing, wrong, expired or revoked"):
        client_of(served, "wrong")


def test_teams_hold_under_rays_protocol_too(served, ray):
    theirs = ray.submit_job(entrypoint="true", metadata={"carbon-sched.team": "vision"})
    nlp = client_of(served, served.token("submitter", ["nlp"]))
    mine = nlp.submit_job(entrypoint="true")
    assert set(statuses(nlp)) == {mine}
    assert job_of(served, mine).spec.team == "nlp"
    for call in (nlp.get_job_info, nlp.stop_job, nlp.delete_job, nlp.get_job_logs):
        with pytest.raises(RuntimeError, match="does not exist"):
            call(theirs)
    with pytest.raises(of_ray("exceptions").AuthenticationError, match="is not one of"):
        nlp.submit_job(entrypoint="true", metadata={"carbon-sched.team": "vision"})
