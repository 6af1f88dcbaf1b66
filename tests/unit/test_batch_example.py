"""The example of batch inference, run as its page says without carbon-sched, killed and run again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.wrapped import RUNTIME

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "batch_inference" / "answer.py"
DOCUMENTS = 24


@pytest.fixture
def begin(tmp_path):
    def start(*more):
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), "--documents", str(DOCUMENTS), "--size", "8", "--out", str(tmp_path), *more],
            env={"PYTHONPATH": str(RUNTIME)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


def test_every_document_is_scored_once_though_the_first_process_is_killed(begin, tmp_path):
    first = begin("--pause", "600")
    assert first.stderr.readline().startswith("shard 0")
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    out, told = begin().communicate(timeout=60)
    assert [line.split(":")[0] for line in told.splitlines()] == ["shard 1", "shard 2"]
    assert out.startswith(f"{DOCUMENTS} documents; the strangest is ")
    rows = [json.loads(line) for path in sorted(tmp_path.glob("shard-*")) for line in path.read_text().splitlines()]
    names = [row["document"] for row in rows]
    assert names == sorted(set(names))
    assert len(names) == DOCUMENTS
    assert all(0 < row["bits_per_character"] < 10 for row in rows)
