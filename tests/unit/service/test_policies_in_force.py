"""Which policy a job follows, and what applying and restoring one does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from carbon_sched.domain.errors import Conflict, InvalidFile, InvalidInput, NotFound
from carbon_sched.domain.job import JobSpec, JobState
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.presets import preset
from carbon_sched.ports import JobFilter
from carbon_sched.service.policies import Policies
from carbon_sched.store.engine import open_store
from tests.fakes.world import FakeClock, World, a_cluster

HEAD = "apiVersion: carbon-sched/v1\n"
ACME = HEAD + "name: acme\nextends: balanced\nteam: '*'\nflexibility: {max_delay: 2h}\n"
VISION = HEAD + "name: vision\nextends: acme\nteam: vision\nminimum_gain: 0.1\n"


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path / 'store.sqlite'}", FakeClock())
    yield opened
    opened.close()


@pytest.fixture
def policies(store):
    return Policies(store, preset, FakeClock())


def job(team="", policy=""):
    return JobSpec("python job.py", "job", team=team, policy=policy)


def settings(policies, spec):
    return policies.now().followed(spec).settings(Selected.of(spec))


def facts(store):
    with store.transaction(write=False) as tx:
        return [json.loads(entry.payload) for entry in tx.entries()]


def test_a_job_follows_what_it_names_else_its_team_else_everybody_else_the_default(policies):
    assert policies.now().followed(job()).name == "balanced"
    policies.apply(ACME, by="ana")
    policies.apply(VISION, by="ana")
    followed = policies.now().followed
    assert followed(job()).name == "acme"
    assert followed(job("speech")).name == "acme"
    assert followed(job("vision")).name == "vision"
    assert followed(job("vision", "run-now")).name == "run-now"


def test_an_applied_policy_stands_above_a_preset_of_its_name(policies):
    policies.apply(HEAD + "name: balanced\nminimum_gain: 0.5\n", by="ana")
    assert settings(policies, job()).minimum_gain == 0.5


def test_applying_is_a_version_and_a_fact(policies, store):
    version = policies.apply(ACME, by="ana", reason="pilot")
    (fact,) = facts(store)
    assert fact["kind"] == "policy-applied"
    assert fact["body"] | {"sha256": ""} == {
        "name": "acme", "version": version.version, "label": policies.now().get("acme").label, "sha256": "",
        "by": "person-1", "reason": "pilot", "restored": None,
    }  # fmt: skip


def test_what_another_server_applied_is_seen_at_once(policies, store):
    other = Policies(store, preset, FakeClock())
    assert other.now().followed(job()).name == "balanced"
    policies.apply(ACME, by="ana")
    assert other.now().followed(job()).name == "acme"


def test_a_change_above_reaches_those_below(policies):
    policies.apply(ACME, by="ana")
    policies.apply(VISION, by="ana")
    before, label = settings(policies, job("vision")), policies.now().get("vision").label
    policies.apply(ACME.replace("2h", "4h"), by="ana")
    after = settings(policies, job("vision"))
    assert (before.max_delay_s, after.max_delay_s) == (7200, 14400)
    assert label != policies.now().get("vision").label


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("name: [", InvalidFile, "is not YAML"),
        (HEAD + "name: lab\nextends: nobody\n", InvalidFile, "not a known policy"),
        (ACME, Conflict, "in force just so"),
        (HEAD + "name: other\nteam: '*'\n", Conflict, "acme and other are both for team"),
        (HEAD + "name: acme\nextends: vision\n", InvalidFile, "extends itself through others"),
        (HEAD + "name: acme\nminimum_gain: 0.2\nlocked: [minimum_gain]\n", InvalidFile, "looser than acme allows"),
    ],
)
def test_what_does_not_fit_leaves_everything_as_it_was(policies, store, content, error, words):
    policies.apply(ACME, by="ana")
    policies.apply(VISION, by="ana")
    before = policies.now()
    with pytest.raises(error, match=words):
        policies.apply(content, by="ana")
    assert policies.now() is before
    assert len(facts(store)) == 2


def test_a_roll_back_is_a_new_version_with_the_old_text(policies, store):
    first = policies.apply(ACME, by="ana")
    policies.apply(ACME.replace("2h", "4h"), by="ana")
    restored = policies.roll_back("acme", to=None, by="bo", reason="too slow")
    assert (restored.content, restored.restored, restored.reason) == (ACME, first.version, "too slow")
    assert settings(policies, job()).max_delay_s == 7200
    assert facts(store)[-1]["body"]["restored"] == first.version


def test_a_roll_back_needs_somewhere_to_go(policies):
    with pytest.raises(NotFound, match="no policy 'acme' was ever applied"):
        policies.roll_back("acme", to=None, by="ana")
    policies.apply(ACME, by="ana")
    with pytest.raises(Conflict, match="no earlier version"):
        policies.roll_back("acme", to=None, by="ana")
    with pytest.raises(Conflict, match="no earlier version"):
        policies.roll_back("acme", to=99, by="ana")


def test_equal_jobs_are_resolved_once_and_different_ones_apart(policies):
    policies.apply(ACME + "rules:\n- when: {labels: {urgency: high}}\n  set: {minimum_gain: 0.3}\n", by="ana")
    plain = JobSpec("a", "one", metadata={"note": "x"})
    same, marked = JobSpec("b", "two", metadata={"note": "y"}), JobSpec("a", "one", metadata={"urgency": "high"})
    assert settings(policies, plain) is settings(policies, same)
    assert settings(policies, marked).minimum_gain == 0.3


def test_an_unknown_name_is_answered_with_those_there_are(policies):
    policies.apply(ACME, by="ana")
    with pytest.raises(InvalidInput, match=r"not a known policy.*balanced.*applied here: acme"):
        policies.now().get("greenest")


def test_data_of_a_class_that_residency_excludes_can_run_nowhere_and_both_levels_are_named(tmp_path):
    places = {"berlin": ("EU",), "dallas": ("US",), "basel": ("EU", "CH")}
    clusters = [replace(a_cluster(name, "DE"), residency=tags) for name, tags in places.items()]
    world = World(tmp_path, clusters, {"DE": [(0, 50.0)]})
    world.policies.apply(ACME + "data: {residency: [EU]}\n", by="olga")
    world.policies.apply(VISION + "data: {classes: {open: [US], health: [CH]}}\n", by="olga")
    health = world.submit(team="vision", metadata={"data-class": "health"})
    nowhere = world.submit(team="vision", metadata={"data-class": "open"})
    world.decide.step()
    assert world.attempts(health)[0].cluster == "basel"
    refused = world.job(nowhere)
    assert refused.state is JobState.REFUSED
    assert "no cluster can ever run it" in refused.reason
    asked = "data must stay in EU (data.residency of acme) and in US (data.classes of vision); this cluster is tagged "
    assert f"{asked}US" in refused.reason
    world.close()


def test_a_receipt_is_told_against_the_teams_own_home(tmp_path):
    clusters = [a_cluster("dirty", "PL", home=True), a_cluster("clean", "SE"), a_cluster("mine", "DE")]
    world = World(tmp_path, clusters, {"PL": [(0, 800.0)], "SE": [(0, 50.0)], "DE": [(0, 400.0)]})
    world.policies.apply(HEAD + "name: vision\nteam: vision\nclusters: {home: mine}\n", by="olga")
    homes = {}
    for seq, team in enumerate(("vision", "speech")):
        job = world.submit(team=team)
        world.settle()
        world.run_to_end(job, seq=seq)
        world.settle()
        told = {one["name"]: one for one in world.statements.receipt(job.job_id)["references"]}["run-now-home"]
        homes[team] = (told["cluster"], round(told["co2e_g"], 3))
    assert homes == {"vision": ("mine", 0.4), "speech": ("dirty", 0.8)}
    world.close()


def test_only_allowed_keys_of_the_runtime_environment_are_taken(tmp_path):
    world = World(tmp_path, [a_cluster("a", "DE")], {"DE": [(0, 50.0)]})
    world.policies.apply(HEAD + "name: acme\nteam: '*'\nruntime_env: {allowed: [env_vars]}\n", by="olga")
    world.submit(runtime_env={"env_vars": {"A": "1"}})
    with pytest.raises(InvalidInput, match=r"'pip' is not allowed by the policy acme.*allowed are: env_vars"):
        world.submit(runtime_env={"pip": ["torch"]})
    world.close()


STRICT = HEAD + "name: acme\nteam: '*'\nruntime_env: {allowed: [env_vars]}\n"


def test_what_another_server_allowed_or_forbade_holds_for_the_very_next_submission(tmp_path):
    world = World(tmp_path, [a_cluster("a", "DE")], {"DE": [(0, 50.0)]})
    world.submit(runtime_env={"pip": ["torch"]})
    other = World(tmp_path, [a_cluster("a", "DE")], {"DE": [(0, 50.0)]}, before=world)
    other.policies.apply(STRICT, by="olga")
    with pytest.raises(InvalidInput, match="'pip' is not allowed"):
        world.submit(runtime_env={"pip": ["torch"]})
    other.fleet.put(a_cluster("b", "DE"))
    assert world.submit(clusters=["b"]).spec.clusters == ("b",)
    other.fleet.remove("b")
    with pytest.raises(InvalidInput, match="'b' is not configured"):
        world.submit(clusters=["b"])
    other.close()
    world.close()


def test_a_submission_that_waits_for_its_turn_is_held_to_what_came_in_force_meanwhile(tmp_path, monkeypatch):
    world = World(tmp_path, [a_cluster("a", "DE")], {"DE": [(0, 50.0)]})
    looked = []

    def applied_meanwhile(_sha256):
        if not looked:
            world.policies.apply(STRICT, by="olga")
        looked.append(True)
        return True

    monkeypatch.setattr(world.bundles, "has", applied_meanwhile)
    with pytest.raises(InvalidInput, match="'pip' is not allowed"):
        world.submit(bundle_sha256="0" * 64, runtime_env={"pip": ["torch"]})
    assert looked
    with world.store.transaction(write=False) as tx:
        assert tx.jobs(JobFilter(), limit=10) == []
    world.close()
