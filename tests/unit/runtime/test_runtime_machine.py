"""The meeting place: one reader, claims of live attempts, and nobody harmed by what others leave there."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from carbon_sched_runtime.machine import Claim, Machine, UnsafeFolderError, _shared_folder, read_segment

A = "cs-aaaaaaaaaa-a1"
NAME = "carbon-sched-0123456789ab-35a06fda-00c0ffee-{:06d}.seg"


@pytest.fixture
def machine(tmp_path):
    return Machine(str(tmp_path / "machine"))


def claim(attempt=A, **changes) -> Claim:
    facts = {"pid": 7, "started_ticks": 100, "uid": os.geteuid(), "start_ns": 5, "cpus": 1_000_000, "gpus": 500_000}
    return Claim(attempt, **{**facts, "visible": "0,1", **changes})


def test_one_reader_at_a_time(machine, tmp_path):
    lock = machine.lock(wait=False)

    assert lock is not None
    assert Machine(str(tmp_path / "machine")).lock(wait=False) is None
    os.close(lock)
    again = machine.lock(wait=False)
    assert again is not None
    os.close(again)


def test_everyone_may_use_the_folder_and_nobody_may_remove_anothers_file(machine):
    for folder in (machine.root, f"{machine.root}/claims", f"{machine.root}/meters"):
        assert Path(folder).stat().st_mode & 0o7777 == 0o1777
    assert Path(machine.own).stat().st_mode & 0o7777 == 0o755


def test_claims_are_read_back(machine):
    machine.write_claim(claim())
    machine.write_claim(replace(claim("cs-b-a1"), end_ns=9))

    assert machine.claims() == [claim(), replace(claim("cs-b-a1"), end_ns=9)]
    machine.remove_claim(A)
    machine.remove_claim(A)
    assert [c.attempt for c in machine.claims()] == ["cs-b-a1"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"[" * 5000, b"\xff", b"x" * 9000,
        json.dumps({**claim().__dict__, "attempt": "cs-other-a1"}).encode(),
        json.dumps({**claim().__dict__, "pid": -1}).encode(),
        json.dumps({**claim().__dict__, "pid": True}).encode(),
        json.dumps({**claim().__dict__, "cpus": 1e99}).encode(),
        json.dumps({**claim().__dict__, "start_ns": 2**62}).encode(),
        json.dumps({**claim().__dict__, "end_ns": "9"}).encode(),
        json.dumps({**claim().__dict__, "visible": ["0"]}).encode(),
    ],
)  # fmt: skip
def test_what_is_not_a_claim_is_passed_over(machine, content):
    Path(f"{machine.root}/claims/{A}.claim").write_bytes(content)

    assert machine.claims() == []


def test_links_pipes_and_folders_are_not_claims(machine, tmp_path):
    claims = f"{machine.root}/claims"
    (tmp_path / "elsewhere").write_text(json.dumps({**claim("cs-link-a1").__dict__}))
    Path(f"{claims}/cs-link-a1.claim").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(f"{claims}/cs-pipe-a1.claim")
    Path(f"{claims}/cs-folder-a1.claim").mkdir()
    for name in ("idle", "unattributed", "..a", "x" * 101):
        Path(f"{claims}/{name}.claim").write_text(json.dumps({**claim().__dict__, "attempt": name}))

    assert machine.claims() == []


def test_a_claim_is_never_written_through_a_link(machine, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    Path(f"{machine.root}/claims/{A}.claim").symlink_to(victim)

    machine.write_claim(claim())

    assert victim.read_text() == "precious"
    assert machine.claims() == [claim()]


def test_a_temporary_name_that_is_taken_by_a_link_is_refused(machine, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    Path(f"{machine.root}/claims/.{A}.claim.{os.getpid()}").symlink_to(victim)

    with pytest.raises(OSError):
        machine.write_claim(claim())
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_folder_that_somebody_else_prepared_is_not_used(tmp_path, kind):
    root = tmp_path / "machine"
    (tmp_path / "trap").mkdir()
    if kind == "link":
        root.symlink_to(tmp_path / "trap")
    else:
        root.write_text("")

    machine = Machine(str(root))

    assert machine.shared is False
    assert machine.root == f"{root}-{os.geteuid()}"
    assert list((tmp_path / "trap").iterdir()) == []


def test_another_users_folder_is_used_only_if_nobody_can_remove_files_in_it(tmp_path, monkeypatch):
    tmp_path.chmod(0o777)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(UnsafeFolderError, match="sticky"):
        _shared_folder(str(tmp_path))

    tmp_path.chmod(0o1777)
    _shared_folder(str(tmp_path))


def test_ones_own_folder_must_be_ones_own(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    Path(f"{machine.root}/meters/4242").mkdir()

    with pytest.raises(UnsafeFolderError):
        Machine(machine.root)


def test_segments_are_published_whole_and_the_oldest_dropped(machine):
    for number in range(243):
        machine.publish(NAME.format(number), str(number).encode())
        os.utime(f"{machine.own}/segments/{NAME.format(number)}", (number, number))

    names = sorted(name for name, _ in machine.published(0))
    assert len(names) in (240, 241)
    assert names[-1] == NAME.format(242)
    assert dict(machine.published(0))[NAME.format(242)].startswith(machine.own)
    assert [name for name, _ in machine.published(242)] == [NAME.format(242)]


def test_only_segments_in_folders_of_their_owner_are_seen(machine):
    machine.publish(NAME.format(1), b"one")
    Path(f"{machine.own}/segments/passwords").write_text("x")
    forged = Path(f"{machine.root}/meters/12345/segments")  # ours by owner, another's by name
    forged.mkdir(parents=True)
    (forged / NAME.format(2)).write_text("two")

    assert [name for name, _ in machine.published(0)] == [NAME.format(1)]


def test_a_published_link_is_not_followed(machine, tmp_path):
    (tmp_path / "secret").write_text("secret")
    path = Path(f"{machine.own}/segments/{NAME.format(1)}")
    path.symlink_to(tmp_path / "secret")

    assert read_segment(str(path)) is None


def test_checkpoints_come_back_and_are_capped(machine, monkeypatch):
    machine.write_checkpoint(b"state")
    assert machine.checkpoints() == [(b"state", True)]

    monkeypatch.setattr("carbon_sched_runtime.machine.CHECKPOINT_LIMIT", 4)
    assert machine.checkpoints() == []


def test_the_reader_can_be_woken_and_a_dead_one_cannot(machine):
    assert machine.wake_reader() is False
    pipe = machine.open_pipe()

    assert machine.wake_reader() is True
    assert os.read(pipe, 10) == b"!"
    os.close(pipe)
    assert machine.wake_reader() is False


def test_a_plain_file_in_the_pipes_place_is_not_written_to(machine):
    Path(f"{machine.own}/wake").write_text("text")

    assert machine.wake_reader() is False
    assert Path(f"{machine.own}/wake").read_text() == "text"
