from datetime import timedelta

import pytest

from carbon_sched.domain.decision import Verdict
from carbon_sched.domain.errors import ClusterRefused, ClusterUnclear, ClusterUnreachable, Conflict, InvalidInput
from carbon_sched.domain.job import JobState
from tests.fakes.world import START, World, a_cluster

CLEAN_AND_DIRTY = {"SE-SE3": [(0, 50.0)], "DE": [(0, 400.0)]}


@pytest.fixture
def world(tmp_path):
    clusters = [a_cluster("dirty", "DE", 1.2, home=True), a_cluster("clean", "SE-SE3", 1.1)]
    world = World(tmp_path, clusters, CLEAN_AND_DIRTY)
    yield world
    world.close()


def test_a_job_goes_to_the_cleaner_cluster_and_its_receipt_adds_up(world):
    job = world.submit(bundle_sha256=world.a_bundle(), name="train")
    world.settle()
    assert world.job(job).state is JobState.STARTING
    submission = world.clusters["clean"].submissions[0]
    assert submission.submission_id == f"cs-{job.job_id}-a1"
    assert submission.entrypoint == "exec python -m carbon_sched_runtime.run -- 'python job.py'"
    assert submission.runtime_env["working_dir"].startswith("gcs://_ray_pkg_")
    assert submission.runtime_env["py_modules"] == ["gcs://runtime.zip"]

    world.run_to_end(job, seconds=10, energy_uj=3_600_000_000)  # 1 Wh
    assert world.job(job).state is JobState.SUCCEEDED
    receipt = world.statements.receipt(job.job_id)
    assert receipt["final"]
    assert receipt["co2e_ug"] == 55_000  # 0.001 kWh x 1.1 x 50 g/kWh
    by_name = {reference["name"]: reference for reference in receipt["references"]}
    assert by_name["run-now-home"]["co2e_g"] == pytest.approx(0.001 * 1.2 * 400)
    assert by_name["run-now-home"]["saved_g"] == pytest.approx(0.48 - 0.055)
    assert by_name["best-fixed"]["saved_g"] == pytest.approx(0)
    assert world.statements.verify().ok


def test_the_same_request_twice_is_one_job_and_another_body_a_conflict(world):
    first = world.submit(key="k", name="a")
    assert world.submit(key="k", name="a").job_id == first.job_id
    with pytest.raises(Conflict):
        world.submit(key="k", name="b")


def test_a_job_without_flexibility_is_never_delayed_and_one_with_it_waits_for_the_clean_hour(tmp_path):
    world = World(tmp_path, [a_cluster("only", "DE")], {"DE": [(0, 400.0), (600, 50.0)]})
    rigid = world.submit(duration_s=60)
    patient = world.submit(duration_s=60, max_delay_s=3600)
    world.settle()
    assert world.job(rigid).state is JobState.STARTING
    waiting = world.job(patient)
    assert waiting.state is JobState.QUEUED
    assert waiting.not_before == START + timedelta(seconds=600)
    world.clock.pass_s(601)
    world.settle()
    assert world.job(patient).state is JobState.STARTING
    world.close()


def test_a_cluster_that_is_down_is_passed_over(world):
    world.clusters["clean"].up = False
    job = world.submit()
    world.settle()
    assert world.attempts(job)[-1].cluster == "dirty"
    with world.store.transaction(write=False) as tx:
        candidates = {c.cluster: c for c in tx.decision(job.job_id).candidates}
    assert not candidates["clean"].feasible
    assert "connection refused" in candidates["clean"].reason


def test_with_every_cluster_down_a_job_is_held_and_starts_when_one_returns(world):
    for cluster in world.clusters.values():
        cluster.up = False
    job = world.submit()
    world.settle()
    assert world.job(job).state is JobState.QUEUED
    with world.store.transaction(write=False) as tx:
        assert tx.decision(job.job_id).verdict is Verdict.HOLD
    world.clusters["dirty"].up = True
    world.settle()
    assert world.attempts(job)[-1].cluster == "dirty"


def test_a_full_cluster_sends_the_job_to_the_other(world):
    world.clusters["clean"].used = {"CPU": 4.0}
    job = world.submit(resources={"entrypoint_num_cpus": 2})
    world.settle()
    assert world.attempts(job)[-1].cluster == "dirty"


