from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

from carbon_sched.clusters.bundle import runtime_package

if TYPE_CHECKING:
    from pathlib import Path


def test_the_package_is_importable_from_its_zip_alone(tmp_path: Path):
    path, name = runtime_package(tmp_path)
    assert path.name == name
    assert re.fullmatch(r"_ray_pkg_cs[0-9a-f]{32}\.zip", name)
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(unpacked)
    code = "import carbon_sched_runtime._pynvml as p; print(p.__file__, hasattr(p, 'nvmlInit'))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=unpacked, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(unpacked / "carbon_sched_runtime" / "_pynvml.py"), "True"]


def test_the_name_follows_from_the_content(tmp_path: Path):
    first, name = runtime_package(tmp_path / "a")
    second, again = runtime_package(tmp_path / "b")
    assert name == again
    assert first.read_bytes() == second.read_bytes()


def test_a_damaged_copy_is_written_again(tmp_path: Path):
    path, _ = runtime_package(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:100])
    assert runtime_package(tmp_path)[0].read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
