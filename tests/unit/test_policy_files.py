from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from carbon_sched.domain.errors import InvalidFile
from carbon_sched.domain.intensity import Grade, Reading
from carbon_sched.domain.job import Phase
from carbon_sched.policy.document import MAX_BYTES, MAX_DEPTH
from carbon_sched.policy.load import load_policy, parse_policy
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.presets import preset
from carbon_sched.policy.schema import PhasesForm, duration_s
from carbon_sched.policy.settings import Declared, Settings
from tests.fakes.grid import T0, reading

if TYPE_CHECKING:
    from carbon_sched.policy.model import Policy

HEAD = "apiVersion: carbon-sched/v1\nname: team-a\n"


def policy(body: str = "") -> Policy:
    return parse_policy((HEAD + body).encode(), "team-a.yaml", preset)


def problems(content: str | bytes) -> tuple:
    with pytest.raises(InvalidFile) as caught:
        parse_policy(content if isinstance(content, bytes) else content.encode(), "bad.yaml", preset)
    return caught.value.problems


def settings(body: str = "", **job) -> Settings:
    return policy(body).settings(Selected(**job))


def signal(grade: Grade) -> Reading:
    """Issued at T0."""
    return replace(reading("DE", T0, T0 + timedelta(days=3), 100.0), grade=grade)


def test_everything_left_out_means_place_and_never_delay():
    assert settings() == Settings()
    assert settings().delay_s(None, duration_s=3600) == 0


def test_a_phase_completes_its_settings_from_the_files_own():
    body = (
        "flexibility:\n"
        "  max_delay: 2h\n"
        "  declared: ignore\n"
        "phases:\n"
        "  inference-batch: {flexibility: {max_delay: 1d12h}}\n"
        "  evaluation: {flexibility: {declared: honour}, minimum_gain: 0.1}\n"
    )
    assert settings(body, phase="pretraining") == Settings(max_delay_s=7200, declared=Declared.IGNORE)
    assert settings(body, phase="inference-batch").max_delay_s == 36 * 3600
    assert settings(body, phase="inference-batch").declared is Declared.IGNORE
    assert settings(body, phase="evaluation") == Settings(max_delay_s=7200, minimum_gain=0.1)


def test_a_declared_delay_replaces_the_granted_one_unless_it_is_ignored():
    honouring = settings("flexibility: {max_delay: 1h}\n")
    ignoring = settings("flexibility: {max_delay: 1h, declared: ignore}\n")
    assert honouring.delay_s(None, duration_s=60) == 3600
    assert honouring.delay_s(60, duration_s=60) == 60
    assert honouring.delay_s(7200, duration_s=60) == 7200
    assert honouring.delay_s(-5, duration_s=60) == 0
    assert ignoring.delay_s(7200, duration_s=60) == 3600


def test_a_delay_may_grow_with_the_run_time_and_the_longer_one_holds():
    mixed = settings("flexibility: {max_delay: 1h, max_delay_of_duration: 0.25}\n")
    assert mixed.delay_s(None, duration_s=86_400) == 21_600
    assert mixed.delay_s(None, duration_s=600) == 3600


def test_only_a_policy_that_falls_back_waits_on_yearly_averages():
    falls_back, runs_now = settings(), settings("signal: {on_missing: run-now}\n")
    assert falls_back.may_wait_on(signal(Grade.WORLD_YEAR), T0)
    assert runs_now.may_wait_on(signal(Grade.OWN_FORECAST), T0)
    assert not runs_now.may_wait_on(signal(Grade.ZONE_YEAR), T0)


def test_an_old_signal_counts_as_missing():
    runs_now = settings("signal: {on_missing: run-now, max_age: 3h}\n")
    assert runs_now.may_wait_on(signal(Grade.LIVE), T0 + timedelta(hours=3))
    assert not runs_now.may_wait_on(signal(Grade.LIVE), T0 + timedelta(hours=3, seconds=1))
    assert settings("signal: {max_age: 3h}\n").may_wait_on(signal(Grade.LIVE), T0 + timedelta(hours=30))


def test_the_label_changes_with_any_byte_of_the_file():
    assert policy().label.startswith("team-a@")
    assert policy().label != policy("# a comment\n").label


