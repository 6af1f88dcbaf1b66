"""What `doctor` finds on a machine: folders, disks, versions, and the counters of its energy."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from carbon_sched.cli import checkup, checkup_service
from carbon_sched_runtime.counters import Meterable, Reading
from carbon_sched_runtime.nvml import Nvml
from carbon_sched_runtime.rapl import Rapl
from carbon_sched_runtime.sources import Sources
from tests.fakes.powercap import server


def absent_nvml(reason: str = "no library") -> Nvml:
    nvml = Nvml.__new__(Nvml)
    nvml.__dict__.update(absent=reason, troubles=[], _gpus={})
    return nvml


def look(rapl: Rapl):
    return checkup.look_at_energy(Sources(absent_nvml(), rapl))


def by_topic(findings, topic):
    (found,) = [finding for finding in findings if finding.topic == topic]
    return found


def test_counters_that_can_be_read_are_measured(tmp_path):
    energy, findings = look(Rapl(str(server(tmp_path).root)))
    assert [text.partition(":")[0] for text in energy.measured] == [
        "cpu RAPL package-0 (package)", "dram RAPL dram (dram)",
        "cpu RAPL package-1 (package)", "dram RAPL dram (dram)",
    ]  # fmt: skip
    assert energy.estimated == ()
    assert by_topic(findings, "cpu energy").level == "ok"


def test_counters_that_are_refused_are_estimated_and_nobody_is_told_to_open_them_to_all(tmp_path, monkeypatch):
    monkeypatch.setattr(Rapl, "_read", lambda *_: Reading(error="only root may read energy_uj"))
    energy, findings = look(Rapl(str(server(tmp_path).root)))
    assert energy.measured == ()
    assert "by utilisation, +/-70 %" in energy.estimated[0]
    refused = by_topic(findings, "cpu energy")
    assert refused.level == "warning"
    assert "only root may read energy_uj" in refused.text
    assert "sudo carbon-sched meter install" in refused.remedy
    assert "Do not open the counters to every user" in refused.remedy
    assert "chmod" not in refused.remedy


def test_a_machine_without_counters_says_so(tmp_path):
    energy, findings = look(Rapl(str(tmp_path)))
    assert len(energy.estimated) == 1
    assert by_topic(findings, "cpu energy").level == "warning"


@pytest.mark.parametrize(("gpu", "level"), [(True, "warning"), (False, "ok")])
def test_no_nvml_matters_where_there_is_a_gpu(tmp_path, monkeypatch, gpu, level):
    monkeypatch.setattr(checkup, "_has_nvidia_device", lambda: gpu)
    found = by_topic(look(Rapl(str(tmp_path)))[1], "gpu energy")
    assert (found.level, "no library" in found.text) == (level, True)
    assert bool(found.remedy) is gpu


def test_gpus_are_measured_and_a_container_that_cannot_tell_their_processes_apart_is_pointed_out():
    gpu = Meterable("gpu:1", "gpu", "H100", "")
    sources = SimpleNamespace(
        devices={"gpu:1": gpu}, joins_pids=False,
        nvml=SimpleNamespace(devices={"gpu:1": gpu}, troubles=["GPU 1: lost"], absent=None),
        rapl=SimpleNamespace(devices={}, refused=[]),
    )  # fmt: skip
    energy, findings = checkup.look_at_energy(sources)  # type: ignore[arg-type]
    assert energy.measured == ("gpu H100: energy counter, +/-5 %",)
    assert [finding.level for finding in findings] == ["warning", "ok", "warning"]


# folders --------------------------------------------------------------------------------------------------------------


def folder(path):
    (found,) = checkup.look_at_folder("data folder", path, "Set it elsewhere")
    return found


def test_a_folder_that_is_not_there_is_judged_by_its_parent_and_not_made(tmp_path):
    assert folder(tmp_path / "a" / "b").level == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    found = folder(tmp_path / "file" / "b")
    assert (found.level, found.exit_code) == ("problem", 125)
    assert "is not a folder" in found.text


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refused(**_: object):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    found = folder(tmp_path)
    assert (found.level, found.exit_code, found.remedy) == ("problem", 125, "Set it elsewhere")
    assert "cannot be written" in found.text


@pytest.mark.parametrize(("free", "level"), [(2**40, "ok"), (2**30, "warning"), (2**20, "problem")])
def test_a_disk_that_is_nearly_full(tmp_path, monkeypatch, free, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    found = folder(tmp_path)
    assert found.level == level
    assert ("nearly full" in found.text) is (level != "ok")


def test_a_network_filesystem(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:21 / / rw - nfs4 server:/ rw\n", encoding="utf-8")
    found = list(checkup.look_at_data_folder(tmp_path, mounts))
    assert [finding.level for finding in found] == ["ok", "problem"]
    assert "network filesystem (nfs4)" in found[1].text


# versions and clocks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "level"), [("", "warning"), ("2.8.1", "problem"), ("2.60.0", "ok"), ("3.0.0rc1", "ok")]
)
def test_ray(monkeypatch, version, level):
    monkeypatch.setattr(checkup, "ray_version", lambda: version)
    assert by_topic(checkup.look_at_software(remote=False), "ray").level == level


def test_a_shared_server_needs_neither_ray_nor_its_libraries_here(monkeypatch):
    monkeypatch.setattr(checkup, "_installed", lambda _: False)
    assert [finding.topic for finding in checkup.look_at_software(remote=True)] == ["python"]
    assert by_topic(checkup.look_at_software(remote=False), "server").exit_code == 123


@pytest.mark.parametrize(("seconds", "level"), [(0.4, "ok"), (-4.9, "ok"), (20, "warning"), (-61, "problem")])
def test_clocks(seconds, level):
    found = checkup_service.skew(seconds)
    assert found.level == level
    assert ("behind" in found.text) is (level != "ok" and seconds < 0)
