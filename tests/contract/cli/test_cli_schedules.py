"""`carbon-sched submit --every` and `carbon-sched schedules` against the real application."""

from __future__ import annotations

import json

import pytest

from carbon_sched.client import Client
from carbon_sched.domain.errors import NotFound
from tests.fakes.served import TOKEN, served

__all__ = ["served"]


@pytest.fixture
def folder(served, monkeypatch, tmp_path):
    """A script in the folder where the shell stands, whose user lives in Berlin."""
    monkeypatch.setenv("CARBON_SCHED_URL", served.url)
    monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    folder = tmp_path / "shell"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "train.py").write_text("print()\n", encoding="utf-8")
    return folder


def every(shell, *more):
    code, out, err = shell("submit", "--every", "30 2 * * *", "--name", "nightly", *more, "train.py", "--epochs", "3")
    assert code == 0, err
    return out.strip()


def test_a_schedule_from_its_beginning_to_its_end(shell, folder, served):
    schedule = every(shell)
    (view,) = json.loads(shell("schedules", "list", "--json")[1])
    assert (view["schedule_id"], view["name"], view["zone"]) == (schedule, "nightly", "Europe/Berlin")
    assert "nightly" in shell("schedules", "list")[1]

    served.world.clock.pass_s(86_400)
    served.world.schedules.step()
    (job,) = served.client.jobs()["jobs"]
    assert (job["name"], job["entrypoint"]) == ("nightly", "python train.py --epochs 3")
    assert job["metadata"]["schedule"] == schedule

    code, _, err = shell("schedules", "stop", schedule)
    assert (code, "submitted no more" in err) == (0, True)
    assert json.loads(shell("schedules", "list", "--json")[1]) == []
    assert "nothing is scheduled" in shell("schedules", "list")[2]


def test_the_zone_that_is_given_is_the_one_that_counts(shell, folder):
    every(shell, "--tz", "America/New_York")
    (view,) = json.loads(shell("schedules", "list", "--json")[1])
    assert view["zone"] == "America/New_York"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--every", "30 2 * *"), "5 fields"),
        (("--every", "30 2 * * *", "--tz", "Berlin"), "time zone"),
        (("--every", "30 2 * * *", "--dry-run"), "--dry-run"),
        (("--every", "30 2 * * *", "--deadline", "+6h"), "deadline"),
        (("--tz", "UTC"), "needs --every"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_kept(shell, folder, words, said):
    code, out, err = shell("submit", *words, "train.py")
    assert (code, out) == (120, "")
    assert said in err
    assert json.loads(shell("schedules", "list", "--json")[1]) == []


def test_another_team_neither_sees_nor_stops_it(shell, folder, served):
    schedule = every(shell, "--team", "vision")
    with Client(served.url, served.token("submitter", ["nlp"])) as other:
        assert other.schedules() == []
        with pytest.raises(NotFound):
            other.stop_schedule(schedule)
    assert len(served.client.schedules()) == 1
