"""The files that travel with a job: zipped here, and uploaded by the hash of their content if the server lacks them."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from carbon_sched.cli.progress import Progress
from carbon_sched.cli.runtime_env import is_local
from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from carbon_sched.cli.job_source import JobSource
    from carbon_sched.client import Client
    from carbon_sched.wire import JobRequest, JobView
    from carbon_sched.working_dir import WorkingDir


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Parcel:
    """The zip of a job's folder, and its local modules: by their path, what the request calls them and their files."""

    folder: WorkingDir | None = None
    modules: dict[str, tuple[str, WorkingDir]] = field(default_factory=dict)


@contextmanager
def packed(source: JobSource) -> Iterator[Parcel]:
    """What a job sends, in a temporary folder that is gone afterwards; InvalidInput for what cannot be sent."""
    try:
        scratch = tempfile.TemporaryDirectory(prefix="carbon-sched-")
    except OSError as error:
        raise _no_room(error) from None
    with scratch as name:
        try:
            parcel = _pack(source, Path(name))
        except OSError as error:
            raise _no_room(error) from None
        yield parcel


def name_files(request: JobRequest, parcel: Parcel) -> None:
    """Name in the request all that goes with it."""
    if parcel.folder is not None:
        request["bundle_sha256"] = parcel.folder.sha256
    if parcel.modules:
        environment: dict[str, Any] = request["runtime_env"]
        names = {path: name for path, (name, _) in parcel.modules.items()}
        environment["py_modules"] = [names.get(module, module) for module in environment["py_modules"]]


def submit(client: Client, request: JobRequest, parcel: Parcel, key: str) -> JobView:
    """Submit a job with its files."""
    return with_files(client, parcel, lambda: client.submit(request, idempotency_key=key))


def with_files(client: Client, parcel: Parcel, ask: Callable[[], Answer]) -> Answer:
    """Ask, uploading what the server says it lacks: a request that is refused leaves nothing there."""
    files = {one.sha256: one for one in (parcel.folder, *(files for _, files in parcel.modules.values())) if one}
    while True:
        try:
            return ask()
        except InvalidInput as error:
            lacking = files.pop(error.value, None)
            if lacking is None:
                raise
        with Progress(f"uploading {lacking.files} files, {lacking.size_bytes / 2**20:.1f} MiB"):
            client.put_bundle(lacking.sha256, lacking.path)


def leave(request: JobRequest) -> None:
    """Name nothing in the request that is not sent: for a dry run."""
    if modules := request.get("runtime_env", {}).get("py_modules"):
        request["runtime_env"]["py_modules"] = [module for module in modules if not is_local(module)]


def _pack(source: JobSource, scratch: Path) -> Parcel:
    from carbon_sched.working_dir import build_working_dir

    sent, folder = source.sent, None
    if sent is not None:
        with Progress(f"zipping {sent.root}"):
            folder = build_working_dir(sent.root, scratch, only=sent.only, script=sent.script, excludes=source.excludes)
    local = [module for module in source.environment.get("py_modules", []) if is_local(module)]
    with Progress("zipping modules"):
        return Parcel(folder, {module: _module(Path(module), scratch, source.excludes) for module in local})


def _module(path: Path, scratch: Path, excludes: tuple[str, ...]) -> tuple[str, WorkingDir]:
    """As Ray's own client packs it: a folder under its name, a file alone, a wheel as it is."""
    from carbon_sched.working_dir import build_working_dir, ready_made

    if path.suffix == ".whl" and path.is_file():
        wheel = ready_made(path)
        return f"bundle://{wheel.sha256}/{path.name}", wheel
    if path.is_file():
        files = build_working_dir(path.parent, scratch, only=path.name)
    else:
        files = build_working_dir(path, scratch, excludes=excludes, inside=f"{path.name}/")
    return f"bundle://{files.sha256}", files


def _no_room(error: OSError) -> InvalidInput:
    remedy = "Free some space there, or set TMPDIR to another folder"
    return InvalidInput("TMPDIR", tempfile.gettempdir(), f"cannot hold the zip ({error.strerror or error})", remedy)
