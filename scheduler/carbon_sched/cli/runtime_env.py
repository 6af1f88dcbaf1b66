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

    A local `working_dir` is left to the caller. Raises InvalidInput for files that cannot be read and for what cannot
    travel with a job.
    """
    result = dict(environment)
    for key in ("pip", "uv"):
        if isinstance(result.get(key), str):
            result[key] = _requirements(f"runtime_env.{key}", folder / result[key])
    if isinstance(result.get("conda"), str) and result["conda"].endswith(YAML_ENDINGS):
        result["conda"] = read_file("runtime_env.conda", folder / result["conda"])
    for module in result.get("py_modules") or []:
        if "://" not in str(module):
            remedy = "Put the module into the working dir, or name a remote zip such as s3://bucket/module.zip"
            raise InvalidInput("runtime_env.py_modules", module, "is a local path", remedy)
    if result.get("excludes"):
        remedy = "List what must not be sent in .rayignore, in the same form"
        raise InvalidInput("runtime_env.excludes", result["excludes"], "is not supported", remedy)
    result.pop("excludes", None)
    return result


def _requirements(label: str, path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        remedy = "Name a requirements file, or list the packages"
        raise InvalidInput(label, path, f"cannot be read ({reason})", remedy) from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
