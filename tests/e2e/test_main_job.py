"""The main job against real Ray heads, through the command line, as a user has it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.fakes.nvml import uuid
from tests.fakes.real_server import eventually, recorded_spans

RAY = str(Path(sys.executable).with_name("ray"))

ECHO = """
import json, os, sys
print("to stdout", flush=True)
print("to stderr", file=sys.stderr, flush=True)
kept = sorted(name for name in os.environ if not name.startswith(("CARBON_SCHED_", "RAY_", "PYTHONPATH", "_")))
marker = os.environ.get("MARKER")
print(json.dumps({"argv": sys.argv[1:], "files": sorted(os.listdir()), "env": kept, "marker": marker}))
sys.exit(int(sys.argv[1]))
"""


def gpu_counter_uj(installation, gpu: int) -> tuple[int, int]:
    """Energy of one GPU in uJ: what all rows of our readers say, idle ones too, and what its counter said."""
    with installation.client() as client:
        spans = [s for s in recorded_spans(client) if s["device"] == uuid(gpu) and s["reporter"] != "ray"]
    readings = installation.nvml.readings_mj(gpu)
    return sum(span["energy_uj"] for span in spans), (readings[-1] - readings[0]) * 1000


def script(folder: Path, name: str, text: str) -> Path:
    """A script in a project folder of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").touch()
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_a_job_goes_to_the_cleaner_cluster_and_its_receipt_says_where_every_number_is_from(installation, tmp_path):
    path = script(tmp_path / "p", "work.py", "import time; print('hello'); time.sleep(3)")
    done = installation.run("submit", "--name", "cleaner", str(path))
    assert "hello" in done.stdout
    receipt = installation.finished("cleaner")
    assert installation.json("receipt", "cleaner") == receipt
    assert (receipt["cluster"], receipt["zone"], receipt["state"]) == ("north", "NO", "succeeded")
    assert [text for text in receipt["missing"] if "first reading since boot" not in text] == []
    assert receipt["energy_kwh"] > 0
    assert receipt["co2e_g"] == pytest.approx(receipt["facility_kwh"] * receipt["intensity_g_per_kwh"], abs=1e-6)
    assert receipt["facility_kwh"] == pytest.approx(receipt["energy_kwh"] * 1.1)
    home = next(reference for reference in receipt["references"] if reference["name"] == "run-now-home")
    assert (home["cluster"], home["saved_g"] > 0) == ("south", True)
    assert json.loads(installation.run("audit", "verify", "--json").stdout)["ok"]
    # Where neither RAPL nor another counter can be read, people see that, and what measures it.
    cpu = {device["source"] for device in receipt["devices"] if device["kind"] == "cpu"}
    shown = " ".join(installation.run("receipt", "cleaner").stdout.split())
    assert ("ESTIMATED" in shown and "carbon-sched meter" in shown) is (cpu == {"estimated"})


def test_exit_code_output_environment_and_folder_are_as_under_ray_job_submit(installation, tmp_path):
    folder = tmp_path / "p"
    path = script(folder, "echo.py", ECHO)
    (folder / "data.txt").write_text("x", encoding="utf-8")
    arguments = ["7", "two words", 'it\'s "quoted"', "$HOME;&", "naïve ☕", ""]
    env_json = json.dumps({"env_vars": {"MARKER": "ours"}})
    ours = installation.run(
        "submit", "--cluster", "north", "--runtime-env-json", env_json, str(path), *arguments, check=False
    )
    ray = subprocess.run(
        [RAY, "job", "submit", "--working-dir", str(folder), "--runtime-env-json", env_json,
         "--", "python", "echo.py", *arguments],
        env=installation.ray_environment("north"), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ours.returncode == 7
    assert ray.returncode != 0

    def job_lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith(("to std", "{"))]

    lines = job_lines(ours.stdout)
    assert lines[:2] == ["to stdout", "to stderr"]
    said, said_to_ray = json.loads(lines[2]), json.loads(job_lines(ray.stdout)[2])
    assert said["argv"] == arguments
    assert said["marker"] == "ours"
    assert said["files"] == said_to_ray["files"]
    assert set(said["env"]) >= set(said_to_ray["env"])


