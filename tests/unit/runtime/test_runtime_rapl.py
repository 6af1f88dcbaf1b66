"""RAPL zones on a fake powercap tree: what is added up, and what never is."""

from __future__ import annotations

import pytest

from carbon_sched_runtime.rapl import Rapl
from tests.fakes.powercap import Powercap, server


def test_packages_and_dram_count_and_nothing_that_overlaps_them(tmp_path):
    rapl = Rapl(str(server(tmp_path).root))

    assert sorted(rapl.devices) == ["cpu:package-0", "cpu:package-1", "dram:package-0", "dram:package-1"]
    assert rapl.devices["cpu:package-0"].wrap_uj == 262_143_328_850
    assert rapl.devices["dram:package-1"].scope == "dram"
    assert rapl.read()["cpu:package-1"].counter_uj == 2_000_000_000


def test_dies_that_mirror_one_counter_count_once(tmp_path):
    tree = Powercap(tmp_path)
    tree.zone("intel-rapl:0", "package-0-die-0", 7_000_000)
    tree.zone("intel-rapl:1", "package-0-die-1", 7_000_000)
    tree.zone("intel-rapl:2", "package-1-die-0", 9_000_000)

    assert sorted(Rapl(str(tree.root)).devices) == ["cpu:package-0-die-0", "cpu:package-1-die-0"]


def test_the_memory_mapped_tree_is_used_where_it_is_the_only_one(tmp_path):
    tree = Powercap(tmp_path)
    tree.zone("intel-rapl-mmio:0", "package-0", 7)

    assert list(Rapl(str(tree.root)).devices) == ["cpu:package-0"]


def test_without_a_tree_there_is_nothing(tmp_path):
    rapl = Rapl(str(tmp_path / "none"))

    assert rapl.devices == {}
    assert rapl.read() == {}


def test_a_counter_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    tree = Powercap(tmp_path)
    tree.zone("intel-rapl:0", "package-0", 7)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("not a number\n")

    rapl = Rapl(str(tree.root))

    assert rapl.devices == {}
    assert rapl.refused == ["package-0: energy_uj cannot be read: ValueError"]


@pytest.mark.parametrize("text", ["", "-", "nan"])
def test_a_counter_that_stops_making_sense_is_an_unreadable_one(tmp_path, text):
    tree = Powercap(tmp_path)
    tree.zone("intel-rapl:0", "package-0", 7)
    rapl = Rapl(str(tree.root))
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text(text)

    assert rapl.read()["cpu:package-0"].error is not None
