from __future__ import annotations

import pytest

from carbon_sched.clusters.ray_answers import camel_case, usage_from_load, usage_from_text
from carbon_sched.clusters.ray_client import parse_version


def test_reads_usage_as_ray_prints_it():
    text = (
        "1.5/4.0 CPU\n0.0/2.0 GPU\n953.67MiB/22.98GiB memory\n"
        "0B/95.37MiB object_store_memory\n0.5/1.0 accelerator_type:H100"
    )
    assert usage_from_text(text) == {
        "CPU": 1.5,
        "GPU": 0.0,
        "memory": 953.67 * 2**20,
        "object_store_memory": 0.0,
        "accelerator_type:H100": 0.5,
    }


def test_what_a_placement_group_reserves_is_taken_though_it_is_not_used():
    # Ray prints used - reserved + used of the reserved: 3 of 4 CPUs are gone here, though "1.0" stands there.
    assert usage_from_text("1.0/4.0 CPU (0.0 used of 2.0 reserved in placement groups)") == {"CPU": 3.0}
    assert usage_from_text("1.0/4.0 CPU (1.0 used of 2.0 reserved in placement groups)") == {"CPU": 2.0}
    memory = "1.00GiB/8.00GiB memory (0B used of 2.00GiB reserved in placement groups)"
    assert usage_from_text(memory) == {"memory": 3.0 * 2**30}


@pytest.mark.parametrize("text", ["", "no numbers here", "x/y CPU"])
def test_text_without_usage_tells_nothing(text: str):
    assert usage_from_text(text) == {}


@pytest.mark.parametrize(
    ("name", "rewritten"),
    [
        ("CPU", "CPU"),
        ("object_store_memory", "objectStoreMemory"),
        ("accelerator_type:H100", "acceleratorType:H100"),
        ("node:__internal_head__", "node:InternalHead"),
        ("my_GPU", "myGpu"),
    ],
)
def test_rewrites_names_as_ray_does(name: str, rewritten: str):
    assert camel_case(name) == rewritten


def test_finds_the_exact_names_again():
    usage = {"CPU": (1.0, 4.0), "acceleratorType:H100": (0.5, 1.0), "objectStoreMemory": (0.0, 1e8)}
    names = ["CPU", "accelerator_type:H100", "object_store_memory", "absent"]
    assert usage_from_load(usage, names) == {"CPU": 1.0, "accelerator_type:H100": 0.5, "object_store_memory": 0.0}


def test_names_that_became_one_are_not_guessed():
    assert usage_from_load({"aB": (1.0, 2.0)}, ["a_b", "a_B"]) == {}


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.60.0", (2, 60, 0)), ("2.9.3", (2, 9, 3)), ("2.61.0rc1", (2, 61, 0)), ("3.0.0.dev0", (3, 0, 0)), ("?", ())],
)
def test_reads_versions(text: str, version: tuple[int, ...]):
    assert parse_version(text) == version
