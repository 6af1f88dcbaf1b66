"""Batch inference on two real Ray heads under a series whose hours are short, killed and resumed twice."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from carbon_sched_runtime.batch import STOPPED
from tests.e2e.conftest import installed_in
from tests.fakes.real_server import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "batch_inference" / "answer.py"
DOCUMENTS, SIZE = 48, 2
PATIENCE_S = 300.0
"""24 shards rest 3 s each; of Ray Data an attempt's first dataset took 106 s on a busy machine, others 3 s."""


def series(folder: Path, begin: datetime) -> dict:
    """Grids whose hour lasts ten seconds: both move, and change places every half minute."""
    steps = range(0, 1800, 10)
    clean, dirty = [100 + second // 10 % 7 for second in steps], [600 + second // 10 % 5 for second in steps]
    for zone, turn in (("NO", 0), ("DE", 1)):
        values = [(clean, dirty)[(second // 30 + turn) % 2][second // 10] for second in steps]
        rows = [f"{(begin + timedelta(seconds=10 * i)).isoformat()},{value}" for i, value in enumerate(values)]
        (folder / f"{zone}.csv").write_text("start,g_per_kwh\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return {"providers": [], "series": [{"zone": z, "file": str(folder / f"{z}.csv")} for z in ("NO", "DE")]}


def driver(job_id: str) -> int:
    """The pid of the job's own Python, which is killed as a machine would do it: without a word."""
    stamp = f"CARBON_SCHED_JOB={job_id}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[1:2] and words[1].endswith(b"answer.py") and stamp in (entry / "environ").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    return 0


@pytest.mark.parametrize("how", [(), ("--ray-data",)], ids=["plain", "ray-data"])
def test_a_batch_that_is_moved_and_killed_answers_every_item_once_and_its_receipt_adds_up(tmp_path, how):
    grid = series(tmp_path, datetime.now(timezone.utc).replace(microsecond=0))
    out = tmp_path / "runs"
    with installed_in(tmp_path, grid) as installation:
        arguments = ["--documents", str(DOCUMENTS), "--size", str(SIZE), "--pause", "3", *how]
        job = installation.start(
            "--storage", str(out), "--max-delay", "0s", "--deadline", "+20m", str(EXAMPLE), *arguments
        )

        def told(least: int) -> dict:
            return eventually(
                lambda: installation.json("status", job),
                lambda view: view["state"] == "running" and view["batch"] and view["batch"]["done"] >= least,
                patience_s=PATIENCE_S,
            )

        first = told(SIZE)
        installation.run("clusters", "drain", "--evict", first["cluster"])
        moved = told(first["batch"]["done"] + SIZE)
        assert moved["cluster"] != first["cluster"]
        installation.run("clusters", "uncordon", first["cluster"])
        installation.run("clusters", "drain", "--evict", "--no-wait", moved["cluster"])
        pid = eventually(lambda: driver(job), bool)
        os.kill(pid, signal.SIGKILL)  # in the midst of its last shard, before it saved or told anything
        installation.run("clusters", "uncordon", moved["cluster"])
        eventually(lambda: installation.json("status", job), lambda view: view["finished_at"], patience_s=PATIENCE_S)
        view, receipt = installation.json("status", job), installation.finished(job)
        report = json.loads(installation.run("audit", "lifecycle", "--model", "demo-char-lm", "--json").stdout)

    assert view["state"] == "succeeded", view
    assert [attempt["exit_code"] for attempt in view["attempts"]] == [STOPPED, 128 + signal.SIGKILL, 0]
    rows = [json.loads(line) for path in sorted(out.glob("*/batch/shard-*")) for line in path.read_text().splitlines()]
    names = [row["document"] for row in rows]
    assert len(names) == len(set(names)) == DOCUMENTS
    assert (view["batch"]["done"], view["batch"]["total"], view["batch"]["late"]) == (DOCUMENTS, DOCUMENTS, False)
    assert sum(window["units"]["items"] for window in receipt["windows"]) == DOCUMENTS
    one = receipt["per_unit"]["items"]
    assert one["energy_j"] * DOCUMENTS == pytest.approx(receipt["energy_kwh"] * 3.6e6)
    assert one["co2e_g"] * DOCUMENTS == pytest.approx(receipt["co2e_g"])
    assert receipt["energy_kwh"] > 0
    assert [(unit["unit"], unit["amount_millionths"]) for unit in report["per_unit"]] == [
        ("items", DOCUMENTS * 1_000_000)
    ]
