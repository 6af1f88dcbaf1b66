"""Levels of policies: what holds for a job, where it comes from, and what a lock keeps."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from carbon_sched.domain.errors import InvalidFile, InvalidInput
from carbon_sched.policy.load import parse_policy
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.model import Origin, Policy
from carbon_sched.policy.presets import preset
from carbon_sched.policy.settings import KEYS, Priority, Settings, after_quiet

ACME = """\
apiVersion: carbon-sched/v1
name: acme
extends: balanced
flexibility: {max_delay: 24h, retries: 3}
clusters: {denied: [shanghai]}
data: {residency: [eu, ch]}
locked: [flexibility.max_delay, clusters.denied, data.residency]
rules:
- when: {phase: inference-batch}
  set: {flexibility: {max_delay: 48h}}
"""
VISION = """\
apiVersion: carbon-sched/v1
name: vision
extends: acme
team: vision
flexibility: {max_delay: 6h}
rules:
- when: {project: [perception, maps], gpus_at_least: 8}
  set: {queue: {priority: high}}
- when: {labels: {urgency: today}}
  set: {queue: {priority: urgent}, flexibility: {retries: 0}}
"""


def find(name: str) -> Policy:
    texts = {"acme": ACME, "vision": VISION}
    return parse_policy(texts[name].encode(), f"{name}.yaml", find) if name in texts else preset(name)


def team(body: str) -> Policy:
    text = f"apiVersion: carbon-sched/v1\nname: team\nextends: acme\n{body}"
    return parse_policy(text.encode(), "team.yaml", find)


def refused(body: str) -> str:
    with pytest.raises(InvalidFile) as caught:
        team(body)
    return str(caught.value)


def test_a_file_completes_itself_from_the_one_it_extends():
    settings = find("vision").settings(Selected(team="vision"))
    assert (settings.max_delay_s, settings.retries) == (6 * 3600, 3)
    assert settings.minimum_gain == preset("balanced").settings(Selected()).minimum_gain
    assert settings.denied == {"shanghai"}


def test_every_value_says_where_it_came_from():
    origins = {key: find("vision").origin(Selected(project="maps", gpus=8), key) for key in KEYS}
    assert origins["flexibility.max_delay"] == Origin("vision", "vision.yaml:5")
    assert origins["flexibility.retries"] == Origin("acme", "acme.yaml:4")
    assert origins["queue.priority"] == Origin("vision", "vision.yaml:8")
    assert origins["minimum_gain"].level == "balanced"
    assert origins["weights.cost"] == Origin()


@pytest.mark.parametrize(
    ("job", "priority"),
    [
        ({}, Priority.NORMAL),
        ({"project": "maps", "gpus": 7}, Priority.NORMAL),
        ({"project": "maps", "gpus": 8}, Priority.HIGH),
        ({"project": "perception", "gpus": 64}, Priority.HIGH),
        ({"project": "other", "gpus": 8}, Priority.NORMAL),
        ({"labels": {"urgency": "today"}}, Priority.URGENT),
        ({"labels": {"urgency": "someday"}}, Priority.NORMAL),
        ({"project": "maps", "gpus": 8, "labels": {"urgency": "today", "more": "x"}}, Priority.URGENT),
    ],
)
def test_the_last_rule_that_matches_wins(job, priority):
    assert find("vision").settings(Selected(**job)).priority is priority


def test_what_is_locked_may_be_tightened():
    settings = team("clusters: {denied: [shanghai, dallas]}\ndata: {residency: [ch]}\n").settings(Selected())
    assert settings.denied == {"shanghai", "dallas"}
    assert settings.residency == {"ch"}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ("flexibility: {max_delay: 2d}\n", "team.yaml:4:26: flexibility.max_delay"),
        ("clusters: {denied: []}\n", "team.yaml:4:20: clusters.denied"),
        ("data: {residency: [us]}\n", "team.yaml:4:19: data.residency"),
        (
            "phases:\n  other:\n    flexibility: {max_delay: 30h}\n",
            "team.yaml:6:30: phases.other.flexibility.max_delay",
        ),
        (
            "rules:\n- when: {}\n  set: {flexibility: {max_delay: 30h}}\n",
            "team.yaml:6:34: rules.0.set.flexibility.max_delay",
        ),
    ],
)
def test_what_is_locked_may_not_be_loosened(body, place):
    message = refused(body)
    assert message.startswith(place)
    assert "is looser than acme allows" in message


def test_a_lock_holds_the_value_of_the_very_job():
    """Acme grants batch inference 48 h by a rule; a team's 24 h for all of it is tighter there and not elsewhere."""
    policy = team("flexibility: {max_delay: 24h}\n")
    assert policy.settings(Selected(phase="inference-batch")).max_delay_s == 24 * 3600
    assert find("acme").settings(Selected(phase="inference-batch")).max_delay_s == 48 * 3600


def test_a_lock_also_holds_what_only_some_jobs_are_denied():
    head = "apiVersion: carbon-sched/v1\nname: top\nlocked: [minimum_gain]\n"
    text = head + "rules:\n- when: {team: a}\n  set: {minimum_gain: 0.2}\n"
    top = parse_policy(text.encode(), "top.yaml", preset)
    low = parse_policy(
        b"apiVersion: carbon-sched/v1\nname: low\nextends: top\nminimum_gain: 0.1\n", "low.yaml", lambda _: top
    )
    assert low.settings(Selected(team="b")).minimum_gain == 0.1
    assert low.settings(Selected(team="a")).minimum_gain == 0.2
    assert low.origin(Selected(team="a"), "minimum_gain") == Origin("low", "low.yaml:4", locked_by="top")


