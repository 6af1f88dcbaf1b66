"""`carbon-sched submit` against a loopback server: what is sent, what is printed where, and the exit code."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import pytest

from carbon_sched.client import Client
from tests.fakes.api_views import (
    AT,
    attempt_view,
    candidate_view,
    decision_view,
    job_view,
    problem,
    receipt_view,
)

ID = "0123456789"
ENDED = {"cluster": "north", "finished_at": AT, "attempts": [attempt_view()]}


# submit ---------------------------------------------------------------------------------------------------------------


def test_no_wait_prints_the_id_and_nothing_else(api, shell):
    code, out, err = shell("submit", "--name", "bert", "--no-wait", "train.py", "a b", "--lr=1")
    assert (code, out) == (0, "0000000000\n")
    assert "carbon-sched logs -f 0000000000" in err
    asked, call = api.made("POST", "/v1/jobs")
    assert asked.body == call.body
    (sha256, content), *others = api.bundles.items()
    assert others == []
    assert call.json() == {"entrypoint": "python train.py 'a b' --lr=1", "name": "bert", "bundle_sha256": sha256}
    assert zipfile.ZipFile(io.BytesIO(content)).read("train.py") == b"print('hello')\n"


def test_what_the_server_has_is_not_sent_again_and_every_submission_has_its_key(api, shell):
    for _ in range(2):
        shell("submit", "--no-wait", "train.py")
    assert [call.method for call in api.calls if call.path != "/healthz"] == ["POST", "PUT", "POST", "POST"]
    keys = [call.headers["idempotency-key"] for call in api.made("POST", "/v1/jobs")]
    assert len(set(keys)) == 2
    assert all(len(key) == 32 for key in keys)


def test_an_array_is_one_job_for_each_line_under_keys_of_one_array(api, shell, tmp_path):
    lines = tmp_path / "sweep.txt"
    lines.write_text("--lr 0.1\n\n# the slow one\n--lr 0.01 --name 'a b'\n")
    code, out, err = shell("submit", "--array", str(lines), "--name", "sweep", "train.py", "--epochs", "3")
    assert (code, len(out.split())) == (0, 2)
    assert "submitted 2 jobs" in err
    lacking, *calls = api.made("POST", "/v1/jobs")
    assert lacking.headers["idempotency-key"] == calls[0].headers["idempotency-key"], "once more, with its files"
    assert [call.json()["entrypoint"] for call in calls] == [
        "python train.py --epochs 3 --lr 0.1", "python train.py --epochs 3 --lr 0.01 --name 'a b'",
    ]  # fmt: skip
    (one, two) = (call.headers["idempotency-key"].rpartition("-") for call in calls)
    assert (one[0], one[2], two[2]) == (two[0], "0", "1")
    assert calls[1].json()["metadata"] == {"array": one[0], "array-line": "1"}
    assert sum(call.method == "PUT" for call in api.calls) == 1, "its files are sent once"


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"\xff"])
def test_an_array_without_lines_is_refused_and_submits_nothing(api, shell, tmp_path, content):
    if content is not None:
        (tmp_path / "sweep.txt").write_bytes(content)
    code, out, err = shell("submit", "--array", str(tmp_path / "sweep.txt"), "train.py")
    assert (code, out) == (120, "")
    assert "--array" in err
    assert not api.made("POST", "/v1/jobs")


def test_a_command_stands_behind_two_dashes(api, shell):
    assert shell("submit", "--no-wait", "--", "torchrun", "--n=2", "x y.py")[0] == 0
    assert shell("submit", "--no-wait", "train.py", "--", "x")[0] == 0
    requests = [call.json()["entrypoint"] for call in api.made("POST", "/v1/jobs")]
    assert requests == ["torchrun --n=2 'x y.py'", *["python train.py -- x"] * 2]


def test_an_attached_job_prints_its_own_output_to_stdout_and_all_else_to_stderr(api, shell):
    text = "step 1\nGr\u00fc\u00dfe \x00\x01 without end"
    api.tell(job_view(), job_view(state="running"), job_view(state="succeeded", exit_code=0, **ENDED), text=text)
    code, out, err = shell("submit", "train.py")
    assert (code, out) == (0, text)
    for words in ("submitted train.py as 0123456789", "Decision", "=>  north", "Receipt", "ESTIMATED", "26.4 mg"):
        assert words in err
    assert max(map(len, err.splitlines())) <= 80


def test_a_follower_is_told_where_another_attempt_begins(api, shell):
    api.tell(job_view(state="running"), job_view(state="succeeded", exit_code=0, **ENDED))
    api.logs[ID] = [
        {"attempt": 1, "text": "half of it\n", "next_offset": 11, "final": False},
        {"attempt": 2, "text": "all\n", "next_offset": 4, "final": False},
        {"attempt": 2, "text": "of it\n", "next_offset": 10, "final": False},
    ]
    _, out, err = shell("submit", "train.py")
    assert out == "half of it\nall\nof it\n"
    assert err.count("attempt 2 begins") == err.count("begins") == 1


@pytest.mark.parametrize(
    ("end", "wanted", "words"),
    [
        ({"state": "succeeded", "exit_code": 0}, 0, ""),
        ({"state": "failed", "exit_code": 3}, 3, "failed with exit code 3"),
        ({"state": "failed", "exit_code": 4, "reason": "exited with code 4"}, 4, "failed with exit code 4\n"),
        ({"state": "failed", "exit_code": 127}, 127, "failed with exit code 127"),
        ({"state": "failed", "exit_code": -9}, 137, "failed with exit code -9"),
        ({"state": "failed", "exit_code": None, "reason": "pip failed"}, 124, "without an exit code: pip failed"),
        ({"state": "stopped", "exit_code": None}, 121, "was stopped"),
        ({"state": "stopped", "exit_code": 143}, 143, "stopped with exit code 143"),
        ({"state": "lost", "exit_code": None, "reason": "no answer"}, 124, "was lost: no answer"),
        ({"state": "refused", "reason": "needs 64 GPUs", "attempts": []}, 120, "was refused: needs 64 GPUs"),
    ],
)
def test_the_exit_code_is_the_jobs_or_one_of_ours(api, shell, end, wanted, words):
    api.tell(job_view(), job_view(**(ENDED | end)), text="")
    code, _, err = shell("submit", "train.py")
    assert code == wanted
    assert words in err


def test_ctrl_c_detaches_and_says_how_to_come_back(api, shell, monkeypatch):
    api.tell(job_view(), job_view(state="running"))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "logs", interrupted)
    code, _, err = shell("submit", "train.py")
    assert code == 130
    assert f"carbon-sched wait --logs {ID}" in err
    assert f"carbon-sched stop {ID}" in err
    assert api.made("POST", f"/v1/jobs/{ID}/stop") == []


def test_ctrl_c_elsewhere_is_quiet(api, shell, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "jobs", interrupted)
    assert shell("list") == (130, "", "\n")


def test_a_delayed_job_says_who_keeps_it_and_shows_when_it_starts(api, shell):
    decision = decision_view(
        verdict="delay", start="2099-01-01T00:00:00Z", candidates=[candidate_view(start="2099-01-01T00:00:00Z")]
    )
    waiting = job_view(planned_start="2099-01-01T00:00:00Z")
    api.tell(waiting, waiting, job_view(state="succeeded", exit_code=0, **ENDED), decision=decision)
    code, _, err = shell("submit", "--max-delay", "6h", "train.py")
    assert code == 0
    assert "Decision  waits until" in err
    assert "this machine may be switched off" in err
    assert api.made("POST", "/v1/jobs")[0].json()["max_delay_s"] == 21_600


def test_a_job_that_is_held_is_explained_once_and_its_place_shown_later(api, shell):
    api.tell(
        *[job_view(reason="waits")] * 4, job_view(state="succeeded", exit_code=0, **ENDED), text="x",
        decision=decision_view(verdict="hold", cluster=None, start=None, candidates=[], reason="waits: no answer"),
    )  # fmt: skip
    _, _, err = shell("submit", "train.py")
    assert err.count("waits: no answer") == 1


def test_who_waits_for_a_plan_that_cannot_be_made_is_told_why_once(api, shell):
    trouble = job_view(reason="no plan can be made: a bug", cause="planning-failed")
    api.tell(job_view(), trouble, trouble, job_view(state="refused", reason="gave up", finished_at=AT))
    api.decisions.clear()
    code, _, err = shell("submit", "train.py")
    assert code == 120
    assert err.count("no plan can be made: a bug") == 1


def test_a_world_average_is_pointed_out_with_the_remedy(api, shell):
    api.tell(
        job_view(), job_view(state="succeeded", exit_code=0, **ENDED),
        decision=decision_view(candidates=[candidate_view(grade="F-world-year", zone="WORLD")]),
    )  # fmt: skip
    _, _, err = shell("submit", "train.py")
    assert "carbon-sched clusters add north --replace --local --home --zone ZONE" in err


def test_a_receipt_is_waited_for_until_it_is_final(api, shell, monkeypatch):
    monkeypatch.setattr("carbon_sched.cli.follow.RECEIPT_POLL_S", 0.0)
    api.tell(job_view(), job_view(state="succeeded", exit_code=0, **ENDED))
    api.receipts[ID] = [receipt_view(final=False), receipt_view(final=False), receipt_view()]
    _, _, err = shell("submit", "train.py")
    assert "not final" not in err
    monkeypatch.setattr("carbon_sched.cli.follow.RECEIPT_S", -1.0)
    api.receipts[ID] = [receipt_view(final=False, missing=["segment 3 of m1"])]
    _, _, err = shell("wait", "--logs", ID)
    assert "not final" in err
    assert "segment 3 of m1" in err
    assert f"carbon-sched receipt {ID}" in err


def test_a_dry_run_shows_the_decision_and_stores_nothing(api, shell):
    code, out, err = shell("submit", "--dry-run", "train.py")
    assert code == 0
    assert "=>  north" in out
    assert "nothing was submitted" in err
    assert (api.jobs, api.bundles) == ({}, {})
    _, out, _ = shell("submit", "--dry-run", "--json", "train.py")
    assert json.loads(out)["verdict"] == "place"


def test_json_of_a_submission(api, shell):
    _, out, _ = shell("submit", "--no-wait", "--json", "train.py")
    assert json.loads(out)["job_id"] == "0000000000"
    code, out, err = shell("submit", "--json", "train.py")
    assert (code, out) == (120, "")
    assert "--no-wait, --array, --every or --dry-run" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--deadline", "soon", "train.py"], "--deadline: 'soon' is not a time. Use 18:00"),
        (["--duration", "nan", "train.py"], "--duration: 'nan' is not a duration"),
        (["--phase", "training", "train.py"], "Use one of: pretraining, finetuning"),
        (["--address", "http://x", "train.py"], "carbon-sched clusters add NAME --address URL"),
        (["--submission-id", "x", "train.py"], "give the job a --name"),
        (["--nme", "x", "train.py"], "No such option '--nme'"),
        (["missing.py"], "script: 'missing.py' cannot be read (No such file or directory)"),
        (["python", "train.py"], "carbon-sched submit -- python train.py"),
        (["--working-dir", "none", "train.py"], "working-dir: 'none' is not a folder"),
        (["--runtime-env-json", "{", "train.py"], "--runtime-env-json: '(not shown)' is not JSON"),
        ([], "submit job.py"),
    ],
)
def test_bad_input_is_refused_with_a_remedy_before_anything_is_sent(api, shell, arguments, words):
    code, out, err = shell("submit", *arguments)
    assert (code, out) == (120, "")
    assert words in err
    assert api.calls == []


def test_flags_behind_the_script_are_the_scripts_but_odd_ones_are_pointed_out(api, shell):
    _, _, err = shell("submit", "--no-wait", "train.py", "--name", "x", "--deadline", "18:00")
    assert "--deadline stands behind the script" in err
    assert api.made("POST", "/v1/jobs")[0].json()["entrypoint"] == "python train.py --name x --deadline 18:00"


def test_what_the_server_refuses_is_told_in_its_words(api, shell):
    api.refuse = problem(
        "invalid-input", 400, 120, "cluster: 'x' is not configured. Use one of: local", field="cluster"
    )
    assert shell("submit", "--no-wait", "--cluster", "x", "train.py")[::2] == (
        120,
        "error: cluster: 'x' is not configured. Use one of: local\n",
    )
    assert api.bundles == {}, "nothing was sent for nothing"


def test_modules_of_this_machine_travel_as_bundles_of_their_own(api, shell, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("X = 1\n", encoding="utf-8")
    (tmp_path / "lib" / "large.bin").write_text("x", encoding="utf-8")
    (tmp_path / "one.py").write_text("Y = 2\n", encoding="utf-8")
    (tmp_path / "own-1.0-py3-none-any.whl").write_bytes(b"a wheel")
    modules = ["lib", "one.py", "own-1.0-py3-none-any.whl", "s3://b/remote.zip"]
    given = json.dumps({"py_modules": modules, "excludes": ["*.bin", "*.whl"]})
    assert shell("submit", "--no-wait", "--runtime-env-json", given, "train.py")[0] == 0
    request = api.made("POST", "/v1/jobs")[0].json()
    assert "excludes" not in request["runtime_env"]
    lib, one, wheel, remote = request["runtime_env"]["py_modules"]
    assert remote == "s3://b/remote.zip"
    assert wheel == f"bundle://{hashlib.sha256(b'a wheel').hexdigest()}/own-1.0-py3-none-any.whl"

    def content(sha256: str) -> list[str]:
        with zipfile.ZipFile(io.BytesIO(api.bundles[sha256])) as archive:
            return archive.namelist()

    assert content(lib.removeprefix("bundle://")) == ["lib/__init__.py"]
    assert content(one.removeprefix("bundle://")) == ["one.py"]
    assert {"lib/large.bin", "own-1.0-py3-none-any.whl"} & set(content(request["bundle_sha256"])) == set()

    assert shell("submit", "--dry-run", "--runtime-env-json", given, "train.py")[0] == 0
    assert api.made("POST", "/v1/jobs")[-1].json()["runtime_env"]["py_modules"] == ["s3://b/remote.zip"]


def test_no_room_for_the_zip(api, shell, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/proc/none")
    code, _, err = shell("submit", "--no-wait", "train.py")
    assert code == 120
    assert "TMPDIR: '/proc/none' cannot hold the zip" in err
    assert api.calls == []


def test_ctrl_c_while_submitting_does_not_pretend_to_know(api, shell, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "submit", interrupted)
    code, _, err = shell("submit", "train.py")
    assert code == 130
    assert "may have been accepted" in err


def test_a_changed_plan_is_one_line_and_another_cluster_a_table(api, shell, monkeypatch):
    plans = [
        decision_view(verdict="delay", start="2099-01-01T00:00:00Z", reason="waits for the sun"),
        decision_view(reason="starts now on north"),
        decision_view(cluster="south", reason="starts now on south"),
    ]
    api.tell(*[job_view(reason=str(n)) for n in range(4)], job_view(state="succeeded", exit_code=0, **ENDED), text="x")
    queued = iter([*plans, plans[-1], plans[-1]])
    monkeypatch.setattr(Client, "decision", lambda *_: next(queued))
    _, _, err = shell("submit", "train.py")
    assert err.count("Decision  ") == 2
    assert "\nstarts now on north\n" in err


def test_the_zip_is_gone_before_the_job_is_followed(api, shell, monkeypatch, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    left = []
    monkeypatch.setattr("carbon_sched.cli.follow.attach", lambda *_: left.extend(scratch.iterdir()) or 0)
    assert shell("submit", "train.py")[0] == 0
    assert len(api.bundles) == 1
    assert left == []
