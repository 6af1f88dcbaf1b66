"""Secrets as they are given: what is understood, where paths lead, and that no error shows what stands behind `=`."""

from __future__ import annotations

import pytest

from carbon_sched.cli.job_source import read_job
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.options.given import Given
from carbon_sched.options.secrets import parse_secrets

SCRIPT = """\
# /// script
# [tool.carbon-sched]
# secret = {A = "file:a.txt", B = "env:B"}
# ///
"""


def test_lists_tables_and_a_single_text_are_understood():
    wanted = {"A": "file:/x=y", "B": "env:TOKEN"}
    assert parse_secrets("--secret", ["A=file:/x=y", "B=env:TOKEN"]) == wanted
    assert parse_secrets("secret", wanted) == wanted
    assert parse_secrets("secret", "B=env:TOKEN") == {"B": "env:TOKEN"}


@pytest.mark.parametrize(
    "value",
    [["A=hunter2"], ["hunter2"], ["=hunter2"], ["A=ftp:hunter2"], ["A=file:"], ["1A=file:hunter2"], {"A": "hunter2"},
     {"A": ["hunter2"]}, {"a b": "hunter2"}, 5, ["A=env:X", "A=env:hunter2"], {"hunter2 x": "env:A"}],
)  # fmt: skip
def test_a_secret_given_in_clear_is_refused_and_not_shown(value):
    with pytest.raises(InvalidInput) as caught:
        parse_secrets("secret (job.yaml, line 3)", value)
    assert "hunter2" not in str(caught.value) + caught.value.value
    assert caught.value.field == "secret (job.yaml, line 3)"
    assert caught.value.remedy


def test_flags_win_name_by_name_and_paths_are_meant_from_where_they_stand(tmp_path, monkeypatch):
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "job.yaml").write_text("script: train.py\nsecret: [C=file:c.txt, B=env:OTHER]\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    flags = {"secret": Given(["D=file:d.txt", "E=file:~/e"], "--secret")}
    source = read_job([], is_command=False, flags=flags, environment={}, file="job/job.yaml")
    assert source.options["secret"].value == {
        "A": f"file:{folder}/a.txt", "B": "env:OTHER", "C": f"file:{folder}/c.txt",
        "D": f"file:{tmp_path}/d.txt", "E": "file:/home/ada/e",
    }  # fmt: skip