@pytest.mark.parametrize(
    ("key", "bound", "value", "tighter"),
    [
        ("flexibility.start_now", False, True, False),
        ("flexibility.deadline_confidence", 0.99, 0.9, 0.99),
        ("flexibility.retries", 1, 5, 1),
        ("clusters.allowed", None, frozenset("ab"), frozenset("ab")),
        ("clusters.allowed", frozenset("ab"), None, frozenset("ab")),
        ("clusters.allowed", frozenset("ab"), frozenset("bc"), frozenset("b")),
        ("clusters.max_price_per_gpu_hour", 2.0, None, 2.0),
        ("clusters.max_price_per_gpu_hour", 2.0, 1.5, 1.5),
        ("data.residency", frozenset(["eu"]), frozenset(), frozenset(["eu"])),
        ("data.classes", {"a": frozenset(["eu"])}, {"b": frozenset(["ch"])}, {"a": {"eu"}, "b": {"ch"}}),
        ("queue.priority", Priority.NORMAL, Priority.URGENT, Priority.NORMAL),
        ("queue.priority", Priority.NORMAL, Priority.LOW, Priority.LOW),
        ("runtime_env.allowed", frozenset(["pip"]), frozenset(["pip", "conda"]), frozenset(["pip"])),
    ],
)
def test_the_tighter_of_two_values(key, bound, value, tighter):
    assert KEYS[key].tighter(bound, value) == tighter


def test_every_setting_has_one_key():
    assert sorted(entry.attribute for entry in KEYS.values()) == sorted(Settings.__dataclass_fields__)


def test_a_change_above_changes_the_version_below():
    other = ACME.replace("retries: 3", "retries: 4")
    below = parse_policy(VISION.encode(), "vision.yaml", lambda name: parse_policy(other.encode(), "acme.yaml", find))
    assert below.label != find("vision").label


def test_a_chain_has_an_end():
    def endless(name: str) -> Policy:
        number = int(name.removeprefix("level-"))
        if number > 8:
            raise InvalidInput("policy", name, "is not known", "Stop")
        body = f"apiVersion: carbon-sched/v1\nname: {name}\n" + (f"extends: level-{number - 1}\n" if number else "")
        return parse_policy(body.encode(), f"{name}.yaml", endless)

    assert len(endless("level-4").levels) == 5
    with pytest.raises(InvalidFile, match="more than 5 levels"):
        endless("level-6")


@pytest.mark.parametrize(
    ("local", "covered"),
    [
        ("2022-03-04T21:59", False),  # a Friday
        ("2022-03-04T22:00", True),
        ("2022-03-05T05:59", True),
        ("2022-03-05T06:00", False),
        ("2022-03-05T23:00", False),  # they begin on weekdays only
        ("2022-03-07T03:00", False),
        ("2022-03-08T03:00", True),
    ],
)
def test_quiet_hours_over_midnight_belong_to_the_day_they_begin_on(local, covered):
    body = "quiet_hours:\n- {from: '22:00', to: '06:00', zone: Europe/Berlin, days: [mon, tue, wed, thu, fri]}\n"
    (hours,) = team(body).settings(Selected()).quiet_hours
    assert hours.covers(datetime.fromisoformat(local).replace(tzinfo=ZoneInfo("Europe/Berlin"))) is covered


def test_data_classes_narrow_residency_and_never_widen_it():
    settings = team("data: {residency: [eu, ch], classes: {personal: [ch], open: [us]}}\n").settings(Selected())
    asked = {"data.residency": {"eu", "ch"}}
    assert settings.tags(None) == settings.tags("unheard-of") == asked
    assert settings.tags("personal") == asked | {"data.classes": {"ch"}}
    assert settings.tags("open") == asked | {"data.classes": {"us"}}


def test_the_end_of_quiet_hours_is_found_over_midnight_weekends_and_several_of_them():
    night = "{from: '22:00', to: '06:00', zone: Europe/Berlin}"
    morning = "{from: '05:00', to: '09:30', zone: Europe/Berlin, days: [mon]}"
    hours = team(f"quiet_hours: [{night}, {morning}]\n").settings(Selected()).quiet_hours
    berlin = ZoneInfo("Europe/Berlin")

    def after(local: str) -> str:
        at = datetime.fromisoformat(local).replace(tzinfo=berlin).astimezone(ZoneInfo("UTC"))
        return after_quiet(hours, at).astimezone(berlin).isoformat(timespec="minutes")[:16]

    assert after("2026-03-03T12:00") == "2026-03-03T12:00"  # a Tuesday
    assert after("2026-03-03T22:00") == "2026-03-04T06:00"
    assert after("2026-03-09T01:00") == "2026-03-09T09:30"  # a Monday: one ends within the other
    assert after("2026-03-28T23:00") == "2026-03-29T06:00"  # the night that is an hour short


def test_hours_that_never_end_do_not_hold_a_job_for_ever():
    whole = "{from: '00:00', to: '12:00', zone: UTC}, {from: '12:00', to: '00:00', zone: UTC}"
    hours = team(f"quiet_hours: [{whole}]\n").settings(Selected()).quiet_hours
    at = datetime(2026, 3, 3, 8, tzinfo=ZoneInfo("UTC"))
    assert after_quiet(hours, at) == at