def test_every_phase_has_its_key():
    assert {PhasesForm.model_fields[name].alias or name for name in PhasesForm.model_fields} == {p.value for p in Phase}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(0, 0), (0.0, 0), ("0s", 0), ("90s", 90), ("45m", 2700), ("6h", 21600), ("1d12h", 129600), ("1h30m", 5400)],
)
def test_durations(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", [6, True, False, "6", "", "h", "6 h", "-6h", "30m6h", "1.5h", "6H", "six hours", None, [], "٦h6"]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        duration_s(text)


# content -> (line, column, field) of each problem, in the file's order
WRONG_VALUES = {
    "unknown key": (HEAD + "descripton: x\n", [(3, 1, "descripton")]),
    "unknown nested key": (HEAD + "signal:\n  # why\n  on_mising: fallback\n", [(5, 3, "signal.on_mising")]),
    "unknown phase": (
        HEAD + "phases:\n  finetunning: {}\n",
        [(4, 3, "phases.finetunning")],
    ),
    "other version": ("apiVersion: carbon-sched/v2\nname: a\n", [(1, 13, "apiVersion")]),
    "no version": ("name: a\n", [(1, 1, "apiVersion")]),
    "no name": ("# a comment\napiVersion: carbon-sched/v1\n", [(2, 1, "name")]),
    "bad name": ("apiVersion: carbon-sched/v1\nname: Team A\n", [(2, 7, "name")]),
    "number as name": ("apiVersion: carbon-sched/v1\nname: 12\n", [(2, 7, "name")]),
    "empty value": (HEAD + "minimum_gain:\n", [(3, 14, "minimum_gain")]),
    "percent as number": (HEAD + "minimum_gain: 3\n", [(3, 15, "minimum_gain")]),
    "percent as text": (HEAD + "minimum_gain: 3 %\n", [(3, 15, "minimum_gain")]),
    "negative gain": (HEAD + "minimum_gain: -0.1\n", [(3, 15, "minimum_gain")]),
    "infinite gain": (HEAD + "minimum_gain: 1e999\n", [(3, 15, "minimum_gain")]),
    "delay without unit": (HEAD + "flexibility:\n  max_delay: 6\n", [(4, 14, "flexibility.max_delay")]),
    "delay beyond sense": (HEAD + "flexibility: {max_delay: 31d}\n", [(3, 26, "flexibility.max_delay")]),
    "delay in a phase": (
        HEAD + "phases:\n  other:\n    flexibility:\n      max_delay: soon\n",
        [(6, 18, "phases.other.flexibility.max_delay")],
    ),
    "boolean for a word": (HEAD + "flexibility: {declared: false}\n", [(3, 25, "flexibility.declared")]),
    "list for a mapping": (HEAD + "signal:\n- fallback\n", [(4, 1, "signal")]),
    "text for a mapping": (HEAD + "flexibility: none\n", [(3, 14, "flexibility")]),
    "number for a phase": (HEAD + "phases: {other: 3}\n", [(3, 17, "phases.other")]),
    "delay in proportion to a negative": (
        HEAD + "flexibility: {max_delay_of_duration: -1}\n",
        [(3, 38, "flexibility.max_delay_of_duration")],
    ),
    "certain beyond reach": (
        HEAD + "flexibility: {deadline_confidence: 1}\n",
        [(3, 36, "flexibility.deadline_confidence")],
    ),
    "unknown key of a rule": (
        HEAD + "rules:\n- when: {team: a}\n  set: {}\n- when: {tema: b}\n  set: {}\n",
        [(6, 10, "rules.1.when.tema")],
    ),
    "rule for no known phase": (
        HEAD + "rules:\n- when: {phase: [evaluation, training]}\n  set: {}\n",
        [(4, 30, "rules.0.when.phase.1")],
    ),
    "rule without settings": (HEAD + "rules:\n- when: {team: a}\n", [(4, 3, "rules.0.set")]),
    "value of a rule": (
        HEAD + "rules:\n- when: {}\n  set: {queue: {priority: top}}\n",
        [(5, 27, "rules.0.set.queue.priority")],
    ),
    "time of day": (
        HEAD + "quiet_hours:\n- {from: '9:00', to: '17:00', zone: Europe/Berlin}\n",
        [(4, 10, "quiet_hours.0.from")],
    ),
    "zone of no place": (
        HEAD + "quiet_hours:\n- {from: '09:00', to: '17:00', zone: Europe/Bonn}\n",
        [(4, 38, "quiet_hours.0.zone")],
    ),
    "no hours at all": (
        HEAD + "quiet_hours:\n- {from: '09:00', to: '09:00', zone: UTC}\n",
        [(4, 3, "quiet_hours.0")],
    ),
    "lock of no key": (HEAD + "locked: [minimum_gain, max_delay]\n", [(3, 24, "locked")]),
    "extends nobody": (HEAD + "extends: balnced\n", [(3, 10, "extends")]),
    "extends itself": (HEAD + "extends: team-a\n", [(3, 10, "extends")]),
    "clusters as text": (HEAD + "clusters: {denied: paris}\n", [(3, 20, "clusters.denied")]),
    "two lines of description": (HEAD + 'description: "a\\nb"\n', [(3, 14, "description")]),
    "long description": (HEAD + f"description: {'x' * 201}\n", [(3, 14, "description")]),
    "a list": ("- name: a\n", [(1, 1, "the file")]),
    "a word": ("balanced\n", [(1, 1, "the file")]),
    "several at once": (
        "apiVersion: 1\nname: a\nminimum_gain: x\nsignal: {on_missing: hold}\n",
        [(1, 13, "apiVersion"), (3, 15, "minimum_gain"), (4, 22, "signal.on_missing")],
    ),
}


@pytest.mark.parametrize(("content", "expected"), WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_a_wrong_value_is_named_with_its_line_and_a_remedy(content, expected):
    found = problems(content)
    assert [(p.line, p.column, p.field) for p in found] == expected
    assert all(p.remedy and p.problem for p in found)
    assert str(found[0]).startswith(f"bad.yaml:{expected[0][0]}:{expected[0][1]}: {expected[0][2]} ")


# content -> line and column, and words of the message
NOT_PLAIN_YAML = {
    "nothing": (b"", (1, 1), "is empty"),
    "only comments": (b"# nothing\n\n", (1, 1), "is empty"),
    "open bracket": (b"name: [a\n", (2, 1), "is not YAML"),
    "two colons": (b"\nname: b: c\n", (2, 8), "is not YAML"),
    "open quote": (b"name: 'a\n", (2, 1), "is not YAML"),
    "bad indentation": (b"signal:\n   a: 1\n  b: 2\n", (3, 3), "is not YAML"),
    "tab": (b"signal:\n\ton_missing: fallback\n", (2, 1), "tab is used for indentation"),
    "duplicate key": (b"name: a\nminimum_gain: 0\nname: b\n", (3, 1), "given twice, first in line 1"),
    "second document": (b"name: a\n---\nname: b\n", (2, 1), "second document"),
    "alias": (b"a: &x 1\nb: *x\n", (2, 4), "is an alias"),
    "merge": (b"a: &x {b: 1}\nc:\n  <<: *x\n", (3, 7), "is an alias"),
    "tag": (b"a: !!python/object/apply:os.system [ls]\n", (1, 4), "is a tag"),
    "local tag": (b"a: !thing b\n", (1, 4), "is a tag"),
    "number as key": (b"1: a\n", (1, 1), "is not text"),
    "list as key": (b"? [a]\n: b\n", (1, 3), "is not text"),
    "not UTF-8": (b"name: a\ndescription: \xff\n", (2, 1), "is not UTF-8"),
    "UTF-16": ("name: a\n".encode("utf-16"), (1, 1), "is not UTF-8"),
    "control character": (b"name: a\ndescription: \x07\n", (2, 1), "U+0007"),
    "endless digits": (b"minimum_gain: " + b"9" * 5000, (1, 15), "too many digits"),
    "too large": (b"#" * (MAX_BYTES + 1), (1, 1), "larger than 64 KiB"),
    "deep lists": (b"a: " + b"[" * 60_000, (1, 4 + MAX_DEPTH - 1), "nested deeper"),
    "deep mappings": (b"{a: " * 15_000, (1, 4 * (MAX_DEPTH - 1) + 2), "nested deeper"),
    "deep blocks": (b"".join(b" " * n + b"a:\n" for n in range(60)), (MAX_DEPTH, MAX_DEPTH), "nested deeper"),
}


@pytest.mark.parametrize(("content", "place", "words"), NOT_PLAIN_YAML.values(), ids=NOT_PLAIN_YAML)
def test_what_is_not_plain_yaml_is_refused_at_its_place(content, place, words):
    (found,) = problems(content)
    assert words in str(found)
    assert (found.line, found.column) == place
    assert found.remedy


def test_aliases_that_would_multiply_are_refused_at_the_first_one():
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 40))
    (found,) = problems("l0: &l0 ha\n" + levels)
    assert (found.line, found.problem) == (2, "is an alias")


