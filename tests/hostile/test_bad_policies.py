"""Bad policy files (B5, row 35): each refused with file, line, field and remedy, and nothing in force changes."""

from __future__ import annotations

import json

import pytest

from carbon_sched.domain.errors import Conflict, InvalidFile
from carbon_sched.policy.load import parse_policy
from carbon_sched.policy.presets import preset
from carbon_sched.policy.schema import PolicyForm
from carbon_sched.policy.settings import KEYS
from carbon_sched.service.policies import Policies
from carbon_sched.store.engine import open_store
from tests.fakes.world import FakeClock

HEAD = "apiVersion: carbon-sched/v1\nname: bad\n"
NO_TEXT = [3, True, None, [], {}]
NO_LIST = ["one", 3, True, {"a": 1}]
NO_NUMBER = ["x", "3 %", None, [], float("1e999"), -1]
NO_DURATION = [6, "6", "h", "-6h", "31d", "1.5h", None]
BAD = {
    "apiVersion": ["carbon-sched/v2", 1, None],
    "name": ["Team A", "", "-a", "x" * 64, 12, None],
    "description": ["two\nlines", "x" * 201, 3],
    "extends": ["nobody", "bad", "Not A Name", 3, []],
    "team": ["", "two\nlines", 3, []],
    "flexibility.max_delay": NO_DURATION,
    "flexibility.max_delay_of_duration": [*NO_NUMBER, 101],
    "flexibility.declared": ["ignored", False, None],
    "flexibility.deadline_confidence": [*NO_NUMBER, 0.4, 1],
    "flexibility.interruptible": ["yes", 1, None],
    "flexibility.max_pauses": [*NO_NUMBER, 1.5, 1001],
    "flexibility.pause_gain": [*NO_NUMBER, 1],
    "flexibility.pause_confidence": [*NO_NUMBER, 0.4, 1],
    "flexibility.run_between_pauses": [*NO_NUMBER, 1001],
    "flexibility.retries": [*NO_NUMBER, 1.5, 101],
    "flexibility.start_now": ["yes", 1, None],
    "flexibility.variants": ["leaner", True, None],
    "weights.carbon": [*NO_NUMBER, 1e7],
    "weights.cost": NO_NUMBER,
    "weights.waiting": NO_NUMBER,
    "minimum_gain": [*NO_NUMBER, 1],
    "signal.kind": ["average", "total", None, 3],
    "signal.basis": ["direct", "upstream", 3],
    "signal.on_missing": ["hold", False],
    "signal.max_age": [value for value in NO_DURATION if value is not None],
    "clusters.allowed": NO_LIST,
    "clusters.denied": [*NO_LIST, [3], [""]],
    "clusters.preferred": NO_LIST,
    "clusters.home": ["", 3, [], "two\nlines"],
    "clusters.max_price_per_gpu_hour": [0, *NO_NUMBER[:2], -1],
    "data.residency": [*NO_LIST, [None]],
    "data.classes": ["EU", 3, {"a": "EU"}, {"": ["EU"]}],
    "queue.priority": ["top", 1, None],
    "queue.share": [*NO_NUMBER, 0, 1001],
    "quiet_hours": [
        "night",
        [{"from": "22:00", "to": "06:00"}],
        [{"from": "22", "to": "06:00", "zone": "UTC"}],
        [{"from": "22:00", "to": "24:00", "zone": "UTC"}],
        [{"from": "22:00", "to": "06:00", "zone": "Nowhere"}],
        [{"from": "22:00", "to": "06:00", "zone": "../etc/passwd"}],
        [{"from": "22:00", "to": "06:00", "zone": "UTC", "days": []}],
        [{"from": "22:00", "to": "06:00", "zone": "UTC", "days": ["monday"]}],
    ],
    "runtime_env.allowed": NO_LIST,
    "phases.training": [{}],
    "phases.evaluation": [3, [], {"flexibility": {"max_delay": "soon"}}],
    "rules": [
        "all",
        [{}],
        [{"when": {}}],
        [{"set": {}}],
        [{"when": {"team": 3}, "set": {}}],
        [{"when": {"phase": "training"}, "set": {}}],
        [{"when": {"gpus_at_least": -1}, "set": {}}],
        [{"when": {"labels": ["a"]}, "set": {}}],
        [{"when": {}, "set": {"locked": ["minimum_gain"]}}],
    ],
    "budgets": [
        [{"name": "a", "of": {}, "every": "month"}],
        [{"name": "a", "every": "month", "co2e_kg": 1}],
        [{"name": "a", "of": {}, "every": "day", "co2e_kg": 1}],
        [{"name": "a", "of": {"person": "ada"}, "every": "month", "co2e_kg": 1}],
        [{"name": "a", "of": {}, "every": "month", "co2e_kg": 0}],
        [{"name": "a", "of": {}, "every": "month", "energy_kwh": 1, "over": "stop"}],
        [{"name": "a", "of": {}, "every": "month", "co2e_kg": 1}] * 2,
    ],
    "locked": [*NO_LIST, ["everything"], ["flexibility"]],
    "minimum_gian": [0.1],
    "flexibility.max_dely": ["6h"],
}
FILES = {
    f"{key} = {json.dumps(value)[:30]} #{number}": (key, value)
    for key, values in BAD.items()
    for number, value in enumerate(values)
}


def text_of(key: str, value: object) -> str:
    """A file that is sound but for one value, which stands in its third line."""
    *above, last = key.split(".")
    written = json.dumps(value).replace("Infinity", "1e999")
    body = f"{json.dumps(last)}: {written}"
    for step in reversed(above):
        body = f"{json.dumps(step)}: {{{body}}}"
    lines = {"apiVersion": "name: bad\n# the version\n", "name": "apiVersion: carbon-sched/v1\n# its name\n"}
    return f"{lines.get(key, HEAD)}{body}\n"


def test_there_are_enough_of_them_and_every_setting_is_among_them():
    assert len(FILES) >= 150
    assert set(KEYS) <= set(BAD)
    assert {name for name, field in PolicyForm.model_fields.items() if not field.alias} <= {
        k.split(".")[0] for k in BAD
    }


@pytest.mark.parametrize(("key", "value"), FILES.values(), ids=FILES)
def test_it_is_refused_with_line_field_and_remedy(key, value):
    with pytest.raises(InvalidFile) as caught:
        parse_policy(text_of(key, value).encode(), "bad.yaml", preset)
    for problem in caught.value.problems:
        assert problem.line == 3
        assert problem.field.startswith(key) or key.startswith(problem.field)
        assert problem.remedy
        assert str(problem).startswith(f"bad.yaml:3:{problem.column}: {problem.field}")


def test_the_same_file_without_the_bad_value_is_taken():
    assert parse_policy(f"{HEAD}minimum_gain: 0.1\n".encode(), "good.yaml", preset).name == "bad"


def test_what_is_in_force_stays_through_all_of_them(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'store.sqlite'}", FakeClock())
    policies = Policies(store, preset, FakeClock())
    policies.apply("apiVersion: carbon-sched/v1\nname: acme\nteam: '*'\n", by="ada")
    before = policies.now()
    for key, value in FILES.values():
        with pytest.raises((InvalidFile, Conflict)):
            policies.apply(text_of(key, value), by="ada")
    assert policies.now() is before
    with store.transaction(write=False) as tx:
        assert len(tx.entries()) == 1
    store.close()
