"""What `doctor` looks at on this machine: Python and Ray, folders and disk, and what of its energy can be measured.

Nothing is started and nothing is changed; a folder that does not exist yet is judged by the nearest one that does.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import ClusterError, InvalidInput, ServerUnavailable, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched_runtime.sources import Sources

OK, WARNING, PROBLEM = "ok", "warning", "problem"
OLDEST_RAY = (2, 9)
SERVER_NEEDS = ("uvicorn", "fastapi", "sqlalchemy", "alembic")
LITTLE_BYTES, TOO_LITTLE_BYTES = 2 * 2**30, 200 * 2**20
"""Below the first, Ray spills and bundles soon fail; below the second, a first job with its bundle may not fit."""
RAPL_REMEDY = (
    "Run the meter that reads them as root and signs what it reads: sudo carbon-sched meter install. "
    "Do not open the counters to every user: they leak secrets of other processes (CVE-2020-8694)"
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. A `problem` is in the way of jobs and names the exit code it would end them with."""

    level: str
    topic: str
    text: str
    remedy: str = ""
    exit_code: int = InvalidInput.exit_code


@dataclass(frozen=True)
class Energy:
    """What of this machine's energy is read from counters, and what is estimated, in words."""

    measured: tuple[str, ...]
    estimated: tuple[str, ...]


def look_at_software(*, remote: bool) -> Iterator[Finding]:
    """Python, the server's libraries and Ray; with a configured server neither of the latter is needed here."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(OK, "python", f"Python {python} at {sys.executable}")
    if remote:
        return
    missing = [name for name in SERVER_NEEDS if not _installed(name)]
    if missing:
        remedy = "pip install 'carbon-sched[local]', or set CARBON_SCHED_URL to your team's server"
        text = f"no server can run here: {', '.join(missing)} missing"
        yield Finding(PROBLEM, "server", text, remedy, ServerUnavailable.exit_code)
    yield _ray(ray_version())


def _ray(version: str) -> Finding:
    remedy = "pip install 'carbon-sched[local]'; clusters with an --address do not need it"
    if not version:
        return Finding(WARNING, "ray", "Ray is not installed: no local cluster can start here", remedy)
    if numbers(version) < OLDEST_RAY:
        return Finding(PROBLEM, "ray", f"Ray {version} is too old (2.9 or newer)", remedy, ClusterError.exit_code)
    return Finding(OK, "ray", f"Ray {version}")


def ray_version() -> str:
    """The Ray of this environment; empty where there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ray")
    except PackageNotFoundError:
        return ""


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison."""
    found = []
    for part in version.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def look_at_folder(topic: str, folder: Path, remedy: str) -> Iterator[Finding]:
    """Whether `folder` (there or not) can be written and has room."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not _can_write(there):
        what = "is not a folder" if not there.is_dir() else "cannot be written"
        where = folder if there == folder else f"{folder} cannot be made: {there}"
        yield Finding(PROBLEM, topic, f"{where} {what}", remedy, StoreError.exit_code)
        return
    free = shutil.disk_usage(there).free
    text = f"{folder}: {free / 2**30:.1f} GiB free"
    if free < LITTLE_BYTES:
        level = PROBLEM if free < TOO_LITTLE_BYTES else WARNING
        yield Finding(level, topic, f"{text}: the disk is nearly full", f"Free some space, or {remedy[:1].lower()}"
                      f"{remedy[1:]}", StoreError.exit_code)  # fmt: skip
    else:
        yield Finding(OK, topic, text)


def _can_write(folder: Path) -> bool:
    """Tried, since permissions do not tell of a filesystem mounted read-only; the file has no name and leaves none."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def look_at_data_folder(folder: Path, mounts: Path | None = None) -> Iterator[Finding]:
    """The folder of the server: writable, with room, on a local disk."""
    from carbon_sched.store import location

    yield from look_at_folder("data folder", folder, "Set CARBON_SCHED_DATA_DIR to another folder on a local disk")
    try:
        location.check_local_filesystem(folder, mounts or location.MOUNTS)
    except InvalidInput as error:
        remedy = "Set CARBON_SCHED_DATA_DIR to a folder on a local disk, or use PostgreSQL (--database)"
        yield Finding(PROBLEM, "data folder", f"{folder} {error.problem}", remedy)


def look_at_scratch() -> Iterator[Finding]:
    """Where zips are built before they are sent."""
    remedy = "Set TMPDIR to another folder"
    try:
        folder = Path(tempfile.gettempdir())
    except OSError:
        yield Finding(PROBLEM, "temporary folder", "there is no folder for temporary files", remedy)
        return
    yield from look_at_folder("temporary folder", folder, remedy)


def look_at_energy(sources: Sources) -> tuple[Energy, list[Finding]]:
    """What the reader of `carbon_sched_runtime` finds here, and what would make it find more."""
    counted, modelled = [], []
    for one in sources.devices.values():
        shown = f"{one.kind} {one.name} ({one.scope})" if one.scope else f"{one.kind} {one.name}"
        if one.source == "estimated":
            modelled.append(f"{shown}: by utilisation, +/-{one.error_ppm / 10_000:g} %")
        elif one.counts:
            counted.append(f"{shown}: energy counter, +/-{one.error_ppm / 10_000:g} %")
        else:
            counted.append(f"{shown}: power, integrated over time")
    return Energy(tuple(counted), tuple(modelled)), [*_rapl(sources), *_nvml(sources)]


def _rapl(sources: Sources) -> Iterator[Finding]:
    readable = [device for device in sources.rapl.devices.values() if device.kind == "cpu"]
    if sources.rapl.refused:
        text = f"CPU energy counters are there and cannot be read by this user: {'; '.join(sources.rapl.refused[:2])}"
        yield Finding(WARNING, "cpu energy", text, RAPL_REMEDY)
    elif readable:
        yield Finding(OK, "cpu energy", f"RAPL counters of {len(readable)} CPU package(s) can be read")
    elif any(device.source == "estimated" for device in sources.devices.values()):
        remedy = (
            "Nothing to do in a virtual machine: hosts rarely pass RAPL on; elsewhere load the module intel_rapl_msr"
        )
        yield Finding(WARNING, "cpu energy", "this machine shows no RAPL counters; CPU energy is estimated", remedy)


def _nvml(sources: Sources) -> Iterator[Finding]:
    gpus = sources.nvml.devices
    for trouble in sources.nvml.troubles:
        yield Finding(WARNING, "gpu energy", trouble, "nvidia-smi -q -d POWER tells what the driver itself can read")
    if sources.nvml.absent:
        if _has_nvidia_device():
            remedy = "Install NVIDIA's driver with its library libnvidia-ml.so.1; in a container, pass both in"
            text = f"an NVIDIA GPU is here, but NVML does not work: {sources.nvml.absent}"
            yield Finding(WARNING, "gpu energy", text, remedy)
        else:
            yield Finding(OK, "gpu energy", f"no NVIDIA GPU here ({sources.nvml.absent})")
    elif gpus:
        yield Finding(OK, "gpu energy", f"NVML reads {len(gpus)} GPU(s)")
    if gpus and not sources.joins_pids:
        text = "processes on the GPU cannot be told apart from inside this container"
        yield Finding(WARNING, "gpu energy", text, "Run the reader outside: sudo carbon-sched meter install")


def _has_nvidia_device() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))
