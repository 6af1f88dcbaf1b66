"""When a run last saved its state, by its files; and that a resumed one says when it has it back."""

from __future__ import annotations

import json
import os

import pytest

from carbon_sched_runtime import job, saved
from carbon_sched_runtime.records import parse_record

ATTEMPT = "cs-0123456789-a2"


def put(file, us):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("state")
    os.utime(file, ns=(1000 * us, 1000 * us))
    os.utime(file.parent, ns=(1000 * us, 1000 * us))


def test_the_newest_file_counts_however_deep_it_lies(tmp_path):
    put(tmp_path / "cs-j" / "checkpoint_1" / "state", 1_000_000)
    put(tmp_path / "cs-j" / "checkpoint_2" / "state", 3_000_000)
    put(tmp_path / "cs-j" / "progress", 2_000_000)
    put(tmp_path / "cs-other" / "state", 9_000_000)
    assert saved.newest_us(str(tmp_path), "cs-j") == 3_000_000


def test_what_a_run_writes_while_it_is_killed_is_no_state(tmp_path):
    put(tmp_path / "cs-j" / "a" / "state", 2_000_000)
    put(tmp_path / "cs-j" / "b" / "aborted", 5_000_000)
    os.utime(tmp_path / "cs-j", ns=(0, 0))
    assert saved.newest_us(str(tmp_path), "cs-j", until_us=4_000_000) == 2_000_000


@pytest.mark.parametrize("storage", ["", "s3://bucket/runs", "/nowhere"])
def test_of_a_storage_that_cannot_be_looked_at_nothing_is_said(storage):
    assert saved.newest_us(storage, "cs-j") is None


def test_of_a_state_in_very_many_files_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "MOST_FILES", 2)
    for name in "abc":
        put(tmp_path / "cs-j" / name, 1_000_000)
    assert saved.newest_us(str(tmp_path), "cs-j") is None


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A resumed attempt's record as its wrapper began it."""
    file = tmp_path / f"carbon-sched-{ATTEMPT}.record"
    line = {"v": 1, "event": "started", "attempt": ATTEMPT, "t": 1}
    file.write_text(json.dumps(line, separators=(",", ":")) + "\n")
    monkeypatch.setenv("CARBON_SCHED_JOURNAL_DIR", str(tmp_path))
    monkeypatch.setenv("CARBON_SCHED_ATTEMPT", ATTEMPT)
    monkeypatch.setenv("CARBON_SCHED_RESUMED", "1")
    monkeypatch.setattr(job, "_told", False)
    return file


def events(record):
    found = parse_record(record.read_bytes(), ATTEMPT)
    assert not found.problems
    return [event.event for event in found.events]


def test_the_first_word_of_a_resumed_run_counts_whoever_says_it(record, monkeypatch):
    job.restored()
    monkeypatch.setattr(job, "_told", False)  # another worker's process
    job.restored()
    assert events(record) == ["started", "resumed"]


def test_a_run_that_was_not_resumed_has_nothing_to_say(record, monkeypatch):
    monkeypatch.delenv("CARBON_SCHED_RESUMED")
    job.restored()
    assert events(record) == ["started"]


def test_a_word_that_cannot_be_written_is_told_and_harms_nothing(record, capsys):
    record.unlink()
    job.restored()
    assert "the attempt's record does not say `resumed`" in capsys.readouterr().err