def test_what_no_cluster_can_ever_offer_is_refused_with_a_reason(world):
    job = world.submit(resources={"gpus": 64})
    world.settle()
    refused = world.job(job)
    assert refused.state is JobState.REFUSED
    assert "GPU" in refused.reason


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("phase", {"phase": "thinking"}),
        ("cluster", {"clusters": ["nowhere"]}),
        ("policy", {"policy": "nonsense"}),
        ("duration", {"duration_s": float("nan")}),
        ("duration", {"duration_s": -1}),
        ("deadline", {"deadline": "2020-01-01T00:00:00Z"}),
        ("deadline", {"deadline": "tomorrow"}),
        ("bundle_sha256", {"bundle_sha256": "0" * 64}),
        ("entrypoint", {"entrypoint": "  "}),
        ("gpus_per_worker", {"resources": {"gpus_per_worker": 1}}),
        ("runtime_env.working_dir", {"runtime_env": {"working_dir": "/home/me"}}),
        ("runtime_env.env_vars", {"runtime_env": {"env_vars": {"CARBON_SCHED_JOB": "x"}}}),
    ],
)
def test_bad_input_names_its_field_and_stores_nothing(world, field, request_):
    with pytest.raises(InvalidInput) as caught:
        world.submit(**request_)
    assert caught.value.field == field
    assert caught.value.remedy
    with world.store.transaction(write=False) as tx:
        assert tx.live_jobs() == []


# unclear answers -------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_asked_about_and_the_job_adopted_not_run_twice(world):
    world.clusters["clean"].failures_after["submit"] = [ClusterUnclear("answer lost")]
    job = world.submit()
    world.settle()
    assert world.job(job).state is JobState.DISPATCHING
    world.clock.pass_s(5)
    world.settle()
    assert world.job(job).state is JobState.STARTING
    assert len(world.clusters["clean"].submissions) == 1


def test_a_request_that_never_arrived_is_posted_again_under_the_same_id(world):
    world.clusters["clean"].failures["submit"] = [ClusterUnclear("timeout")]
    job = world.submit()
    world.settle()
    world.clock.pass_s(5)
    world.settle()
    assert [s.submission_id for s in world.clusters["clean"].submissions] == [f"cs-{job.job_id}-a1"]


def test_silence_after_a_post_is_lost_not_repeated_elsewhere(world):
    clean = world.clusters["clean"]
    clean.failures_after["submit"] = [ClusterUnclear("answer lost")]
    job = world.submit()
    world.settle()
    clean.up = False
    for _ in range(20):
        world.clock.pass_s(60)
        world.settle()
    assert world.job(job).state is JobState.LOST
    assert world.clusters["dirty"].submissions == []


def test_unreachable_before_the_post_goes_elsewhere_as_a_new_attempt(world):
    world.clusters["clean"].failures["ensure_package"] = [ClusterUnreachable("refused")]
    job = world.submit()
    world.settle(poll=False)
    attempts = world.attempts(job)
    assert [(a.cluster, a.outcome) for a in attempts] == [("clean", "withdrawn"), ("dirty", "")]
    assert world.job(job).state is JobState.STARTING


def test_a_refused_submission_fails_with_the_cluster_s_own_words(world):
    world.clusters["clean"].failures["submit"] = [ClusterRefused("the package is larger than 100 MiB")]
    job = world.submit()
    world.settle()
    failed = world.job(job)
    assert failed.state is JobState.FAILED
    assert "100 MiB" in failed.reason


# fences, losses, stops -------------------------------------------------------------------------------------------


def test_a_job_pending_past_its_fence_is_tried_again_as_a_new_attempt(world):
    job = world.submit()
    world.settle()
    world.clock.pass_s(300 + 31)
    world.clusters["clean"].up = True
    world.settle()
    attempts = world.attempts(job)
    assert [a.outcome for a in attempts] == ["expired", ""]
    assert attempts[1].attempt_id == f"cs-{job.job_id}-a2"
    assert world.clusters["clean"].stops == [attempts[0].attempt_id]


def test_a_pending_job_is_left_alone_before_its_fence(world):
    job = world.submit()
    world.settle()
    world.clock.pass_s(299)
    world.settle()
    assert len(world.attempts(job)) == 1


def test_a_head_that_forgot_its_jobs_leaves_them_lost_with_what_is_missing(world):
    job = world.submit()
    world.settle()
    world.clusters["clean"].run(world.attempts(job)[0].attempt_id)
    world.settle()
    world.clusters["clean"].restart("session-2")
    world.settle()
    lost = world.job(job)
    assert lost.state is JobState.LOST
    assert "restarted" in lost.reason
    world.clock.pass_s(700)
    world.settle()
    assert world.statements.receipt(job.job_id)["missing"]


def test_a_failing_job_keeps_its_exit_code_and_its_energy(world):
    job = world.submit()
    world.settle()
    world.run_to_end(job, exit_code=3)
    failed = world.job(job)
    assert (failed.state, failed.exit_code) == (JobState.FAILED, 3)
    assert world.statements.receipt(job.job_id)["energy_kwh"] > 0