def test_a_script_that_calls_ray_init_with_its_own_runtime_env_works(installation, tmp_path):
    text = """
        import ray
        ray.init(runtime_env={"env_vars": {"FROM_SCRIPT": "yes"}})
        @ray.remote
        def look():
            import os
            return os.environ.get("FROM_SCRIPT"), os.environ.get("CARBON_SCHED_ATTEMPT", "")[:3]
        print("worker saw", ray.get(look.remote()))
    """
    done = installation.run("submit", str(script(tmp_path / "p", "init.py", text)))
    assert "worker saw ('yes', 'cs-')" in done.stdout


def test_a_full_cluster_sends_the_job_to_the_other_one_and_explain_says_why(installation, tmp_path):
    nap = str(script(tmp_path / "p", "nap.py", "import time; time.sleep(6)"))
    installation.wait_free()
    first = installation.start("--entrypoint-num-cpus", "4", nap)
    installation.run("wait", "--state", "running", first, check=False)
    second = installation.start("--entrypoint-num-cpus", "4", nap)
    receipts = [installation.finished(job) for job in (first, second)]
    assert [receipt["cluster"] for receipt in receipts] == ["north", "south"]
    decision = installation.json("explain", second)
    north = next(candidate for candidate in decision["candidates"] if candidate["cluster"] == "north")
    assert not north["feasible"]
    assert north["reason"]


def test_a_gpu_job_pays_exactly_what_the_counter_of_its_gpu_counted(installation, tmp_path):
    """The receipt's joules and the idle ones add up to the stub's counter: first to last reading anyone was given."""
    path = script(tmp_path / "p", "gpu.py", "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(4)")
    job = installation.start("--entrypoint-num-gpus", "1", str(path))
    receipt = installation.finished(job)
    gpus = [device for device in receipt["devices"] if device["kind"] == "gpu"]
    assert gpus
    assert {device["source"] for device in gpus} == {"counter"}
    for gpu in (0, 1):
        booked, counted = gpu_counter_uj(installation, gpu)
        assert booked == counted


@pytest.mark.parametrize("count", [6, pytest.param(20, marks=pytest.mark.slow)])  # Ray itself needs 1.6 s for each
def test_many_jobs_at_once_all_finish_none_twice_and_their_energy_adds_up(installation, tmp_path, count):
    marks = tmp_path / "marks"
    marks.mkdir()
    text = f"""
        import os, pathlib, uuid
        pathlib.Path({str(marks)!r}, os.environ["CARBON_SCHED_JOB"] + "." + uuid.uuid4().hex).touch()
    """
    path = str(script(tmp_path / "p", "mark.py", text))
    jobs = [installation.start("--cluster", "north", "--entrypoint-num-gpus", "0.1", path) for _ in range(count)]
    receipts = [installation.finished(job) for job in jobs]
    assert {receipt["state"] for receipt in receipts} == {"succeeded"}
    assert sorted(mark.name.split(".")[0] for mark in marks.iterdir()) == sorted(jobs)
    for gpu in (0, 1):
        booked, counted = gpu_counter_uj(installation, gpu)
        assert booked == counted
    assert json.loads(installation.run("audit", "verify", "--json").stdout)["ok"]


def test_a_flexible_job_waits_and_stop_ends_the_wait(installation, tmp_path):
    path = script(tmp_path / "p", "later.py", "print('late')")
    job = installation.start("--earliest", "+1h", str(path))
    assert eventually(lambda: installation.json("status", job), lambda view: view["planned_start"])["state"] == "queued"
    installation.run("stop", job)
    assert installation.json("status", job)["state"] == "stopped"
