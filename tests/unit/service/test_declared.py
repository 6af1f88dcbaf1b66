"""Clusters and policies in files are put in force at the start and at every change, or change nothing."""

from __future__ import annotations

import json

import pytest

from carbon_sched.domain.errors import InvalidFile, InvalidInput
from carbon_sched.service.declared import Declared, clusters_of
from tests.fakes.world import World

TWO = """
lyon: {address: "https://lyon.example", zone: FR, pue: 1.15, home: true, token: "file:/run/secrets/lyon"}
oslo:
  address: http://oslo.example:8265
  zone: "NO"
"""
HEAD = "apiVersion: carbon-sched/v1\n"


def zone_of(zone):
    if zone == "XX":
        raise InvalidInput("zone", zone, "is not a zone we know", "See carbon-sched grid zones")
    return zone


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "world", [], {})


@pytest.fixture
def files(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "clusters.yaml").write_text(TWO, encoding="utf-8")
    return tmp_path


def declared(world, files):
    return Declared(
        files / "clusters.yaml", files / "policies",
        fleet=world.fleet, in_force=world.policies, known_zone=zone_of, signals=world.signals,
    )  # fmt: skip


def facts(world, kind):
    with world.store.transaction(write=False) as tx:
        entries = [json.loads(entry.payload) for entry in tx.entries()]
    return [entry["body"] for entry in entries if entry["kind"] == kind]


def test_clusters_are_registered_once_and_again_only_when_their_file_changes_them(world, files):
    one = declared(world, files)
    one.step()
    assert [(c.name, c.zone, c.home) for c in world.fleet.all()] == [("lyon", "FR", True), ("oslo", "NO", False)]
    world.fleet.cordon("oslo", cordoned=True)
    one.step()
    declared(world, files).step()  # the next server
    assert len(facts(world, "cluster-registered")) == 2
    (files / "clusters.yaml").write_text(TWO.replace("1.15", "1.2"), encoding="utf-8")
    one.step()
    assert world.fleet.get("lyon").pue.ppm == 1_200_000
    assert [body["name"] for body in facts(world, "cluster-registered")] == ["lyon", "oslo", "lyon"]
    assert world.fleet.get("oslo").cordoned


def test_what_is_taken_out_of_the_file_stays_until_it_is_removed(world, files):
    one = declared(world, files)
    one.step()
    (files / "clusters.yaml").write_text(TWO.split("oslo", maxsplit=1)[0], encoding="utf-8")
    one.step()
    assert {c.name for c in world.fleet.all()} == {"lyon", "oslo"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("oslo: {zone: XX, address: 'http://o:1'}", r"clusters.yaml:1:14: oslo.zone is .XX.*not a zone.*grid zones"),
        ("oslo: {zone: DE}", r"clusters.yaml:1:.*: oslo.address .*Give exactly one"),
        ("oslo:\n  zone: DE\n  adress: http://o:1\n", r"clusters.yaml:3:3: oslo.adress is not a known key.*address"),
        ("oslo: {zone: DE, address: 'http://o:1', pue: much}", r"clusters.yaml:1:46: oslo.pue is wrong"),
        ("oslo: {zone: DE, address: 'http://o:1', token: abc}", r"oslo.token.*not shown.*file:PATH"),
        ("[oslo]", r"clusters.yaml:1:1: the file"),
        ("a: {zone: DE, address: 'http://o:1', home: true}\nb: {zone: DE, address: 'http://p:1', home: true}",
         r"clusters.yaml:2:\d+: b.home is the second home"),
    ],
)  # fmt: skip
def test_a_file_of_clusters_that_is_wrong_names_line_field_and_remedy(tmp_path, text, told):
    file = tmp_path / "clusters.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidFile, match=told):
        clusters_of(file, zone_of)


def test_a_wrong_file_changes_nothing_is_told_once_and_heals(world, files, caplog):
    one = declared(world, files)
    one.step()
    (files / "clusters.yaml").write_text(TWO.replace("FR", "XX") + "rome: {address: 'http://r:1', zone: IT}\n", "utf-8")
    one.step()
    one.step()
    assert {c.name for c in world.fleet.all()} == {"lyon", "oslo"}
    assert [record.levelname for record in caplog.records if "not used" in record.message] == ["ERROR"]
    assert "XX" in one.problems[files / "clusters.yaml"]
    (files / "clusters.yaml").write_text(TWO, encoding="utf-8")
    one.step()
    assert not one.problems


def test_policies_are_applied_whatever_the_order_of_their_names_and_once(world, files):
    (files / "policies" / "a.yaml").write_text(HEAD + "name: a\nextends: b\nteam: a\n", encoding="utf-8")
    (files / "policies" / "b.yaml").write_text(
        HEAD + "name: b\nextends: balanced\nminimum_gain: 0.2\n", encoding="utf-8"
    )
    one = declared(world, files)
    one.step()
    declared(world, files).step()
    assert [(body["name"], body["reason"]) for body in facts(world, "policy-applied")] == [
        ("b", "from b.yaml"),
        ("a", "from a.yaml"),
    ]
    assert not one.problems
    (files / "policies" / "b.yaml").write_text(HEAD + "name: b\nminimum_gain: much\n", encoding="utf-8")
    one.step()
    assert "minimum_gain" in one.problems[files / "policies" / "b.yaml"]
    assert world.policies.now().get("b").settings
    assert len(facts(world, "policy-applied")) == 2
