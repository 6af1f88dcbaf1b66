"""Online services: on the cleanest cluster within their limits, moved without a gap, put by one owner."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import ClusterUnclear, Conflict, InvalidInput, NotFound
from carbon_sched.domain.job import JobState
from carbon_sched.domain.serve_app import AppState
from carbon_sched.ports import ServedApp
from carbon_sched_runtime.request_counts import SERVE, Counts, ReplicaCounts, counts_name, format_counts
from tests.fakes.world import START, World, a_cluster

HOUR = 3600.0
CLUSTERS = [
    a_cluster("here", "DE", home=True, residency=("EU",), serve_address="https://here.example:8443"),
    a_cluster("there", "FR"),
]
GRID = {"DE": [(0, 100.0), (2 * HOUR, 900.0)], "FR": [(0, 300.0)]}
APP = {
    "name": "chat",
    "application": {"import_path": "chat:app", "route_prefix": "/chat", "runtime_env": {"env_vars": {"KEY": "secret"}}},
    "model": "chat-7b",
    "horizon_s": HOUR,
    "min_stay_s": 600.0,
    "max_age_s": 10.0,
    "drain_s": 60.0,
}


@pytest.fixture
def world(request, tmp_path):
    world = World(tmp_path, CLUSTERS, getattr(request, "param", GRID))
    yield world
    world.close()


def turn(world, times=1):
    """The loops, as they come by; what Serve is asked to make, it makes."""
    for _ in range(times):
        world.serving.step()
        world.settle()
        begin(world)
        for cluster in world.clusters.values():
            for app in list(cluster.apps):
                cluster.answer(app)


def begin(world):
    """The jobs that meter services start; those that are stopped end."""
    for cluster in world.clusters.values():
        for submission_id, job in list(cluster.known.items()):
            if job.status == "PENDING":
                attempt = _attempt(world, submission_id)
                world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
                cluster.run(submission_id)
            elif job.status == "RUNNING" and submission_id in cluster.stops:
                attempt = _attempt(world, submission_id)
                closed = {"event": "closed", "exit_code": 143, "segments": segments(world, attempt)}
                world.record(attempt, {"event": "ended", "exit_code": 143}, closed)
                cluster.end(submission_id, "STOPPED", 143)
    world.settle()


def segments(world, attempt):
    return sum(1 for name in world.clusters[attempt.cluster].files if name.endswith(".seg"))


def _attempt(world, attempt_id):
    with world.store.transaction(write=False) as tx:
        return tx.attempt(attempt_id)


def app(world):
    with world.store.transaction(write=False) as tx:
        return tx.app("chat")


def pass_to(world, seconds, step_s=300.0):
    while world.clock.now() < START + timedelta(seconds=seconds):
        world.clock.pass_s(step_s)
        turn(world)


def deployed(world, **changes):
    world.serving.deploy({**APP, **changes}, submitter="ada")
    turn(world, 3)
    world.clock.pass_s(3)
    turn(world)
    return app(world)


def test_a_service_is_made_on_the_cleanest_cluster_and_then_told_to_clients(world):
    world.serving.deploy(APP, submitter="ada")
    assert app(world).state is AppState.WAITING
    world.serving.step()
    coming = app(world)
    assert (coming.state, coming.coming.cluster, coming.current) == (AppState.DEPLOYING, "here", None)
    turn(world, 3)
    assert app(world).current is None  # Serve's proxies may not know the route yet
    world.clock.pass_s(3)
    turn(world)
    settled = app(world)
    assert settled.state is AppState.RUNNING
    assert settled.current.address == "https://here.example:8443/chat"
    assert world.clusters["there"].put == []


def test_the_replicas_carry_our_package_and_the_stamp_of_the_job_that_meters_them(world):
    settled = deployed(world)
    config = world.clusters["here"].apps["chat"].config
    with world.store.transaction(write=False) as tx:
        job, (attempt,) = tx.job(settled.current.job_id), tx.attempts(job_id=settled.current.job_id)
    variables = {
        "CARBON_SCHED_ATTEMPT": attempt.attempt_id,
        "CARBON_SCHED_INTENSITY": "100.000",
        "CARBON_SCHED_PUE": "1",
    }
    assert config["runtime_env"]["env_vars"] == {"KEY": "secret", **variables}
    ran = world.clusters["here"].submissions[-1].runtime_env["env_vars"]
    assert ran["CARBON_SCHED_SERVE_APP"] == "chat"
    assert config["runtime_env"]["py_modules"] == ["gcs://runtime.zip"]
    assert (config["name"], config["route_prefix"], config["import_path"]) == ("chat", "/chat", "chat:app")
    assert (job.spec.phase.value, job.spec.model, job.spec.clusters) == ("inference-online", "chat-7b", ("here",))
    assert job.state is JobState.RUNNING
    stored = json.dumps([vars(settled.spec) | {"request": dict(settled.spec.request)}], default=str)
    assert "secret" not in stored


def test_it_moves_make_before_break_when_another_cluster_becomes_cleaner_for_long_enough(world):
    deployed(world)
    pass_to(world, HOUR + 600)
    seen = []
    while not seen or seen[-1] is not AppState.RUNNING or app(world).current.cluster == "here":
        assert len(seen) < 100
        seen.append(app(world).state)
        moving = app(world)
        if moving.state is AppState.MOVING:
            assert moving.current.cluster == "here"
            assert "chat" in world.clusters["here"].apps  # it answers where it was
        if moving.state is AppState.DRAINING:
            assert (moving.current.cluster, moving.leaving[0].cluster) == ("there", "here")
            assert "chat" in world.clusters["here"].apps
        world.clock.pass_s(300 if moving.state is AppState.RUNNING else 20)
        turn(world)
    assert list(dict.fromkeys(seen)) == [AppState.RUNNING, AppState.MOVING, AppState.DRAINING]
    assert seen.count(AppState.DRAINING) * 20 >= 60
    assert world.clusters["here"].apps == {}
    assert list(world.clusters["there"].apps) == ["chat"]
    turn(world, 2)
    with world.store.transaction(write=False) as tx:
        states = [job.state for job in tx.live_jobs()]
    assert states == [JobState.RUNNING]


@pytest.mark.parametrize("world", [{"DE": [(0, 100.0), (2 * HOUR, 320.0)], "FR": [(0, 300.0)]}], indirect=True)
def test_a_gain_below_the_least_one_moves_nothing(world):
    deployed(world)
    pass_to(world, 3 * HOUR, 1800.0)
    assert (app(world).state, app(world).current.cluster, app(world).sites) == (AppState.RUNNING, "here", 1)


@pytest.mark.parametrize("world", [{"DE": [(0, 100.0), (60, 900.0)], "FR": [(0, 300.0)]}], indirect=True)
def test_it_stays_for_its_least_time_whatever_the_gain(world):
    deployed(world, horizon_s=60.0, min_gain=0.0, drain_s=11.0)
    pass_to(world, 500, 100.0)
    assert app(world).current.cluster == "here"
    pass_to(world, 900, 100.0)
    assert app(world).current.cluster == "there"


@pytest.mark.parametrize(
    ("limits", "where", "why"),
    [
        ({"max_latency_ms": 50, "latencies_ms": {"here": 80, "there": 20}}, "there", "here: 80 ms from the users"),
        ({"max_latency_ms": 50, "latencies_ms": {"there": 20}}, "there", "here: its latency to the users is not known"),
        ({"clusters": ["there"]}, "there", "here: not allowed"),
        ({"replicas": 9}, None, "never fits"),
        ({"max_latency_ms": 5, "latencies_ms": {"here": 80, "there": 20}}, None, "there: 20 ms from the users"),
    ],
)
def test_limits_of_latency_clusters_and_room_are_kept(world, limits, where, why):
    world.serving.deploy({**APP, **limits}, submitter="ada")
    found = world.serving.choice(app(world))
    told = "; ".join(f"{name}: {reason}" for name, reason in sorted(found.reasons.items()))
    assert why in told
    turn(world, 3)
    assert (app(world).coming.cluster if app(world).coming else None) == where
    if where is None:
        assert why in app(world).problem


def test_a_cluster_that_is_lost_is_left_at_once_and_cleaned_up_when_it_is_back(world):
    deployed(world)
    world.clusters["here"].up = False
    for _ in range(9):
        world.clock.pass_s(8)
        turn(world)
    moved = app(world)
    assert moved.current.cluster == "there"
    world.clock.pass_s(120)
    turn(world)
    assert [site.cluster for site in app(world).leaving] == ["here"]
    world.clusters["here"].up = True
    turn(world, 2)
    assert app(world).leaving == ()
    assert "chat" not in world.clusters["here"].apps


def test_what_others_deployed_there_is_left_as_it_is(world):
    other = {"name": "theirs", "import_path": "x:y", "route_prefix": "/theirs"}
    world.clusters["here"].apps["theirs"] = ServedApp("theirs", "RUNNING", config=other)
    world.clusters["here"].apps["by-hand"] = ServedApp("by-hand", "RUNNING")
    deployed(world)
    assert world.clusters["here"].put[0] == ["theirs", "chat"]
    assert world.clusters["here"].apps["theirs"].config == other
    world.serving.delete("chat", by="ada")
    turn(world, 3)
    assert world.clusters["here"].put[-1] == ["theirs"]


@pytest.mark.parametrize("change", [None, {"import_path": "evil:app"}])
def test_what_somebody_else_changed_is_seen_told_and_put_back(world, change):
    deployed(world)
    wanted = world.clusters["here"].apps["chat"].config
    if change is None:
        world.clusters["here"].apps.clear()
    else:
        world.clusters["here"].apps["chat"] = ServedApp("chat", "RUNNING", config={**wanted, **change})
    turn(world, 2)
    assert world.clusters["here"].apps["chat"].config == wanted
    assert app(world).problem.startswith("somebody else changed its Serve application on here; it was put back at")
    puts = len(world.clusters["here"].put)
    turn(world, 3)
    assert len(world.clusters["here"].put) == puts
    world.serving.deploy(APP, submitter="ada")
    assert app(world).problem == ""


def test_an_app_that_cannot_be_made_is_given_up_there_and_tried_elsewhere(world):
    world.serving.deploy(APP, submitter="ada")
    turn(world, 1)
    world.serving.step()
    world.clusters["here"].answer("chat", "DEPLOY_FAILED")
    world.serving.step()
    failed = app(world)
    assert failed.problem.startswith("not made on here: DEPLOY_FAILED")
    world.clock.pass_s(1)
    turn(world, 3)
    world.clock.pass_s(3)
    turn(world, 2)
    assert app(world).current.cluster == "there"
    assert "chat" not in world.clusters["here"].apps


def test_an_unclear_answer_is_asked_about_and_nothing_is_put_twice(world):
    world.serving.deploy(APP, submitter="ada")
    turn(world, 1)
    world.clusters["here"].failures_after["serve"] = [ClusterUnclear("timed out")]
    turn(world, 3)
    world.clock.pass_s(3)
    turn(world, 2)
    assert app(world).state is AppState.RUNNING
    assert all(names == ["chat"] for names in world.clusters["here"].put)


def test_a_second_server_goes_on_where_the_first_one_ended(world, tmp_path):
    world.serving.deploy(APP, submitter="ada")
    world.serving.step()
    puts = len(world.clusters["here"].put)
    after = World(tmp_path, CLUSTERS, GRID, before=world)
    try:
        turn(after, 3)
        after.clock.pass_s(3)
        turn(after, 2)
        assert app(after).state is AppState.RUNNING
        with after.store.transaction(write=False) as tx:
            assert len(tx.live_jobs()) == 1
        assert len(after.clusters["here"].put) == puts + 1
    finally:
        after.close()


def test_a_job_of_its_meter_that_ends_is_followed_by_another_and_the_app_gets_its_stamp(world):
    first = deployed(world)
    world.accept.stop(first.current.job_id)
    turn(world, 6)
    again = app(world)
    assert again.current.job_id != first.current.job_id
    with world.store.transaction(write=False) as tx:
        (attempt,) = tx.attempts(job_id=again.current.job_id)
    config = world.clusters["here"].apps["chat"].config
    assert config["runtime_env"]["env_vars"]["CARBON_SCHED_ATTEMPT"] == attempt.attempt_id
    assert again.state is AppState.RUNNING


def test_delete_takes_it_from_everywhere_and_its_job_ends(world):
    settled = deployed(world)
    world.serving.delete("chat", by="ada")
    with pytest.raises(Conflict, match="is being deleted"):
        world.serving.deploy(APP, submitter="ada")
    turn(world, 4)
    with pytest.raises(NotFound, match="no service 'chat'"):
        app(world)
    assert world.clusters["here"].apps == {}
    with world.store.transaction(write=False) as tx:
        assert tx.job(settled.current.job_id).state is JobState.STOPPED


def history(world, sees=lambda _team: True):
    return world.statements.service("chat", sees)


def test_the_ledger_says_where_a_service_ran_and_why_from_its_first_moment_to_its_last(world):
    world.serving.deploy(APP, submitter="ada")
    world.serving.step()
    (begun,) = history(world).stays
    assert (begun.cluster, begun.came_from, begun.reason) == ("here", None, "100 gCO2e/kWh expected, the least")
    assert [(one.cluster, one.expected_mg_per_kwh) for one in begun.considered] == [
        ("here", 100_000),
        ("there", 300_000),
    ]
    assert (begun.answers_since, begun.left_at, begun.co2e_ug) == (None, None, None)

    turn(world, 3)
    pass_to(world, 3 * HOUR)
    world.serving.delete("chat", by="eve")
    turn(world, 4)
    found = history(world)
    first, second = found.stays
    assert first.answers_since < second.placed_at <= second.answers_since < first.left_at < second.left_at
    assert (second.cluster, second.came_from) == ("there", "here")
    assert second.reason.startswith("300 gCO2e/kWh expected instead of ")
    assert (first.left_reason, second.left_reason) == ("moved to there", "the service was deleted")
    assert [bool(change.spec_sha256) for change in found.changes] == [True, False]
    assert len({change.by for change in found.changes}) == 2
    assert world.statements.verify().ok
    with pytest.raises(NotFound, match="knows no service 'chat'"):
        history(world, sees=lambda _team: False)


def test_the_ledger_says_where_a_service_could_not_be_made_and_who_metered_it_instead(world):
    world.serving.deploy(APP, submitter="ada")
    turn(world, 1)
    world.serving.step()
    world.clusters["here"].answer("chat", "DEPLOY_FAILED")
    world.serving.step()
    turn(world, 3)
    world.clock.pass_s(3)
    turn(world, 2)
    world.accept.stop(app(world).current.job_id)
    turn(world, 6)
    failed, made, again = history(world).stays
    assert (failed.answers_since, failed.left_reason) == (None, "not made: DEPLOY_FAILED: ")
    assert [(one.cluster, one.reason) for one in made.considered if one.reason] == [
        ("here", "the app could not be made there a while ago")
    ]
    assert (again.cluster, again.came_from, again.left_at) == ("there", "there", None)
    assert again.reason == made.left_reason == "metered by another job: the one before stopped: stopped"
    assert again.placed_at == again.answers_since == made.left_at


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Chat App"}, "name: 'Chat App' is not a service's name"),
        ({"application": {}}, "application.import_path"),
        ({"application": {"import_path": "a:b", "runtime_env": {"env_vars": {"CARBON_SCHED_X": "1"}}}}, "CARBON_SCHED"),
        ({"application": {"import_path": "a:b", "runtime_env": {"image_uri": "x"}}}, "cannot meter"),
        ({"application": {"import_path": "a:b", "route_prefix": "chat"}}, "is not a route"),
        ({"drain_s": 5.0}, "is over before clients ask"),
        ({"min_gain": 1.5}, "min_gain"),
        ({"horizon_s": float("nan")}, "horizon"),
        ({"latencies_ms": {"here": -1}}, "latency.clusters.here"),
        ({"latencies_ms": {"nowhere": 5.0}}, "is of no cluster"),
        ({"replicas": 0}, "replicas"),
        ({"clusters": ["nowhere"]}, "is not configured"),
        ({"bundle_sha256": "0" * 64}, "is not stored here"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name_and_nothing_is_stored(world, change, words):
    with pytest.raises(InvalidInput, match=words):
        world.serving.deploy({**APP, **change}, submitter="ada")
    assert world.serving.apps() == []


# per request ------------------------------------------------------------------------------------------------------


def tell(world, attempt, replica, counts):
    micros = [round(moment.timestamp() * 1e6) for moment in (START, world.clock.now())]
    told = ReplicaCounts(attempt.attempt_id, replica, *micros, counts)
    world.clusters["here"].files[counts_name(attempt.attempt_id, replica)] = format_counts(told)


def counts(requests, tokens, bucket=10):
    return Counts(requests, 0, 3 * requests, tokens, 1_000_000, 2_000_000, {bucket: requests} if requests else {})


def test_energy_of_a_window_idle_included_is_divided_by_its_requests_and_tokens(world):
    settled = deployed(world)
    with world.store.transaction(write=False) as tx:
        (attempt,) = tx.attempts(job_id=settled.current.job_id)
    with pytest.raises(NotFound, match="no replica of chat has told"):
        world.requests.answered(app(world), START)
    begun = world.clock.now()
    tell(world, attempt, "0000aaaa", counts(100, 500))
    world.clock.pass_s(31)
    world.collect.step()
    first = world.clock.now()
    tell(world, attempt, "0000aaaa", counts(180, 1300, 20))
    tell(world, attempt, "0000bbbb", counts(20, 100))
    world.clock.pass_s(31)
    world.segment(attempt, begun, world.clock.now(), {attempt.attempt_id: 62_000_000})
    world.collect.step()
    found = world.requests.answered(app(world), first - timedelta(seconds=1))
    assert found.counts.requests == 100
    assert found.counts.output_tokens == 900
    assert found.energy_uj == pytest.approx(31_000_000, abs=1)
    assert found.co2e_ug == pytest.approx(31 / 3.6e6 * 100 * 1e6, rel=1e-3)
    assert found.replicas == 2


def test_ray_serves_own_count_stands_beside_the_middlewares_in_figures_and_receipt(world):
    settled = deployed(world)
    with world.store.transaction(write=False) as tx:
        (attempt,) = tx.attempts(job_id=settled.current.job_id)
    begun = world.clock.now()
    tell(world, attempt, SERVE, Counts(90, 1))
    tell(world, attempt, "0000aaaa", counts(100, 500))
    world.clock.pass_s(31)
    world.collect.step()
    first = world.clock.now()
    tell(world, attempt, SERVE, Counts(197, 3))
    tell(world, attempt, "0000aaaa", counts(200, 900))
    world.clock.pass_s(31)
    world.segment(attempt, begun, world.clock.now(), {attempt.attempt_id: 62_000_000})
    world.collect.step()
    found = world.requests.answered(app(world), first - timedelta(seconds=1))
    assert (found.replicas, found.counts.requests, found.by_serve) == (1, 100, Counts(107, 2))
    world.serving.delete("chat", by="ada")
    turn(world, 4)
    receipt = world.statements.receipt(settled.current.job_id)
    assert receipt["per_unit"]["requests"]["amount"] == 200
    (said,) = [note for note in receipt["notes"] if note.startswith("Ray Serve's own metrics")]
    assert "count 197 requests, 3 fewer than the middleware" in said


def test_of_an_app_without_our_middleware_ray_serve_counts_the_requests(world):
    settled = deployed(world)
    with world.store.transaction(write=False) as tx:
        (attempt,) = tx.attempts(job_id=settled.current.job_id)
    begun = world.clock.now()
    for answered in (0, 40):
        tell(world, attempt, SERVE, Counts(answered, 0))
        world.clock.pass_s(31)
        world.collect.step()
    world.segment(attempt, begun, world.clock.now(), {attempt.attempt_id: 62_000_000})
    tell(world, attempt, SERVE, Counts(50, 0))
    world.clock.pass_s(31)
    world.collect.step()
    found = world.requests.answered(app(world), START)
    assert (found.replicas, found.counts, found.by_serve) == (0, Counts(40), Counts(40))
    assert found.counts.latency_s(0.5) is None
    world.serving.delete("chat", by="ada")
    turn(world, 4)
    assert world.statements.receipt(settled.current.job_id)["per_unit"]["requests"]["amount"] == 50


def test_what_a_service_answered_joins_its_receipt_and_its_models_life_cycle(world):
    settled = deployed(world)
    with world.store.transaction(write=False) as tx:
        (attempt,) = tx.attempts(job_id=settled.current.job_id)
    begun = world.clock.now()
    world.clock.pass_s(31)
    tell(world, attempt, "0000aaaa", counts(200, 5000))
    world.segment(attempt, begun, world.clock.now(), {attempt.attempt_id: 3_600_000_000})
    world.serving.delete("chat", by="ada")
    turn(world, 4)
    receipt = world.statements.receipt(settled.current.job_id)
    assert receipt["per_unit"]["requests"]["amount"] == 200
    assert receipt["per_unit"]["requests"]["energy_j"] == pytest.approx(3600 / 200)
    assert receipt["per_unit"]["output-tokens"]["amount"] == 5000
    assert [window["name"] for window in receipt["windows"]] == ["requests"]
    (note,) = [note for note in receipt["notes"] if "200 requests" in note]
    for said in ("600 tokens in and 5000 out", "batch size 2", "p50 2.59 ms", "p95 2.59 ms", "Boundary: IT energy"):
        assert said in note
