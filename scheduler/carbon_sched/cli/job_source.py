"""From the words and flags of `submit` to a job: what runs, which files travel, and the options from every place."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carbon_sched.cli import runtime_env
from carbon_sched.cli.script_options import Beside, read_job_file, read_manifest, read_script
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.options.given import Given
from carbon_sched.options.secrets import anchored_secrets
from carbon_sched.working_dir import select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTERPRETERS = {".py": "python", ".sh": "bash"}
JOB_FILES = (".yaml", ".yml")
SCRIPT_BYTES = 4 * 1024 * 1024
"""A larger script holds data; its metadata would still stand at its top."""
NOT_REQUEST = ("working-dir", "runtime-env", "script", "args", "entrypoint")


@dataclass(frozen=True)
class Sent:
    """Files that travel: a folder, or one file of it; `script` must be among them."""

    root: Path
    only: str | None = None
    script: str | None = None


@dataclass(frozen=True)
class JobSource:
    """A job as it was given: `entrypoint` for the shell, files to send, options for the request, the environment.

    Local modules stand in the environment's `py_modules` by their path; `excludes` names what of all files stays here.
    `manifest` is the RayJob that it is, if it is one: that says what runs and where its files are.
    """

    entrypoint: str
    options: Mapping[str, Given]
    environment: Mapping[str, Any]
    sent: Sent | None = None
    notes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    manifest: Mapping[str, Any] | None = None


@dataclass
class _Words:
    """What is to be run: a script with arguments, or a whole command."""

    script: Path | None = None
    arguments: list[str] = field(default_factory=list)
    command: str = ""


def read_job(
    words: Sequence[str],
    *,
    is_command: bool,
    flags: Mapping[str, Given],
    environment: Mapping[str, Any],
    file: str | None,
) -> JobSource:
    """Read the script, its metadata and the job file; flags win over the file, the file over the script.

    `environment` is the runtime_env of the flags. Raises InvalidInput for what cannot be read or meant.
    """
    rest = list(words)
    if file is None and rest and not is_command and rest[0].endswith(JOB_FILES):
        file = rest.pop(0)
    if file is not None and (manifest := read_manifest(Path(file))) is not None:
        return _rayjob(manifest, rest, flags, environment)
    job_file = read_job_file(Path(file)) if file else Beside()
    folder = Path(file).parent if file else Path()
    what = _words(rest, is_command, job_file, folder)
    script = _metadata(what.script) if what.script is not None else Beside()
    options = {**script.options, **job_file.options, **flags}
    places = ((script, what.script.parent if what.script else Path()), (job_file, folder), (Beside(flags), Path()))
    if secrets := anchored_secrets([(beside.options.get("secret"), place) for beside, place in places]):
        options["secret"] = secrets
    notes: list[str] = []
    merged = _environment(script, what.script, job_file, folder, environment, notes)
    excludes = tuple(merged.pop("excludes", None) or ())
    remote, local = _working_dir(merged, script, what.script, job_file, folder, flags)
    if remote:
        merged["working_dir"] = remote
    sent = None if remote else _sent(what, local, notes)
    entrypoint = what.command if what.script is None else _entrypoint(what.script, what.arguments, sent)
    if script.requires_python:
        notes.append(f"requires-python {script.requires_python} is not checked: the cluster's Python runs the job")
    request_options = {name: given for name, given in options.items() if name not in NOT_REQUEST}
    return JobSource(entrypoint, request_options, merged, sent, tuple(notes), excludes)


def _rayjob(
    manifest: Mapping[str, Any], rest: list[str], flags: Mapping[str, Given], environment: Mapping[str, Any]
) -> JobSource:
    """A RayJob is submitted as it is; flags add what its annotations could say."""
    from carbon_sched.options.rayjob import entrypoint_of

    surplus = [given.label for name, given in flags.items() if name in NOT_REQUEST]
    surplus += ["--runtime-env"] if environment else []
    if rest or surplus:
        remedy = "Say it in the manifest: spec.entrypoint, spec.runtimeEnvYAML"
        raise InvalidInput((*surplus, "arguments")[0], " ".join(rest), "does not go with a RayJob", remedy)
    return JobSource(entrypoint_of(manifest), dict(flags), {}, manifest=manifest)


def _words(words: list[str], is_command: bool, job_file: Beside, folder: Path) -> _Words:
    if is_command:
        return _Words(command=shlex.join(words))
    if "script" in job_file.options and not (words and words[0].endswith(tuple(INTERPRETERS))):
        given = job_file.options["script"]
        arguments = job_file.options.get("args", Given([], "args"))
        if not isinstance(arguments.value, list):
            raise InvalidInput(arguments.label, arguments.value, "is not a list", 'Write ["--steps", "100"]')
        return _Words(folder / str(given.value), words or [str(item) for item in arguments.value])
    if not words and "entrypoint" in job_file.options:
        return _Words(command=str(job_file.options["entrypoint"].value))
    if not words:
        remedy = "Write: carbon-sched submit job.py, or: carbon-sched submit -- COMMAND"
        raise InvalidInput("job", "", "is not given", remedy)
    script = Path(words[0])
    if script.suffix not in INTERPRETERS:
        remedy = f"Give a .py or .sh file; a command stands behind --: carbon-sched submit -- {shlex.join(words)}"
        raise InvalidInput("script", words[0], "is not a script", remedy)
    return _Words(script, words[1:])


def _metadata(script: Path) -> Beside:
    """What a Python script says of itself; nothing for one that is not on this machine (a remote working dir)."""
    if script.suffix != ".py" or not script.is_file():
        return Beside()
    try:
        with script.open("rb") as file:
            head = file.read(SCRIPT_BYTES)
    except OSError as error:
        raise InvalidInput("script", script, f"cannot be read ({error.strerror})", "Check its permissions") from None
    if b"# /// script" not in head:
        return Beside()
    return read_script(head.decode("utf-8", "replace"), str(script))


def _environment(
    script: Beside, path: Path | None, job_file: Beside, folder: Path, flags: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """The runtime_env of all three places, key by key; local files in each are read as seen from there."""
    merged: dict[str, Any] = {}
    for beside, place in ((script, path.parent if path else Path()), (job_file, folder)):
        if "runtime-env" in beside.options:
            given = beside.options["runtime-env"]
            found = runtime_env.from_option(given.label, given.value, place)
            merged |= _rooted(runtime_env.localised(found, place), place)
    merged |= runtime_env.localised(flags, Path())
    named = [key for key in runtime_env.INSTALLERS if key in merged]
    if script.dependencies and named:
        notes.append(f"the script's own dependencies are not used: runtime_env names {', '.join(named)}")
    return runtime_env.with_script(merged, script)


def _rooted(environment: dict[str, Any], folder: Path) -> dict[str, Any]:
    local = environment.get("working_dir")
    if isinstance(local, str) and runtime_env.is_local(local):
        environment["working_dir"] = str(folder / local)
    return environment


def _working_dir(
    environment: dict[str, Any],
    script: Beside,
    path: Path | None,
    job_file: Beside,
    folder: Path,
    flags: Mapping[str, Given],
) -> tuple[str | None, Path | None]:
    """The working dir wherever it was named: a remote URI, or a folder of this machine; taken out of `environment`."""
    found = environment.pop("working_dir", None)
    places = ((script, path.parent if path else Path()), (job_file, folder), (Beside(flags), Path()))
    for beside, place in places:
        if "working-dir" in beside.options:
            value = str(beside.options["working-dir"].value)
            found = str(place / value) if runtime_env.is_local(value) else value
    if found is None:
        return None, None
    return (None, Path(str(found)).expanduser()) if runtime_env.is_local(str(found)) else (str(found), None)


def _sent(what: _Words, folder: Path | None, notes: list[str]) -> Sent | None:
    if folder is not None and not folder.is_dir():
        raise InvalidInput("working-dir", folder, "is not a folder", "Give a folder that can be read")
    if what.script is None:
        if folder is None and any(Path(word).is_file() for word in _split(what.command)):
            notes.append("a command brings no files along; add --working-dir . to send this folder")
        return Sent(folder) if folder is not None else None
    if folder is None:
        chosen = select(what.script)
        if chosen.only is not None:
            notes.append(f"{chosen.only} travels alone: its folder is in no project; --working-dir DIR sends a folder")
        return Sent(chosen.root, chosen.only, chosen.script)
    return Sent(folder, None, _inside(what.script, folder))


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _inside(script: Path, folder: Path) -> str:
    """The script as seen from the folder that is sent."""
    root = folder.resolve()
    for candidate in (script.absolute().resolve(), (folder / script).resolve()):
        if candidate.is_file() and candidate.is_relative_to(root):
            return candidate.relative_to(root).as_posix()
    raise InvalidInput(
        "script", script, f"is not in the working dir {folder}", "Give a script that lies in that folder"
    )


def _entrypoint(script: Path, arguments: list[str], sent: Sent | None) -> str:
    path = sent.script if sent is not None and sent.script else script.as_posix()
    return shlex.join([INTERPRETERS[script.suffix], path, *arguments])
