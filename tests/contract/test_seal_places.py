"""Places for seals: a file and real git repositories, with what can go wrong there."""

from __future__ import annotations

import os
import subprocess

import pytest

from carbon_sched.domain.errors import StoreError
from carbon_sched.store.seals import FileSeals, GitSeals

LINES = ['{"size":1}', '{"size":2}']


def git(folder, *arguments):
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def clone(tmp_path):
    """A clone of a bare repository."""
    git(tmp_path, "init", "--quiet", "--bare", "remote.git")
    git(tmp_path, "clone", "--quiet", "remote.git", "clone")
    return tmp_path / "clone"


def test_a_file_is_only_appended_to(tmp_path):
    place = FileSeals(tmp_path / "far" / "seals.jsonl")
    place.append(LINES[:1])
    place.append(LINES[1:])
    assert (tmp_path / "far" / "seals.jsonl").read_text(encoding="utf-8").splitlines() == LINES


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_file_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        FileSeals(tmp_path / "seals.jsonl").append(LINES)


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    with pytest.raises(StoreError, match="seals cannot be written to"):
        FileSeals(tmp_path).append(LINES)


def test_every_turn_is_a_commit_that_is_pushed(clone):
    place = GitSeals(clone, "origin")
    place.append(LINES[:1])
    place.append(LINES[1:])
    place.append(LINES)  # told again: nothing new
    remote = clone.parent / "remote.git"
    assert git(remote, "rev-list", "--count", "HEAD").strip() == "2"
    assert git(remote, "show", "HEAD:seals.jsonl").splitlines() == LINES


def test_what_could_not_be_pushed_is_pushed_later_and_committed_once(clone):
    remote = clone.parent / "remote.git"
    away = remote.rename(clone.parent / "away.git")
    place = GitSeals(clone, "origin")
    with pytest.raises(StoreError, match="git push"):
        place.append(LINES[:1])
    with pytest.raises(StoreError, match="git push"):
        place.append(LINES)
    away.rename(remote)
    place.append(LINES)
    assert git(remote, "show", "HEAD:seals.jsonl").splitlines() == LINES


def test_what_was_appended_before_a_failed_commit_is_committed_later(clone):
    lock = clone / ".git" / "index.lock"
    lock.touch()
    with pytest.raises(StoreError, match="git add"):
        GitSeals(clone).append(LINES)
    lock.unlink()
    GitSeals(clone).append(LINES)
    assert git(clone, "show", "HEAD:seals.jsonl").splitlines() == LINES


def test_a_folder_without_a_repository_is_named(tmp_path):
    with pytest.raises(StoreError, match="git rev-parse"):
        GitSeals(tmp_path / "nowhere").append(LINES)
