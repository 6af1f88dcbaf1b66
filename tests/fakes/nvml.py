"""The C stub of NVML: built once per test session with the machine's compiler, and a script to drive it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml_stub.c")


@dataclass(frozen=True)
class StubbedNvml:
    """A folder that holds `libnvidia-ml.so.1`, and the files it reads and writes for one test."""

    library: Path
    script: Path
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to see the stub instead of a driver."""
        return {
            "LD_LIBRARY_PATH": str(self.library.parent),
            "NVML_STUB_SCRIPT": str(self.script),
            "NVML_STUB_LOG": str(self.log),
        }

    def write(self, *lines: str) -> None:
        """Replace the script at once, as a whole."""
        fresh = self.script.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
        fresh.replace(self.script)

    def readings_mj(self, gpu: int) -> list[int]:
        """Every value of a GPU's counter that anyone was given, in order."""
        if not self.log.exists():
            return []
        pairs = (line.split() for line in self.log.read_text(encoding="utf-8").splitlines())
        return [int(value) for index, value in pairs if int(index) == gpu]


def uuid(gpu: int) -> str:
    """The device id that our rows give a stubbed GPU."""
    return f"gpu:GPU-00000000-0000-0000-0000-{gpu:012d}"


def build_stub(folder: Path) -> Path:
    """Compile the stub into a folder; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the NVML stub cannot be built (.ci/provision installs one)")
    library = folder / "libnvidia-ml.so.1"
    command = [
        compiler,
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(SOURCE),
        "-lm",
    ]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled stub."""
    return build_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def stubbed_nvml(nvml_library: Path, tmp_path: Path) -> StubbedNvml:
    """The stub with a script of this test's own (one GPU that draws nothing, until `write`)."""
    stub = StubbedNvml(nvml_library, tmp_path / "nvml.script", tmp_path / "nvml.log")
    stub.write("count 1")
    return stub
