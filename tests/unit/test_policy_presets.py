from __future__ import annotations

from pathlib import Path

import pytest

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import Phase
from carbon_sched.policy.model import Selected
from carbon_sched.policy.presets import DEFAULT, preset, preset_names, presets_folder

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


def test_an_unknown_preset_is_answered_with_those_there_are():
    with pytest.raises(
        InvalidInput, match=r"policy: 'balnced' is not a shipped preset\. Use one of: balanced, run-now"
    ):
        preset("balnced")
