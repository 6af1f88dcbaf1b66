"""Bundles: what is stored is what was announced, and nothing that could hurt whoever unpacks it."""

from __future__ import annotations

import fcntl
import hashlib
import io
import random
import stat
import struct
import tracemalloc
import zipfile

import pytest

from carbon_sched.domain.errors import InvalidInput, NotFound, StoreError
from carbon_sched.store import bundle_check, bundles
from carbon_sched.store.bundles import FileBundles


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "bundles"


@pytest.fixture
def stored(folder):
    return FileBundles(folder)


def zipped(*entries, method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, content) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def sha(content):
    return hashlib.sha256(content).hexdigest()


def put(stored, content, chunk=1000):
    stored.put(sha(content), iter([content[n : n + chunk] for n in range(0, len(content), chunk)]))


PLAIN = zipped(("job.py", "print('hello')"), ("pkg/", ""), ("pkg/a.py", "a = 1" * 500), ("ünï/ö", "x"))


def test_a_bundle_comes_back_as_it_went_in(stored, folder):
    assert not stored.has(sha(PLAIN))
    put(stored, PLAIN)
    put(stored, PLAIN)
    assert stored.has(sha(PLAIN))
    path = stored.open(sha(PLAIN))
    assert path.read_bytes() == PLAIN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert FileBundles(folder).open(sha(PLAIN)) == path
    assert [file.name for file in folder.iterdir()] == [f"{sha(PLAIN)}.zip"]


def test_what_is_not_there_is_not_found(stored):
    with pytest.raises(NotFound, match="PUT /v1/bundles"):
        stored.open("0" * 64)


@pytest.mark.parametrize("name", ["", "../x", "A" * 64, "0" * 63, "0" * 64 + "\n", "/etc/passwd"])
def test_only_a_hash_names_a_bundle(stored, name):
    for call in (stored.has, stored.open, lambda n: stored.put(n, iter([]))):
        with pytest.raises(InvalidInput, match="not a SHA-256"):
            call(name)


def refused(stored, folder, content, match, name=None):
    with pytest.raises(InvalidInput, match=match):
        stored.put(name or sha(content), iter([content]))
    assert list(folder.iterdir()) == []


def test_other_content_than_announced_leaves_nothing(stored, folder):
    refused(stored, folder, PLAIN, "not the hash of what arrived", name="0" * 64)


def test_too_much_is_refused_at_the_first_byte_too_many(stored, folder, monkeypatch):
    monkeypatch.setattr(bundles, "MAX_BYTES", 10 * 2**20)
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield b"\0" * 2**20

    with pytest.raises(InvalidInput, match=r"over the 10 MiB a cluster takes.*bucket"):
        stored.put("0" * 64, endless())
    assert len(asked) == 11
    assert list(folder.iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing(stored, folder):
    def torn():
        yield PLAIN[:100]
        raise KeyError("the client went away")

    with pytest.raises(KeyError):
        stored.put(sha(PLAIN), torn())
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_a_store_error(stored, folder):
    def full():
        yield PLAIN[:100]
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left"):
        stored.put(sha(PLAIN), full())
    assert list(folder.iterdir()) == []


def test_uploads_that_died_are_cleared_away_and_living_ones_are_not(folder):
    FileBundles(folder)
    dead, alive = folder / ".incoming-dead", folder / ".incoming-alive"
    dead.write_bytes(b"x")
    with alive.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        FileBundles(folder)
        assert list(folder.iterdir()) == [alive]


# --------------------------------------------------------------------------------------------------- hostile content


def entry(name, mode=0, **fields):
    info = zipfile.ZipInfo("x")
    info.filename, info.external_attr = name, mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def listed(*names):
    return zipped(*[(entry(name), "x") for name in names])


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/..",
        "..",
        ".",
        "./a",
        "a/./b",
        "a//b",
        "//a",
        "C:/x",
        "c:x",
        "a\\b",
        "..\\x",
        "a\x00b",
        "a\nb",
        "\x7f",
        "x" * 300,
        "d/" * 600 + "x",
        "é" * 200,
    ],
)
def test_names_that_leave_the_folder_or_are_odd(stored, folder, name):
    refused(stored, folder, listed("fine", name), "Make the zip anew")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices(stored, folder, kind):
    refused(stored, folder, zipped((entry("x", kind | 0o777), "/etc/passwd")), "neither a plain file nor a folder")


def test_a_folder_under_a_files_name(stored, folder):
    refused(stored, folder, zipped((entry("x", stat.S_IFDIR | 0o777), "")), "neither a plain file nor a folder")


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("a", "A"),
        ("straße", "STRASSE"),
        ("é", "é"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "A/B"),
        ("d/", "d"),
        ("d", "D/"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_twins(stored, folder, names):
    refused(stored, folder, listed(*names), "stands in the bundle twice")


def test_folders_may_be_named_more_than_once(stored):
    put(stored, listed("d/", "d/a", "d/b", "D/c", "e/"))


def test_too_many_entries_are_refused_before_they_are_read(stored, folder):
    many = zipped(*[(f"{n}", "") for n in range(bundle_check.MAX_ENTRIES + 1)])
    tracemalloc.start()
    refused(stored, folder, many, "too many for a bundle")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_bomb(stored, folder, monkeypatch):
    monkeypatch.setattr(bundle_check, "FREE_UNPACKED", 2**20)
    refused(stored, folder, zipped(("x", b"\0" * 2**22)), "zip bomb")
    put(stored, zipped(("x", b"\0" * 2**19)))
    monkeypatch.setattr(bundle_check, "MAX_UNPACKED", 2**21)
    refused_size = zipped(("x", b"\0" * 2**22), method=zipfile.ZIP_STORED)
    with pytest.raises(InvalidInput, match="bytes unpacked"):
        put(stored, refused_size)


def test_unusual_compression_and_encryption(stored, folder):
    refused(stored, folder, zipped(("x", "y" * 99), method=zipfile.ZIP_LZMA), "unusual way")
    encrypted = bytearray(zipped(("x", "y")))
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    refused(stored, folder, bytes(encrypted), "encrypted|no zip")


def test_what_is_no_plain_zip(stored, folder):
    for content in (b"", b"PK", b"hello" * 99, PLAIN[:-1], PLAIN + b"\0", b"#!/bin/sh\n" + PLAIN, PLAIN + PLAIN):
        refused(stored, folder, content, "zip")
    commented = bytearray(PLAIN)
    commented[-2:] = struct.pack("<H", 3)
    refused(stored, folder, bytes(commented) + b"abc", "plain zip")


def test_an_entry_that_calls_itself_otherwise_in_its_own_header(stored, folder):
    two_names = PLAIN.replace(b"job.py", b"../x.p", 1)
    refused(stored, folder, two_names, "no zip that can be read")


@pytest.mark.parametrize("names", [(), ("./",)], ids=["nothing", "as Ray packs it"])
def test_an_empty_folder_is_fine(stored, names):
    put(stored, zipped(*[(entry(name, stat.S_IFDIR | 0o755), "") for name in names]))


def test_flipped_bytes_never_pass_as_something_unsafe(stored, folder, tmp_path):
    """Whatever survives a flip of any byte unpacks inside its folder."""
    draw = random.Random(7)
    target = tmp_path / "unpacked"
    for _ in range(400):
        content = bytearray(PLAIN)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        try:
            put(stored, bytes(content))
        except InvalidInput:
            continue
        with zipfile.ZipFile(stored.open(sha(bytes(content)))) as archive:
            for name in archive.namelist():
                assert (target / name).resolve().is_relative_to(target.resolve())