def test_words_that_yaml_1_1_turns_into_something_else_stay_text():
    (found,) = problems(HEAD + "signal: {on_missing: no}\n")
    assert "is 'no'" in found.problem
    (found,) = problems(HEAD + "flexibility: {max_delay: 18:00}\n")
    assert "is '18:00'" in found.problem


def test_a_misspelt_key_is_answered_with_the_likely_one():
    (found,) = problems(HEAD + "flexibility: {max_dely: 6h}\n")
    assert found.remedy.startswith("Did you mean max_delay? Known here: max_delay, max_delay_of_duration, declared, ")


def test_the_message_lists_every_problem_one_per_line():
    with pytest.raises(InvalidFile) as caught:
        parse_policy(b"apiVersion: 1\nname: a\nminimum_gain: x\n", "bad.yaml", preset)
    assert [line[:11] for line in str(caught.value).splitlines()] == ["bad.yaml:1:", "bad.yaml:3:"]
    assert caught.value.exit_code == 120


def test_a_message_never_floods_the_screen():
    with pytest.raises(InvalidFile) as caught:
        parse_policy((HEAD + "".join(f"key{n}: 1\n" for n in range(300))).encode(), "bad.yaml", preset)
    assert len(caught.value.problems) == 300
    assert str(caught.value).splitlines()[20:] == ["... and 280 more"]


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "with-bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert load_policy(path, preset).name == "team-a"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidFile, match=r"gone\.yaml: cannot be read: No such file or directory\. Check its path"):
        load_policy(tmp_path / "gone.yaml", preset)


def test_a_huge_file_is_refused_without_being_read_whole(tmp_path):
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(50 * 1024 * 1024 * 1024)  # sparse: reading it whole would take all memory
    with pytest.raises(InvalidFile, match="larger than 64 KiB"):
        load_policy(path, preset)
