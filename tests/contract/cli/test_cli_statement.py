"""`audit statement` and `audit declare` against the real application, and offline."""

from __future__ import annotations

import json

import pytest

from tests.fakes.served import TOKEN, served

__all__ = ["served"]

DECLARATION = """
organisation: Example Research
accountable: Ada
boundary: All jobs
clusters:
  local:
    scope: own
    instruments:
      - {kind: ppa, name: Wind, share: 0.25, g_per_kwh: 12.5, since: 2026-01-01, until: 2027-01-01, source: contract}
offsets:
  - {kind: offset, name: Peat, tonnes: 1.5, source: registry}
"""


@pytest.fixture
def team(served, monkeypatch, tmp_path):
    """A server with two jobs, and a shell beside it."""
    monkeypatch.setenv("CARBON_SCHED_URL", served.url)
    monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    served.client.submit({"entrypoint": "true", "name": "one", "team": "nlp"}, idempotency_key="a")
    served.client.submit({"entrypoint": "true", "name": "zebra", "team": "vision"}, idempotency_key="b")
    return served


@pytest.mark.parametrize("form", ["text", "markdown", "html", "json", "jsonl", "csv"])
def test_a_copy_gives_the_very_bytes_that_the_server_gives(shell, team, monkeypatch, form):
    shell("audit", "export", "-o", "ledger.jsonl")
    selected = ("audit", "statement", "--job", "one", "--period", "2020-01-01..2040-01-01", "--format", form)
    code, online, _ = shell(*selected)
    monkeypatch.setenv("CARBON_SCHED_URL", "http://127.0.0.1:9")
    assert (code, shell(*selected, "--export", "ledger.jsonl")[1]) == (0, online)
    assert "zebra" not in online


def test_the_files_ending_says_the_format(shell, team, tmp_path):
    for name, begins in (
        ("a.html", b"<!doctype html>"),
        ("a.md", b"# Statement"),
        ("a.pdf", b"%PDF-"),
        ("a.json", b"{"),
    ):
        assert shell("audit", "statement", "-o", name)[0] == 0
        assert (tmp_path / name).read_bytes().startswith(begins)


def test_what_was_declared_holds_from_then_on(shell, team, tmp_path):
    (tmp_path / "org.yaml").write_text(DECLARATION, encoding="utf-8")
    assert shell("audit", "declare", "org.yaml")[0] == 0
    said = json.loads(shell("audit", "statement", "--format", "json")[1])
    assert said["boundary"]["organisation"] == "Example Research"
    assert said["boundary"]["declared_by"].startswith("person-")
    assert [(one["co2e_ug"], one["energy_uj"]) for one in said["offsets"]] == [(1_500_000_000_000, None)]
    entries = [json.loads(line)["payload"] for line in team.client.entry_lines()]
    (fact,) = [entry["body"] for entry in entries if entry["kind"] == "declaration-made"]
    (instrument,) = fact["clusters"]["local"]["instruments"]
    assert (instrument["share_ppm"], instrument["mg_per_kwh"]) == (250_000, 12_500)
    assert (instrument["since"], instrument["until"]) == ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("scope: own", "scope: mine", "clusters.local.scope: 'mine'"),
        ("share: 0.25", "share: 2", "share"),
        ("until: 2027-01-01", "until: 2025-01-01", "until is not after since"),
        ("organisation:", "organization:", "organization"),
        ("organisation: Example", "organisation: [", "is no YAML"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(shell, team, tmp_path, old, new, said):
    (tmp_path / "org.yaml").write_text(DECLARATION.replace(old, new), encoding="utf-8")
    code, _, err = shell("audit", "declare", "org.yaml")
    assert (code, said in err) == (120, True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--period", "2026-13"), 120),
        (("--period", "November"), 120),
        (("--period", "2026-02-01..2026-01-01"), 120),
        (("--job", "nobody"), 121),
        (("--export", "gone.jsonl"), 120),
        (("--format", "docx"), 120),
        (("--output", "november.docx"), 120),
        (("--output", "gone/november.html"), 120),
    ],
)
def test_wrong_options_are_told(shell, team, arguments, code):
    got, _, err = shell("audit", "statement", *arguments)
    assert (got, "Traceback" in err) == (code, False)


def test_a_copy_knows_jobs_as_the_server_does(shell, team):
    team.client.submit({"entrypoint": "true", "name": "one"}, idempotency_key="c")
    shell("audit", "export", "-o", "ledger.jsonl")
    for name, said in (("nobody", "has the id or name 'nobody'"), ("one", "several jobs are called 'one'")):
        for where in ((), ("--export", "ledger.jsonl")):
            code, out, err = shell("audit", "statement", "--job", name, *where)
            assert (code, out, said in err) == (121, "", True)


def test_a_selection_that_holds_nothing_says_so(shell, team):
    code, out, _ = shell("audit", "statement", "--team", "nlpp")
    assert code == 0
    assert out.splitlines()[1].startswith("team nlpp (no job matches), from the beginning to now")


def test_an_edited_copy_gives_no_statement(shell, team, tmp_path):
    shell("audit", "export", "-o", "ledger.jsonl")
    copy = tmp_path / "ledger.jsonl"
    copy.write_bytes(copy.read_bytes().replace(b"nlp", b"npl", 1))
    code, out, err = shell("audit", "statement", "--export", "ledger.jsonl")
    assert (code, out) == (126, "")
    assert "does not continue the chain" in err
