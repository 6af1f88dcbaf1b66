"""`audit seal` and `audit verify --checkpoint FILE` against the real application."""

from __future__ import annotations

import json

import pytest

from tests.fakes.served import TOKEN, served

__all__ = ["served"]


@pytest.fixture
def sealed(served, monkeypatch, tmp_path):
    """A server with a sealed ledger, and a shell beside it."""
    monkeypatch.setenv("CARBON_SCHED_URL", served.url)
    monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    for key in "ab":
        served.client.submit({"entrypoint": "true"}, idempotency_key=key)
        served.sealing.step()
    return served


def test_a_copy_is_checked_against_seals_without_the_server(shell, sealed, monkeypatch, tmp_path):
    shell("audit", "export", "-o", "ledger.jsonl")
    key = json.loads(shell("audit", "seal", "--json")[1])["key"]
    (tmp_path / "mine.jsonl").write_text(shell("audit", "seal")[1], encoding="utf-8")
    monkeypatch.setenv("CARBON_SCHED_URL", "http://127.0.0.1:9")
    for seals in ("seals.jsonl", "mine.jsonl"):
        code, _, err = shell("audit", "verify", "--file", "ledger.jsonl", "--checkpoint", seals, "--key", key)
        assert (code, err) == (0, "")
    code, _, err = shell("audit", "verify", "--file", "ledger.jsonl", "--checkpoint", "seals.jsonl")
    assert (code, key in err) == (0, True)


def test_a_ledger_that_was_cut_off_does_not_meet_its_seals(shell, sealed, tmp_path):
    shell("audit", "export", "-o", "ledger.jsonl")
    lines = (tmp_path / "ledger.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "ledger.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    assert shell("audit", "verify", "--file", "ledger.jsonl")[0] == 0
    code, _, err = shell("audit", "verify", "--file", "ledger.jsonl", "--checkpoint", "seals.jsonl")
    assert code == 126
    assert f"a checkpoint names {len(lines)} entries" in err


def test_seals_of_others_and_what_is_no_seal_are_refused(shell, sealed, tmp_path):
    stranger = "ed25519:" + "A" * 43 + "="
    code, _, err = shell("audit", "verify", "--checkpoint", "seals.jsonl", "--key", stranger)
    assert (code, "was made by another key" in err) == (120, True)
    assert shell("audit", "verify", "--checkpoint", "seals.jsonl", "--key", "mine")[0] == 120
    assert shell("audit", "verify", "--checkpoint", "gone.jsonl")[0] == 120
    code, _, err = shell("audit", "verify", "--key", stranger)
    assert (code, "no file of them is given" in err) == (120, True)
    (tmp_path / "bad.jsonl").write_text("{}\n", encoding="utf-8")
    assert shell("audit", "verify", "--checkpoint", "bad.jsonl")[0] == 120


def test_an_erased_person_stays_a_pseudonym_and_the_ledger_verifies(shell, sealed):
    owner = sealed.client.session()["name"]
    code, _, err = shell("audit", "erase", owner)
    assert (code, "has jobs that have not ended" in err) == (121, True)
    for job in sealed.client.jobs()["jobs"]:
        sealed.client.stop(job["job_id"])
    code, _, err = shell("audit", "erase", owner)
    assert (code, "the ledger knows only person-1" in err) == (0, True)
    assert shell("audit", "verify", "--checkpoint", "seals.jsonl")[0] == 0
    assert {job["submitter"] for job in sealed.client.jobs()["jobs"]} == {"person-1"}
    assert shell("audit", "erase", owner)[0] == 121