def test_a_waiting_job_stops_at_once_and_a_running_one_on_its_cluster(world):
    waiting = world.submit(earliest="2026-03-02T00:00:00Z")
    world.settle()
    assert world.accept.stop(waiting.job_id).state is JobState.STOPPED
    running = world.submit()
    world.settle()
    attempt = world.attempts(running)[0]
    world.clusters["clean"].run(attempt.attempt_id)
    world.settle()
    assert world.accept.stop(running.job_id).state is JobState.STOPPING
    world.settle()
    assert world.clusters["clean"].stops == [attempt.attempt_id]
    world.clusters["clean"].end(attempt.attempt_id, "STOPPED", None)
    world.settle()
    assert world.job(running).state is JobState.STOPPED


def test_a_stop_before_the_post_submits_nothing(world):
    job = world.submit()
    world.decide.step()
    assert world.job(job).state is JobState.DISPATCHING
    world.accept.stop(job.job_id)
    world.clock.pass_s(5)
    world.settle()
    assert world.job(job).state is JobState.STOPPED
    assert world.clusters["clean"].submissions == []


def test_a_killed_wrapper_is_named_as_missing_evidence(world):
    job = world.submit()
    world.settle()
    attempt = world.attempts(job)[0]
    world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
    world.clusters["clean"].run(attempt.attempt_id)
    world.settle()
    start = world.clock.now()
    world.clock.pass_s(30)
    world.segment(attempt, start, world.clock.now(), {attempt.attempt_id: 5_000_000})
    world.clusters["clean"].end(attempt.attempt_id, "FAILED", -9)
    world.settle()
    world.clock.pass_s(61)
    world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert world.job(job).state is JobState.FAILED
    assert receipt["energy_kwh"] == pytest.approx(5 / 3.6e6)
    assert any("record" in text or "journal" in text for text in receipt["missing"])


# secrets ---------------------------------------------------------------------------------------------------------


def test_environment_and_secrets_reach_the_job_and_are_readable_nowhere_else(world, tmp_path, monkeypatch):
    (tmp_path / "password").write_text("canary-from-file\n", encoding="utf-8")
    monkeypatch.setenv("SOME_TOKEN", "canary-from-env")
    env_vars = {"PLAIN": "canary-plain"}
    secrets = {"A": f"file:{tmp_path / 'password'}", "B": "env:SOME_TOKEN"}
    job = world.submit(runtime_env={"env_vars": env_vars}, secrets=secrets)
    world.settle()
    env = world.clusters["clean"].submissions[0].runtime_env["env_vars"]
    assert (env["PLAIN"], env["A"], env["B"]) == ("canary-plain", "canary-from-file", "canary-from-env")
    world.run_to_end(job)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("w.sqlite*"))
    assert b"canary" not in stored
    assert "canary" not in str(world.job(job)) + str(world.statements.receipt(job.job_id))


def test_the_same_key_with_another_environment_is_a_conflict(world):
    world.submit(key="k", runtime_env={"env_vars": {"A": "1"}})
    with pytest.raises(Conflict):
        world.submit(key="k", runtime_env={"env_vars": {"A": "2"}})


def test_a_secret_that_cannot_be_read_fails_the_job_and_names_it(world, tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "a").write_text("x")
    job = world.submit(secrets={"A": f"file:{tmp_path}/secrets/a"})
    (tmp_path / "secrets" / "a").unlink()
    world.settle()
    failed = world.job(job)
    assert failed.state is JobState.FAILED
    assert "secret A" in failed.reason


@pytest.mark.parametrize("text", ["hunter2", "file:", "ftp:x", ""])
def test_a_secret_given_in_clear_is_refused_without_echoing_it(world, text):
    with pytest.raises(InvalidInput) as caught:
        world.submit(secrets={"A": text})
    assert "hunter2" not in str(caught.value)


def test_a_secret_that_is_not_there_is_refused_at_once_and_so_are_the_servers_own(world, tmp_path):
    for where, words in (
        ("file:/nowhere/at/all", "cannot be read"),
        ("env:NOBODY_SET_THIS", "is not set in the server's environment"),
        (f"file:{tmp_path}/server/vault.key", "lies in the server's data folder"),
        (f"file:{tmp_path}/x/../server/vault.key", "lies in the server's data folder"),
    ):
        with pytest.raises(InvalidInput, match=words):
            world.submit(secrets={"A": where})


def test_values_of_the_environment_are_not_told_when_they_are_wrong(world):
    with pytest.raises(InvalidInput, match="NUMBER") as caught:
        world.submit(runtime_env={"env_vars": {"PASSWORD": "hunter2", "NUMBER": 123456}})
    assert "hunter2" not in str(caught.value)
    assert "123456" not in str(caught.value)
