"""The C stub of NVML: built once per test session with the machine's compiler, and a script to drive it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pynvml
import pytest

from carbon_sched_runtime.accounts import Sample
from carbon_sched_runtime.nvml import Nvml

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


START = 1000
"""When a `StubAtAnHour` begins (Unix seconds)."""


class StubAtAnHour:
    """The stub in this process (`loaded_nvml`), with one GPU and its clock stopped wherever the test puts it."""

    def __init__(self, stub: StubbedNvml, *flags: str) -> None:
        self.stub, self.flags = stub, flags
        self.watts: list[tuple[float, float]] = [(START, 0.0)]
        self.now = float(START)
        self.write()
        self.nvml = Nvml()
        self.devices = self.nvml.devices

    def write(self) -> None:
        """Tell the stub what time it is and what the GPU draws."""
        events = [f"at {at:.6f} 0 watts {watts:.3f}" for at, watts in self.watts]
        self.stub.write("count 1", f"origin {START}", f"now {self.now:.6f}", *self.flags, *events)

    def sample(self) -> Sample:
        """One look at it, at its time."""
        self.write()
        return Sample(round(self.now * 1e9), round(self.now * 1e6), self.nvml.read())

    def true_j(self, start: float, end: float) -> float:
        """The integral of the scripted power."""
        edges = [*self.watts, (float("inf"), 0.0)]
        return sum(watts * max(0.0, min(end, later) - max(start, at)) for (at, watts), (later, _) in pairwise(edges))


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


@pytest.fixture
def loaded_nvml(stubbed_nvml: StubbedNvml, monkeypatch: pytest.MonkeyPatch) -> StubbedNvml:
    """The stub loaded into this process, in place of a driver."""
    for name, value in stubbed_nvml.environment.items():
        monkeypatch.setenv(name, value)
    library = ctypes.CDLL(str(stubbed_nvml.library))
    monkeypatch.setattr(pynvml, "CDLL", lambda _: library)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return stubbed_nvml
