from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import Phase
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.presets import DEFAULT, preset, preset_names, presets_folder
from carbon_sched.policy.schema import json_schema
from tests.bench.bench_presets import BEGIN, END, HEADER, README

ROOT = Path(__file__).resolve().parents[2]


def test_the_presets_are_the_files_of_the_policies_folder():
    assert set(preset_names()) == {path.stem for path in (ROOT / "policies").glob("*.yaml")}
    assert presets_folder() == ROOT / "policies"


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_valid_named_as_its_file_and_says_what_it_does(name):
    policy = preset(name)
    assert policy.name == name
    assert policy.description
    assert name in (ROOT / "policies" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("phase", Phase)
def test_balanced_delays_only_what_declared_itself_flexible(phase):
    settings = preset(DEFAULT).settings(Selected(phase=phase.value))
    assert settings.delay_s(None, duration_s=60) == 0
    assert settings.delay_s(3600, duration_s=60) == 3600
    assert settings.minimum_gain > 0


@pytest.mark.parametrize("phase", Phase)
def test_run_now_never_delays(phase):
    settings = preset("run-now").settings(Selected(phase=phase.value))
    assert settings.delay_s(None, duration_s=60) == 0
    assert settings.delay_s(3600, duration_s=60) == 0


def test_the_readmes_table_has_the_form_that_its_command_writes():
    _, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    table, end, _ = rest.partition(END)
    assert end
    assert table.startswith(HEADER)
    rows = [row.split("|")[1:-1] for row in table.removeprefix(HEADER).splitlines()]
    assert [row[0].strip() for row in rows] == [f"`{name}`" for name in preset_names()]
    assert all(re.fullmatch(r" [+-]?\d+\.\d (%|h) ", cell) for row in rows for cell in row[1:])


def test_a_preset_is_read_once_and_places_are_named_by_its_file():
    assert preset("cost-aware") is preset("cost-aware")
    assert preset("cost-aware").origin(Selected(), "minimum_gain").place.startswith("balanced.yaml:")


def test_an_unknown_preset_is_answered_with_those_there_are():
    with pytest.raises(
        InvalidInput, match=r"policy: 'balnced' is not a shipped preset\. Use one of: balanced, cost-aware, "
    ):
        preset("balnced")


def test_lowest_carbon_delays_everything_but_serving():
    batch = preset("lowest-carbon").settings(Selected(phase="pretraining"))
    assert batch.delay_s(None, duration_s=3600) == 86_400
    assert batch.delay_s(None, duration_s=3 * 86_400) == 3 * 86_400
    assert preset("lowest-carbon").settings(Selected(phase="inference-online")).delay_s(None, 3600) == 0


def test_eu_residency_cannot_be_left_by_a_policy_that_extends_it():
    settings = preset("eu-residency").settings(Selected())
    assert settings.residency == {"EU"}
    assert "data.residency" in preset("eu-residency").levels[-1].locked


def test_the_published_schema_is_that_of_the_code_and_admits_every_preset():
    published = json.loads((ROOT / "policies" / "policy.schema.json").read_text(encoding="utf-8"))
    assert published == json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(published)
    for name in preset_names():
        text = (ROOT / "policies" / f"{name}.yaml").read_text(encoding="utf-8")
        jsonschema.validate(yaml.safe_load(text), published)


@pytest.mark.parametrize(
    "wrong",
    [
        {"minimum_gain": "3 %"}, {"flexibility": {"max_delay": 6}}, {"descripton": "x"},
        {"quiet_hours": [{"from": "9"}]},
        {"rules": [{"when": {"team": 3}, "set": {}}]}, {"phases": {"training": {}}},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_loading_would(wrong):
    document = {"apiVersion": "carbon-sched/v1", "name": "a"}
    jsonschema.validate(document, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | wrong, json_schema())
