"""Our runtime package as Ray gets it: `carbon_sched_runtime` and one copy of pynvml, in a zip named by its content."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import stat
import tempfile
import zipfile
from pathlib import Path

from carbon_sched.domain.errors import Internal

PACKAGE = "carbon_sched_runtime"
# Under our own name: a user's `import pynvml` must find theirs, never ours.
PYNVML_AS = f"{PACKAGE}/_pynvml.py"
MARK = "carbon_sched_runtime.txt"
"""From a package that Ray reads from a file it takes the top folder off, unless something stands beside that."""
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
NAME_CHARACTERS = 32


def runtime_package(into: Path) -> tuple[Path, str]:
    """Write the package's zip into the folder `into` unless it is there; returns (path, name for `ensure_package`).

    Modules lie at the zip's root, as Ray's `py_modules` needs it. The name `_ray_pkg_cs<hash>.zip` follows from the
    content, so that a cluster that has this version is not sent it again.
    """
    content = _zip(_sources())
    name = f"_ray_pkg_cs{hashlib.sha256(content).hexdigest()[:NAME_CHARACTERS]}.zip"
    into.mkdir(parents=True, exist_ok=True)
    path = into / name
    if not path.is_file() or path.read_bytes() != content:
        with tempfile.NamedTemporaryFile(dir=into, prefix=".building-", delete=False) as draft:
            draft.write(content)
        Path(draft.name).replace(path)
    return path, name


def _sources() -> dict[str, bytes]:
    folder = _module_file(PACKAGE).parent
    sources = {
        f"{PACKAGE}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return {**sources, PYNVML_AS: _module_file("pynvml").read_bytes(), MARK: b""}


def _module_file(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise Internal(f"the module {name} is missing from this installation; install carbon-sched again")
    return Path(spec.origin)


def _zip(sources: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(sources.items()):
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()
