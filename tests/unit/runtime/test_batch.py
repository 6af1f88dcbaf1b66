"""Batches that stop between shards: each item once, whatever is killed when."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from carbon_sched import batch
from carbon_sched_runtime.batch_file import BatchState, batch_name, format_batch, parse_batch
from carbon_sched_runtime.fields import WireError
from tests.fakes.wrapped import RUNTIME

ATTEMPT = "cs-0123456789-a1"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A job's environment; the folder where its journal lies."""
    journal = tmp_path / "journal"
    journal.mkdir()
    monkeypatch.setenv("CARBON_SCHED_RUN_NAME", "cs-0123456789")
    monkeypatch.setenv("CARBON_SCHED_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("CARBON_SCHED_ATTEMPT", ATTEMPT)
    monkeypatch.setenv("CARBON_SCHED_JOURNAL_DIR", str(journal))
    monkeypatch.setattr("carbon_sched_runtime.job._watching", True)
    return journal


def told(journal):
    return parse_batch((journal / batch_name(ATTEMPT)).read_bytes(), ATTEMPT)


def test_shards_cover_the_items_in_order_and_their_rows_are_the_results(run):
    seen = []
    for shard in batch.shards(["a", "b", "c", "d", "e"], size=2):
        seen.append((shard.number, list(shard.items)))
        shard.save([item.upper() for item in shard.items])
    assert seen == [(0, ["a", "b"]), (1, ["c", "d"]), (2, ["e"])]
    assert list(batch.results()) == ["A", "B", "C", "D", "E"]
    assert (told(run).done, told(run).total) == (5, 5)


def test_another_attempt_does_what_is_missing_and_no_more(run):
    items = list(range(10))
    for shard in batch.shards(items, size=3):
        shard.save(list(shard.items))
        if shard.number == 1:
            break
    assert told(run).done == 3  # the loop was left before it was told of the second one, which is there all the same
    rest = []
    for shard in batch.shards(items, size=3):
        rest += shard.items
        shard.save(list(shard.items))
    assert rest == [6, 7, 8, 9]
    assert list(batch.results()) == items


def test_a_shard_that_was_killed_while_it_was_written_is_done_anew(run):
    first = next(batch.shards(["x", "y"], size=2))
    first.draft.write_text('"half of')
    (again,) = [shard for shard in batch.shards(["x", "y"], size=2) if not shard.save(shard.items)]
    assert again.number == 0
    assert list(batch.results()) == ["x", "y"]


def test_what_a_library_writes_is_a_shard_once_it_says_so(run):
    for shard in batch.shards([1, 2], size=1):
        shard.draft.mkdir()
        (shard.draft / "part.parquet").write_bytes(b"PAR1")
        shard.done()
    assert sorted(path.name for path in batch.folder().glob("shard-*/*")) == ["part.parquet"] * 2
    assert told(run).done == 2


def test_a_stop_ends_the_process_between_two_shards(run, monkeypatch):
    pending = batch.shards([1, 2], size=1)
    next(pending).save([1])
    monkeypatch.setattr("carbon_sched_runtime.job.stop_asked", lambda: True)
    with pytest.raises(SystemExit) as ended:
        next(pending)
    assert ended.value.code == 143
    assert told(run).done == 1


def test_other_items_or_another_size_are_refused_in_the_same_folder(run):
    list_of = ["a", "b"]
    next(batch.shards(list_of, size=1)).save(["A"])
    with pytest.raises(ValueError, match=r"size 1 \(now 2\)"):
        batch.shards(list_of, size=2)
    with pytest.raises(ValueError, match="sha256"):
        batch.shards(["b", "a"], size=1)


@pytest.mark.parametrize(
    ("items", "size", "words"), [([1], 0, "size is 0"), ([1, object()], 1, "item 1 is no value that JSON can hold")]
)
def test_what_makes_no_batch_is_refused_by_name(run, items, size, words):
    with pytest.raises(ValueError, match=words):
        batch.shards(items, size=size)


def test_a_shard_that_is_not_saved_is_not_passed_over(run):
    with pytest.raises(RuntimeError, match="shard 0 was not saved"):
        list(batch.shards([1, 2], size=1))


def test_outside_of_a_job_a_run_begins_anew_unless_it_is_told_where_to_go_on(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("carbon_sched_runtime.job._watching", True)
    for _ in range(2):
        done = [shard.number for shard in batch.shards([1, 2], size=1) if not shard.save(shard.items)]
        assert done == [0, 1]
    out = tmp_path / "kept"
    assert [shard.number for shard in batch.shards([1, 2], size=1, out=out) if not shard.save(shard.items)] == [0, 1]
    assert list(batch.shards([1, 2], size=1, out=out)) == []
    assert list(batch.results(out)) == [1, 2]


def test_sigterm_is_heard_between_shards_and_the_rest_is_done_by_the_next_process(tmp_path):
    script = """
import sys
from carbon_sched_runtime import batch
for shard in batch.shards(list(range(6)), size=2, out=sys.argv[1]):
    print(shard.number, flush=True)
    sys.stdin.readline()
    shard.save(shard.items)
print("done", sum(batch.results(sys.argv[1])))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    first = subprocess.Popen(
        command, env={"PYTHONPATH": str(RUNTIME)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "0\n"
    first.send_signal(signal.SIGTERM)
    first.communicate("\n", timeout=30)
    assert first.returncode == 143
    second = subprocess.run(
        command, env={"PYTHONPATH": str(RUNTIME)}, input="\n\n", capture_output=True, text=True, check=True, timeout=30
    )
    assert second.stdout.split() == ["1", "2", "done", "15"]


GOOD = BatchState(ATTEMPT, done=5, total=9, start_us=10, end_us=20)


def test_the_state_is_read_as_it_was_written():
    assert parse_batch(format_batch(GOOD), ATTEMPT) == GOOD


@pytest.mark.parametrize(
    "change",
    [{"done": 10}, {"t1": 9}, {"attempt": "cs-other-a1"}, {"v": 2}, {"total": -1}, {"more": 1}, {"done": True}],
)
def test_a_state_that_cannot_be_is_refused(change):
    line = json.dumps(json.loads(format_batch(GOOD)) | change).encode() + b"\n"
    with pytest.raises(WireError):
        parse_batch(line, ATTEMPT)


@pytest.mark.parametrize("data", [b"", b"{}", b"{" * 2000 + b"\n", "é\n".encode(), format_batch(GOOD)[:-1]])
def test_bytes_that_are_no_state_are_refused(data):
    with pytest.raises(WireError):
        parse_batch(data, ATTEMPT)
