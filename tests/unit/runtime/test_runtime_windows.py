"""Windows in user code: what is inside adds up, errors stay in their bounds, unknown is None with a reason."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carbon_sched import meter
from carbon_sched.domain.emissions import co2e_ug
from carbon_sched.domain.energy import QUALITY
from carbon_sched_runtime import windows
from carbon_sched_runtime.codecarbon import COLUMNS
from carbon_sched_runtime.counters import Reading
from carbon_sched_runtime.window_file import LIMIT, parse_windows, windows_name
from carbon_sched_runtime.window_meter import WindowMeter
from tests.fakes.metering import SECOND_NS, FakeSources, cpu, gpu
from tests.fakes.nvml import START, StubAtAnHour, loaded_nvml, nvml_library, stubbed_nvml, uuid

__all__ = ["loaded_nvml", "nvml_library", "stubbed_nvml"]

LIMIT_W = 700

A = "cs-aaaaaaaaaa-a1"
OURS = ("CARBON_SCHED_ATTEMPT", "CARBON_SCHED_INTENSITY", "CARBON_SCHED_PUE", "CARBON_SCHED_ZONE")


@pytest.fixture
def sources(monkeypatch) -> FakeSources:
    """A GPU and a CPU turned by hand, which the windows of this process read."""
    fake = FakeSources("/proc", {d.id: d for d in (gpu("gpu:a"), gpu("gpu:b"), cpu())})
    fake.readings = {name: Reading(5_000_000) for name in fake.devices}
    monkeypatch.setattr(windows, "_process", windows._Process(WindowMeter(fake)))
    for name in (*OURS, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return fake


def total(fake: FakeSources) -> int:
    return sum(reading.counter_uj for reading in fake.readings.values())


# Adding up -----------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(["open", "close", "look"]), st.integers(0, 3), st.integers(0, 10**8), st.integers(0, 9)),
    min_size=2, max_size=30,
)  # fmt: skip


@given(STEPS)
def test_every_window_gets_exactly_what_was_used_while_it_was_open(steps):
    fake = FakeSources("/proc", {d.id: d for d in (gpu("gpu:a"), cpu())})
    fake.readings = {name: Reading(0) for name in fake.devices}
    table, still_open, found = WindowMeter(fake, visible=lambda: None), [], []
    for what, seconds, energy, which in steps:
        fake.advance(seconds, gpu_a=energy if seconds else 0, cpu_package_0=energy // 3 if seconds else 0)
        if what == "open":
            still_open.append((table.open(), total(fake)))
        elif what == "look":
            table.look()
        elif still_open:
            tally, before = still_open.pop(which % len(still_open))
            found.append((sum(part.energy_uj for part in table.close(tally)), total(fake) - before))
    found += [(sum(part.energy_uj for part in table.close(t)), total(fake) - before) for t, before in still_open]
    assert [ours for ours, _ in found] == [counted for _, counted in found]


def test_windows_side_by_side_inside_a_window_add_up_to_it(sources):
    with windows.window("all") as outer:
        inner = []
        for joules in (3, 141, 59):
            with windows.window(f"part {joules}") as w:
                sources.advance(2, gpu_a=joules * 1_000_000, cpu_package_0=7)
            inner.append(w.result)
    assert [result.energy_uj for result in inner] == [3_000_007, 141_000_007, 59_000_007]
    assert outer.result.energy_uj == sum(result.energy_uj for result in inner)
    assert [one.end_us for one in inner[:-1]] == [two.start_us for two in inner[1:]]


def test_a_counter_that_goes_back_is_said_and_not_smoothed_over(sources):
    with windows.window("reset") as w:
        sources.advance(1, gpu_a=50_000_000)
        windows._process.meter.look()
        sources.readings["gpu:a"] = Reading(1)
        sources.mono_ns += SECOND_NS
    assert w.result.joules["gpu:a", "counter"] == 50
    assert "gpu:a: reset-unknown" in w.result.reason


def test_a_device_that_was_lost_before_a_window_gives_it_only_its_part_of_the_time(sources):
    with windows.window("outer") as outer:
        sources.readings["gpu:a"] = Reading(error="lost")
        sources.mono_ns += SECOND_NS
        with windows.window("inner") as inner:
            sources.readings["gpu:a"] = Reading(5_000_000 + 300_000_000)
            sources.mono_ns += 2 * SECOND_NS
    assert outer.result.joules["gpu:a", "counter"] == 300
    assert inner.result.joules["gpu:a", "counter"] == 200
    assert "gap" in inner.result.parts[1].flags
    assert "gpu:a: lost" in inner.result.reason


# Which devices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [(None, {"gpu:a", "gpu:b"}), ("1", {"gpu:b"}), ("", set()), ("-1", set()), ("7", set()),
     ("1,0", {"gpu:a", "gpu:b"})],
)  # fmt: skip
def test_gpus_that_the_process_may_not_use_are_not_in_its_windows(sources, monkeypatch, visible, gpus):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with windows.window("w") as w:
        sources.advance(1, gpu_a=1000, gpu_b=2000, cpu_package_0=10)
    assert {device for device, _ in w.result.joules} == {*gpus, "cpu:package-0"}


def test_a_mig_slice_has_no_joules_of_its_own_and_says_so(sources, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    with windows.window("w") as w:
        sources.advance(1, gpu_a=1000, cpu_package_0=10)
    assert {device for device, _ in w.result.joules} == {"cpu:package-0"}
    assert "MIG slice" in w.result.reason


@pytest.mark.parametrize(("seconds", "short"), [(0.05, True), (0.2, False)])
def test_a_window_shorter_than_a_step_of_the_counter_is_flagged(sources, seconds, short):
    with windows.window("w") as w:
        sources.advance(seconds, gpu_a=1000)
    flags = {part.device: part.flags for part in w.result.parts}
    assert ("shorter-than-step" in flags["gpu:a"]) is short
    assert flags["cpu:package-0"] == ()


# Errors against the stub of NVML -------------------------------------------------------------------------------------

LOADS = st.lists(st.tuples(st.floats(0.001, 3), st.floats(0, LIMIT_W)), min_size=1, max_size=12)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(LOADS, st.floats(0, 10), st.floats(0.002, 30))
def test_a_window_is_within_its_error_of_the_true_energy_whatever_the_load(loaded_nvml, loads, start, length):
    machine, at = StubAtAnHour(loaded_nvml), float(START)
    for lasting, watts in loads:
        machine.watts.append((at, round(watts, 3)))
        at = round(at + lasting, 6)
    table = WindowMeter(machine, visible=lambda: None)
    machine.now = round(START + start, 6)
    tally = table.open()
    begun, machine.now = machine.now, round(machine.now + length, 6)
    (part,) = table.close(tally)
    step_j = LIMIT_W * 0.1
    assert part.error_uj == part.energy_uj // 20 + step_j * 1e6
    assert abs(part.energy_uj / 1e6 - machine.true_j(begun, machine.now)) <= step_j + 0.002  # the counter's own 1 mJ


@pytest.mark.parametrize(("seconds", "percent"), [(10, 1.0), (60, 0.2)])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(phase=st.floats(0, 0.1))
def test_steady_loads_are_right_to_a_step_of_the_counter(loaded_nvml, seconds, percent, phase):
    machine = StubAtAnHour(loaded_nvml)
    machine.watts = [(START, 300.0)]
    table = WindowMeter(machine, visible=lambda: None)
    machine.now = round(START + 5 + phase, 6)
    tally = table.open()
    machine.now += seconds
    (part,) = table.close(tally)
    assert part.energy_uj / 1e6 == pytest.approx(300 * seconds, rel=percent / 100)


def test_without_a_counter_power_is_integrated_and_said_to_be(loaded_nvml):
    machine = StubAtAnHour(loaded_nvml, "nocounter 0")
    machine.watts = [(START, 200.0)]
    table = WindowMeter(machine, visible=lambda: None)
    machine.now = START + 1
    tally = table.open()
    for _ in range(8):
        machine.now += 1
        table.look()
    (part,) = table.close(tally)
    assert (part.device, part.source, part.energy_uj) == (uuid(0), "integrated", 1_600_000_000)


# Carbon and units ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**15), st.integers(1_000_000, 10_000_000), st.integers(0, 2_500_000))
def test_emissions_are_those_of_the_ledger(energy, pue, intensity):
    part = windows_part(energy)
    carbon = windows.Carbon(intensity, "given", "argument", pue, None)
    result = windows.Measurement("w", 0, 1, 1.0, (part,), carbon, {})
    assert result.co2e_ug == co2e_ug(energy, pue, intensity)


def windows_part(energy: int):
    from carbon_sched_runtime.window_meter import Part

    return Part("gpu:a", "gpu", "a GPU", "board", "counter", energy, 0)


def test_joules_and_grams_per_unit(sources):
    with windows.window("w", tokens=100, intensity=360, pue=1.5) as w:
        sources.advance(10, gpu_a=1_000_000_000)
        w.add(tokens=300, samples=0)
    assert w.result.energy_j == 1000
    assert w.result.co2e_g == pytest.approx(1000 / 3.6e6 * 1.5 * 360)
    assert w.result.per_unit["tokens"].joules == 2.5
    assert w.result.per_unit["tokens"].co2e_g == pytest.approx(w.result.co2e_g / 400)
    assert w.result.per_unit["samples"] == windows.PerUnit(None, None)
    assert w.result.reason is None


def test_what_is_not_known_is_none_and_says_why(sources):
    with windows.window("w") as w:
        sources.advance(1, gpu_a=1_000_000)
    assert (w.result.energy_j, w.result.co2e_g) == (1, None)
    assert "no PUE" in w.result.reason
    assert "no grid intensity" in w.result.reason


def test_the_environment_gives_what_arguments_do_not(sources, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_INTENSITY", "100")
    monkeypatch.setenv("CARBON_SCHED_PUE", "1.25")
    with windows.window("w", intensity=200) as w, windows.window("v") as v:
        sources.advance(1, gpu_a=3_600_000)
    assert (w.result.co2e_ug, w.result.carbon.grade) == (250, "given")
    assert (v.result.co2e_ug, v.result.carbon.grade) == (125, "environment")


@pytest.mark.parametrize("text", ["a lot", "nan", "-1", "0.5", "inf"])
def test_nonsense_in_the_environment_is_a_reason_and_no_error(sources, monkeypatch, text):
    monkeypatch.setenv("CARBON_SCHED_PUE", text)
    with windows.window("w", intensity=1) as w:
        sources.advance(1, gpu_a=1)
    assert w.result.co2e_g is None
    assert "CARBON_SCHED_PUE is not a number between 1 and 10" in w.result.reason


@pytest.mark.parametrize(
    ("zone", "grade"), [("DE", "D-zone-year"), ("US-CAL-CISO", "D-zone-year"), ("XX-NOWHERE", "F-world-year")]
)
def test_a_zone_gives_its_yearly_average_with_its_grade(sources, zone, grade):
    with meter.window("w", zone=zone, pue=1) as w:
        sources.advance(1, gpu_a=3_600_000)
    assert w.result.carbon.grade == grade
    assert w.result.co2e_ug == round(w.result.carbon.intensity_mg_per_kwh / 1000)
    assert "lifecycle" in w.result.carbon.origin


def test_the_part_that_travels_has_no_yearly_averages_and_says_so(sources):
    with windows.window("w", zone="DE", pue=1) as w:
        sources.advance(1, gpu_a=3_600_000)
    assert w.result.co2e_g is None
    assert "need the package carbon_sched" in w.result.reason


@pytest.mark.parametrize(
    "arguments",
    [{"intensity": -1}, {"intensity": float("nan")}, {"pue": 0.9}, {"pue": 11}, {"tokens": -1}, {"Tokens": 1}],
)
def test_arguments_of_no_sense_are_refused_before_anything_runs(arguments):
    with pytest.raises(ValueError, match=r"must lie between|name of a unit"):
        meter.window("w", **arguments)
    with pytest.raises(ValueError, match="printable"):
        meter.window("two\nlines")


def test_a_machine_that_cannot_be_metered_harms_nothing(monkeypatch):
    def no_linux():
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(windows, "_meter", no_linux)
    ran = []
    with meter.window("w", intensity=1, pue=1) as w:
        ran.append(True)
    assert ran == [True]
    assert (w.result.energy_j, w.result.co2e_g) == (None, None)
    assert "cannot meter here: FileNotFoundError" in str(w.result)


def test_the_users_error_goes_through_and_the_window_is_measured(sources):
    w = windows.window("w")
    sources_of_trouble = {}
    with pytest.raises(KeyError), w:
        sources.advance(1, gpu_a=8_000_000) or sources_of_trouble["no such key"]
    assert w.result.energy_j == 8


def test_cells_of_a_notebook_start_and_stop(sources):
    w = windows.window("w").start()
    with pytest.raises(RuntimeError, match="still open"):
        _ = w.result
    sources.advance(1, gpu_a=8_000_000)
    assert w.stop() is w.stop()
    with pytest.raises(RuntimeError, match="started before"):
        w.start()
    with pytest.raises(RuntimeError, match="was not started"):
        windows.window("v").stop()


def test_estimated_stands_in_the_text_for_people(sources):
    sources.devices = {"cpu:model": cpu("cpu:model", source="estimated")}
    sources.readings = {"cpu:model": Reading(0)}
    with windows.window("w") as w:
        sources.advance(1, cpu_model=8_000_000)
    assert "8.0 J (estimated)" in str(w.result)


# Beside the journal --------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CARBON_SCHED_JOURNAL_DIR", str(tmp_path))
    monkeypatch.setenv("CARBON_SCHED_ATTEMPT", A)
    return tmp_path / windows_name(A)


def test_inside_an_attempt_windows_lie_beside_its_journal(sources, monkeypatch, journal):
    with windows.window("épochs", intensity=1800, pue=2) as outer, windows.window("epoch-1", tokens=2.5):
        sources.advance(3, gpu_a=5_000_000)
    read = parse_windows(journal.read_bytes(), A)
    inner, around = read.windows
    assert read.problems == ()
    assert (around.name, around.parent, around.energy_uj, around.co2e_ug) == ("épochs", None, 5_000_000, 5000)
    assert (inner.name, inner.parent, inner.units) == ("epoch-1", around.id, (("tokens", 2_500_000),))
    assert inner.end_mono_ns - inner.start_mono_ns == 3 * SECOND_NS
    assert [(p.device, p.energy_uj) for p in around.parts][1:] == [("gpu:a", 5_000_000), ("gpu:b", 0)]
    assert outer.id == around.id


def test_what_came_out_of_a_job_is_told_in_a_window_of_its_own(sources, monkeypatch, journal):
    look = sources.sample
    monkeypatch.setattr(sources, "sample", lambda: sources.advance(0.001) or look())
    meter.report(accuracy=0.83, loss=1.25)
    (told,) = parse_windows(journal.read_bytes(), A).windows
    assert (told.name, told.units) == (QUALITY, (("accuracy", 830_000), ("loss", 1_250_000)))
    assert told.end_us > told.start_us
    with pytest.raises(ValueError, match="not the name of a unit"):
        meter.report(**{"F1 score": 1})


def test_outside_an_attempt_nothing_is_written(sources, journal, monkeypatch):
    monkeypatch.delenv("CARBON_SCHED_ATTEMPT")
    with windows.window("w"):
        sources.advance(1, gpu_a=1)
    assert not journal.exists()


def test_a_full_file_stays_within_its_limit_and_the_result_says_so(sources, journal):
    for number in range(200):
        with windows.window(f"w{number}") as w:
            sources.advance(1, gpu_a=1)
    assert journal.stat().st_size <= LIMIT
    assert len(parse_windows(journal.read_bytes(), A).windows) > 50
    assert "is full" in w.result.reason
    assert w.result.energy_uj == 1


def test_hostile_bytes_are_refused_line_by_line(sources, journal):
    with windows.window("w"):
        sources.advance(1, gpu_a=1)
    good = journal.read_bytes()
    first = good.splitlines()[0]
    bad = [
        b"{}",
        b"[]",
        b'{"k":"part","w":"00000000"}',
        first,
        first.replace(A.encode(), b"cs-other"),
        b"\xff",
        b"{" * 9,
    ]
    read = parse_windows(good + b"\n".join(bad) + b"\ntorn", A)
    assert len(read.windows) == 1
    assert len(read.problems) == len(bad) + 1


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader_of_windows(data):
    assert parse_windows(data, A).windows == ()


def test_a_link_in_place_of_the_file_is_not_followed(sources, journal, tmp_path):
    target = tmp_path / "precious"
    target.write_text("x")
    journal.symlink_to(target)
    with windows.window("w") as w:
        sources.advance(1, gpu_a=1)
    assert target.read_text() == "x"
    assert "not written beside the journal" in w.result.reason


# CodeCarbon's file ---------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_has_codecarbons_columns_and_energies_times_pue(sources, tmp_path):
    path = tmp_path / "emissions.csv"
    for joules in (7200, 3600):
        with windows.window("epoch", intensity=500, pue=1.5, codecarbon_csv=path) as w:
            sources.advance(20, gpu_a=joules * 1_000_000, cpu_package_0=360_000_000)
    first, second = rows_of(path)
    assert tuple(first) == COLUMNS
    assert len(COLUMNS) == 38
    assert float(first["gpu_energy"]) == pytest.approx(0.002 * 1.5)
    assert float(first["gpu_power"]) == pytest.approx(360 * 1.5)
    assert float(first["cpu_energy"]) == pytest.approx(0.0001 * 1.5)
    assert float(first["energy_consumed"]) == pytest.approx(0.0021 * 1.5)
    assert float(first["emissions"]) == pytest.approx(0.0021 * 1.5 * 0.5)
    assert float(first["emissions_rate"]) == pytest.approx(float(first["emissions"]) / 20)
    assert (first["duration"], first["pue"], first["codecarbon_version"], first["gpu_count"]) == (
        "20.0",
        "1.5",
        "3.3.2",
        "2",
    )
    assert (first["ram_energy"], first["water_consumed"]) == ("", "")
    details = [json.loads(line) for line in Path(f"{path}.carbon-sched.jsonl").read_text().splitlines()]
    assert [d["run_id"] for d in details] == [first["run_id"], second["run_id"]]
    assert details[1]["energy_uj"] == w.result.energy_uj


def test_unknown_emissions_are_an_empty_cell_and_not_zero(sources, tmp_path):
    with windows.window("w", codecarbon_csv=tmp_path / "e.csv"):
        sources.advance(1, gpu_a=1)
    (row,) = rows_of(tmp_path / "e.csv")
    assert (row["emissions"], row["pue"]) == ("", "")


def test_a_file_of_other_columns_is_moved_aside(sources, tmp_path):
    path = tmp_path / "emissions.csv"
    path.write_text("a,b\n1,2\n")
    with windows.window("w", codecarbon_csv=path):
        sources.advance(1, gpu_a=1)
    assert Path(f"{path}.1.bak").read_text() == "a,b\n1,2\n"
    assert len(rows_of(path)) == 1


def test_a_csv_that_cannot_be_written_harms_nothing(sources, tmp_path, caplog):
    with windows.window("w", codecarbon_csv=tmp_path / "no" / "folder.csv") as w:
        sources.advance(1, gpu_a=1)
    assert w.result.energy_uj == 1
    assert "not written to" in w.result.reason
    assert "not written to" in caplog.text


# Real processes ------------------------------------------------------------------------------------------------------


def test_the_import_is_light():
    code = "import sys; from carbon_sched import meter; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pydantic", "requests", "pynvml", "csv", "carbon_sched.grid.yearly"} & set(loaded)


def test_a_forked_child_measures_for_itself_and_cannot_end_its_parents_window(sources):
    with windows.window("parent") as w:
        sources.advance(1, gpu_a=1)
        child = os.fork()
        if not child:
            good = windows._process.meter is None and "another process" in str(w.stop().reason)
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert w.result.energy_uj == 1
