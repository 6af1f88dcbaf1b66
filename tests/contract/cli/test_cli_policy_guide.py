"""The guide of policies/README.md, followed step by step from an empty folder against the real application."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from tests.fakes.served import TOKEN, served

__all__ = ["served"]

README = Path(__file__).resolve().parents[3] / "policies" / "README.md"
DIFFERS = 1


def guide() -> str:
    return (
        README.read_text(encoding="utf-8").partition("## From nothing to an applied policy\n")[2].partition("\n## ")[0]
    )


def test_the_guide_takes_a_team_from_nothing_to_an_applied_policy_and_back(shell, served, monkeypatch, tmp_path):
    monkeypatch.setenv("CARBON_SCHED_URL", served.url)
    monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, text in re.findall(r"`(\w+\.yaml)`:\n\n```yaml\n(.*?)```\n", guide(), re.DOTALL):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "train.py").write_text("print()\n", encoding="utf-8")
    ran_for_weeks(served)
    done = []
    for line in re.findall(r"^    (.+)$", guide(), re.MULTILINE):
        program, *words = shlex.split(line, comments=True)
        if program == "carbon-sched":
            code, out, err = shell(*words)
            done.append((words[1], code, out + err))
        elif program == "sed":
            subprocess.run([program, *words], check=True)
    assert {words: code for words, code, _ in done if code != 0} == {"diff": DIFFERS}
    told = [text for _, _, text in done]
    assert "acme is in force as version 1" in told[6]
    assert "acme@1:7" not in told[7]
    assert "flexibility.max_delay" in told[7]
    assert "on 1 jobs from" in told[9]
    assert "acme is in force as version 2" in told[10]
    assert "back to 1; results came too late" in told[-1]


def ran_for_weeks(served):
    """A job that ran, and time."""
    job = served.world.submit(name="nightly")
    served.world.settle()
    served.world.run_to_end(job, seconds=3600)
    served.world.settle()
    served.world.clock.pass_s(86_400 * 3)
