from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from carbon_sched import working_dir
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.working_dir import Selection, build_working_dir, select


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    return root


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        put(root, name, content)


def put(root: Path, name: str, content: str = "") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def names(root: Path, **more: object) -> list[str]:
    built = build_working_dir(root, root.parent / "out", **more)
    with zipfile.ZipFile(built.path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


# what travels ------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(Path, "home", lambda: home)
    return home


@pytest.mark.parametrize("mark", [".git", "pyproject.toml"])
def test_a_script_in_a_project_brings_its_folder(home: Path, mark: str):
    put(home, f"code/{mark}")
    script = put(home, "code/train/job.py")
    assert select(script) == Selection(script.parent, "job.py")


def test_a_script_outside_a_project_travels_alone(home: Path):
    script = put(home, "Downloads/job.py")
    assert select(script) == Selection(script.parent, "job.py", only="job.py")


def test_a_home_directory_is_never_sent_even_as_a_git_work_tree(home: Path):
    put(home, ".git/config")
    assert select(put(home, "job.py")).only == "job.py"
    assert select(put(home, "folder/job.py")).only == "job.py"


def test_a_relative_script_is_found(home: Path, monkeypatch: pytest.MonkeyPatch):
    put(home, "code/pyproject.toml")
    script = put(home, "code/job.py")
    monkeypatch.chdir(home)
    assert select(Path("code/job.py")) == Selection(script.parent, "job.py")


@pytest.mark.parametrize("name", ["missing.py", "."])
def test_a_script_that_cannot_be_read_is_named(tmp_path: Path, name: str):
    with pytest.raises(InvalidInput, match="script"):
        select(tmp_path / name)


# the zip -----------------------------------------------------------------------------------------


def test_files_lie_at_the_root_of_the_zip(folder: Path):
    write(folder, **{"job.py": "print()", "pkg/mod.py": "x = 1"})
    (folder / "empty").mkdir()
    assert names(folder) == ["empty/", "job.py", "pkg/mod.py"]


def test_one_file_alone(folder: Path):
    write(folder, **{"job.py": "print()", "secret.txt": "x"})
    assert names(folder, only="job.py") == ["job.py"]


def test_the_same_content_gives_the_same_bytes(folder: Path, tmp_path: Path):
    files = {f"{number}/{name}": name * number for number in range(5) for name in "abc"}
    other = tmp_path / "other"
    write(folder, **files)
    for name in random.Random(7).sample(sorted(files), len(files)):
        os.utime(put(other, name, files[name]), (1, 1))
    first, second = build_working_dir(folder, tmp_path / "1"), build_working_dir(other, tmp_path / "2")
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.path.name == f"{first.sha256}.zip"
    assert (first.files, first.size_bytes) == (15, first.path.stat().st_size)
    put(other, "0/a", "changed")
    assert build_working_dir(other, tmp_path / "2").sha256 != first.sha256


def test_modes_are_kept(folder: Path):
    put(folder, "run.sh").chmod(0o750)
    built = build_working_dir(folder, folder.parent / "out")
    with zipfile.ZipFile(built.path) as archive:
        assert stat.S_IMODE(archive.getinfo("run.sh").external_attr >> 16) == 0o750


def test_nothing_is_left_behind_but_the_zip(folder: Path, tmp_path: Path):
    put(folder, "a.py")
    (folder / "z").symlink_to("/nowhere")
    with pytest.raises(InvalidInput):
        build_working_dir(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


# what stays --------------------------------------------------------------------------------------


def test_version_control_byte_code_and_environments_stay(folder: Path):
    write(folder, **{
        "job.py": "", ".git/config": "", "__pycache__/job.cpython-311.pyc": "", "pkg/__pycache__/x.pyc": "",
        "left.pyc": "", "env/pyvenv.cfg": "", "env/bin/tool": "", "deep/env/pyvenv.cfg": "", "deep/a.py": "",
        "conda/conda-meta/history": "", "conda/bin/tool": "",
    })  # fmt: skip
    assert names(folder) == ["deep/a.py", "job.py", "pkg/"]


def test_ignore_files_are_followed_as_git_follows_them(folder: Path):
    write(folder, **{
        ".gitignore": "*.ckpt\ndata/\n!keep.ckpt\n/top.txt\n", ".rayignore": "notes.md\n", "job.py": "", "a.ckpt": "",
        "keep.ckpt": "", "data/x": "", "top.txt": "", "sub/top.txt": "", "notes.md": "",
        "sub/.gitignore": "!b.ckpt\n*.log\n", "sub/b.ckpt": "", "sub/c.log": "", "c.log": "",
    })  # fmt: skip
    kept = [".gitignore", ".rayignore", "c.log", "job.py", "keep.ckpt", "sub/.gitignore", "sub/b.ckpt", "sub/top.txt"]
    assert names(folder) == kept


def test_what_rayignore_names_stays_though_gitignore_wants_it(folder: Path):
    write(folder, **{".gitignore": "!a.bin\n", ".rayignore": "*.bin\n", "a.bin": ""})
    assert "a.bin" not in names(folder)


def test_what_an_environment_excludes_stays_beside_what_ignore_files_name(folder: Path):
    write(
        folder,
        **{".gitignore": "*.log\n!a.bin\n", "a.bin": "", "a.log": "", "data/x": "", "sub/data/y": "", "job.py": ""},
    )
    assert names(folder, excludes=["*.bin", "/data/"]) == [".gitignore", "job.py", "sub/data/y"]
    with pytest.raises(InvalidInput, match="or by excludes"):
        build_working_dir(folder, folder.parent / "out", script="job.py", excludes=["*.py"])


def test_a_module_lies_in_a_folder_of_its_name(folder: Path):
    write(folder, **{"__init__.py": "", "deep/a.py": "", "empty/.rayignore": "*\n"})
    assert names(folder, inside="lib/") == ["lib/__init__.py", "lib/deep/a.py", "lib/empty/"]


def test_a_wheel_travels_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wheel = put(tmp_path, "lib-1.0-py3-none-any.whl", "content")
    assert working_dir.ready_made(wheel).size_bytes == 7
    assert working_dir.ready_made(wheel).sha256 == hashlib.sha256(b"content").hexdigest()
    monkeypatch.setattr(working_dir, "ZIP_BYTES", 6)
    with pytest.raises(InvalidInput, match="is larger than"):
        working_dir.ready_made(wheel)


def test_ignore_files_above_count_up_to_the_work_tree(folder: Path):
    write(folder, **{".git/config": "", ".gitignore": "*.ckpt\n", "train/job.py": "", "train/a.ckpt": ""})
    put(folder.parent, ".gitignore", "*.py\n")
    assert names(folder / "train") == ["job.py"]


def test_a_script_that_an_ignore_file_names_is_not_forgotten_silently(folder: Path):
    write(folder, **{".gitignore": "job*.py\n", "job.py": ""})
    with pytest.raises(InvalidInput, match="left out by an ignore file"):
        build_working_dir(folder, folder.parent / "out", script="job.py")


# links -------------------------------------------------------------------------------------------


def test_links_inside_travel_as_what_they_point_to(folder: Path):
    put(folder, "real/a.txt", "content")
    (folder / "link.txt").symlink_to("real/a.txt")
    (folder / "folder").symlink_to("real")
    built = build_working_dir(folder, folder.parent / "out")
    with zipfile.ZipFile(built.path) as archive:
        assert archive.namelist() == ["folder/a.txt", "link.txt", "real/a.txt"]
        assert archive.read("link.txt") == archive.read("folder/a.txt") == b"content"
        assert all(stat.S_ISREG(info.external_attr >> 16) for info in archive.infolist())


@pytest.mark.parametrize(
    ("target", "problem"),
    [("/etc/passwd", "outside"), ("../other", "outside"), ("nowhere", "link to nothing"), (".", "lies in")],
)
def test_other_links_are_refused_by_name(folder: Path, target: str, problem: str):
    put(folder.parent, "other/x")
    (folder / "sub").mkdir()
    (folder / "sub" / "link").symlink_to(target if target.startswith(("/", "n")) else f"../{target}")
    with pytest.raises(InvalidInput, match=rf"sub/link.*{problem}"):
        build_working_dir(folder, folder.parent / "out")


def test_a_link_that_is_ignored_harms_nobody(folder: Path):
    write(folder, **{".rayignore": "link\n", "job.py": ""})
    (folder / "link").symlink_to("/etc/passwd")
    assert names(folder) == [".rayignore", "job.py"]


# trouble -----------------------------------------------------------------------------------------


def test_too_much_is_refused_with_the_largest_files(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(working_dir, "ZIP_BYTES", 50_000)
    put(folder, "small.py", "x")
    for name, size in (("big.bin", 60_000), ("biggest.bin", 70_000)):
        (folder / name).write_bytes(random.Random(size).randbytes(size))
    with pytest.raises(InvalidInput, match=r"biggest\.bin \(0\.1 MiB\), big\.bin .*\.rayignore"):
        build_working_dir(folder, folder.parent / "out")
    assert list((folder.parent / "out").iterdir()) == []


def test_far_too_much_is_refused_before_it_is_read(folder: Path):
    with (folder / "sparse.bin").open("wb") as file:
        file.truncate(2 * 2**30)
    with pytest.raises(InvalidInput, match=r"more than 1024 MiB together.*sparse\.bin \(2048\.0 MiB\)"):
        build_working_dir(folder, folder.parent / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(folder: Path):
    put(folder, "closed.txt").chmod(0)
    with pytest.raises(InvalidInput, match=r"closed\.txt.*cannot be read"):
        build_working_dir(folder, folder.parent / "out")


def test_a_file_that_vanishes_meanwhile_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    put(folder, "going.txt")
    real = working_dir._write

    def write_after(entries: list, file: object) -> None:
        (folder / "going.txt").unlink()
        real(entries, file)

    monkeypatch.setattr(working_dir, "_write", write_after)
    with pytest.raises(InvalidInput, match=r"going\.txt.*cannot be read"):
        build_working_dir(folder, folder.parent / "out")


def test_a_name_that_is_no_text_is_refused(folder: Path):
    name = os.fsencode(folder) + b"/bad\xff.txt"
    Path(os.fsdecode(name)).touch()
    with pytest.raises(InvalidInput, match="no valid UTF-8"):
        build_working_dir(folder, folder.parent / "out")


def test_pipes_and_sockets_stay(folder: Path):
    put(folder, "job.py")
    os.mkfifo(folder / "pipe")
    assert names(folder) == ["job.py"]


def test_no_folder_is_an_error(tmp_path: Path):
    with pytest.raises(InvalidInput, match="is not a folder"):
        build_working_dir(tmp_path / "missing", tmp_path / "out")


def test_is_light_to_import():
    heavy = {"requests", "pydantic", "numpy", "pathspec", "urllib3", "asyncio"}
    code = "import sys, carbon_sched.working_dir; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "zipfile" in loaded
    assert heavy.isdisjoint(loaded)
