"""Ray's runtime environment as `ray job submit` takes it: a YAML file or JSON, with local files read in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.options.given import NOT_SHOWN, json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.cli.script_options import Beside

INSTALLERS = ("pip", "uv", "conda")
"""Keys that say which packages a job gets; naming one replaces what a script says of its own dependencies."""
YAML_ENDINGS = (".yaml", ".yml")
MODULES = (".py", ".whl")
"""What may be one of Ray's `py_modules` beside a folder."""


def from_flags(file: str | None, text: str | None) -> dict[str, Any]:
    """The environment of `--runtime-env FILE` or `--runtime-env-json TEXT`; InvalidInput for both, as with Ray."""
    if file is not None and text is not None:
        raise InvalidInput("--runtime-env-json", NOT_SHOWN, "stands beside --runtime-env", "Give one of the two")
    if text is not None:
        return json_object("--runtime-env-json", text, secret=True)
    return read_file("--runtime-env", Path(file)) if file is not None else {}


def from_option(label: str, value: Any, folder: Path) -> dict[str, Any]:
    """The environment of a `runtime-env` option: a table, or the path of a YAML file as seen from `folder`."""
    if isinstance(value, str):
        return read_file(label, folder / value)
    if not isinstance(value, dict):
        raise InvalidInput(label, NOT_SHOWN, "is neither a table nor a path", "Write the fields of Ray's runtime_env")
    return value


def read_file(label: str, path: Path) -> dict[str, Any]:
    """A YAML file with a mapping in it."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(label, path, f"cannot be read ({error.strerror})", "Give the path of a YAML file") from None
    except UnicodeDecodeError:
        raise InvalidInput(label, path, "is not UTF-8", "Save the file as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidInput(label, path, f"is not YAML{where}: {error.problem}", "Correct the file") from None
    except yaml.YAMLError as error:
        raise InvalidInput(label, path, f"is not YAML: {error}", "Correct the file") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidInput(label, path, "is not a mapping", "Write the fields of Ray's runtime_env, one per line")
    return content


def with_script(environment: Mapping[str, Any], script: Beside) -> dict[str, Any]:
    """Add the packages a script asks for, unless the environment names its own."""
    named = any(key in environment for key in INSTALLERS)
    if named or not script.dependencies:
        return dict(environment)
    return {**environment, script.installer: list(script.dependencies)}


def localised(environment: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The environment with every local file it names read in; relative paths as seen from `folder`.

    A local `working_dir`, local `py_modules` (here with their whole path) and `excludes` are left to the caller. Raises
    InvalidInput for files that cannot be read.
    """
    result = dict(environment)
    for key in ("pip", "uv"):
        if isinstance(result.get(key), str):
            result[key] = _requirements(f"runtime_env.{key}", folder / result[key])
    if isinstance(result.get("conda"), str) and result["conda"].endswith(YAML_ENDINGS):
        result["conda"] = read_file("runtime_env.conda", folder / result["conda"])
    if result.get("py_modules"):
        result["py_modules"] = [_module(text, folder) for text in _texts("py_modules", result["py_modules"])]
    if result.get("excludes"):
        _texts("excludes", result["excludes"])
    return result


def is_local(uri: str) -> bool:
    """Whether a `working_dir` or module lies on this machine."""
    return "://" not in uri


def _module(text: str, folder: Path) -> str:
    if not is_local(text):
        return text
    path = (folder / Path(text).expanduser()).absolute()
    if not path.is_dir() and not (path.suffix in MODULES and path.is_file()):
        remedy = "Name a folder, a .py or .whl file, or a remote zip such as s3://bucket/module.zip"
        raise InvalidInput("runtime_env.py_modules", text, "is no module that can be sent", remedy)
    return str(path)


def _texts(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidInput(f"runtime_env.{key}", value, "is not a list of texts", 'Write ["one", "two"]')
    return value


def _requirements(label: str, path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        remedy = "Name a requirements file, or list the packages"
        raise InvalidInput(label, path, f"cannot be read ({reason})", remedy) from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
