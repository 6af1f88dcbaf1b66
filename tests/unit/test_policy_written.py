"""What a setting looks like in JSON is what a file would say."""

from __future__ import annotations

import json

import pytest

from carbon_sched.policy.load import parse_policy
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.presets import preset
from carbon_sched.policy.settings import KEYS
from carbon_sched.policy.written import written

ALL = """\
apiVersion: carbon-sched/v1
name: everything
team: '*'
flexibility: {max_delay: 1d12h30m5s, declared: ignore, retries: 4, start_now: false}
signal: {kind: marginal, basis: direct, on_missing: run-now}
clusters: {allowed: [b, a], max_price_per_gpu_hour: 2.5}
data: {residency: [EU], classes: {personal: [CH, EU]}}
queue: {priority: urgent}
quiet_hours: [{from: '22:05', to: '06:00', zone: Europe/Berlin, days: [mon, sun]}]
"""


def test_reading_what_is_written_gives_the_same_settings():
    settings = parse_policy(ALL.encode(), "a.yaml", preset).settings(Selected())
    nested: dict = {"apiVersion": "carbon-sched/v1", "name": "again", "team": "*"}
    for key, entry in KEYS.items():
        value = written(key, getattr(settings, entry.attribute))
        *above, last = key.split(".")
        at = nested
        for step in above:
            at = at.setdefault(step, {})
        if value not in (None, "", {}):  # what stands for "nothing" is left out of files
            at[last] = value
    again = parse_policy(json.dumps(nested).encode(), "again.yaml", preset).settings(Selected())
    assert again == settings


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, 0), (90, "1m30s"), (86_400, "1d"), (3_600, "1h"), (131_405, "1d12h30m5s")]
)
def test_durations_are_written_as_people_do(seconds, text):
    assert written("flexibility.max_delay", seconds) == text
