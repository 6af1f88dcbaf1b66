"""The presets that are shipped: found in a wheel inside the package, in a checkout in `policies/` at the root."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import carbon_sched
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.policy.load import parse_policy

if TYPE_CHECKING:
    from carbon_sched.policy.model import Policy

DEFAULT = "balanced"


def presets_folder() -> Path:
    """The folder of the shipped YAML files; raises FileNotFoundError when the installation lost it."""
    package = Path(carbon_sched.__file__).parent
    # An editable install imports from the checkout, where nothing is copied into the package.
    for folder in (package / "_presets", package.parent.parent / "policies"):
        if (folder / f"{DEFAULT}.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no presets beside {package}: reinstall carbon-sched")


def preset_names() -> tuple[str, ...]:
    """Names of the shipped presets, sorted."""
    return tuple(sorted(path.stem for path in presets_folder().glob("*.yaml")))


@cache
def preset(name: str) -> Policy:
    """A shipped preset by name, read once; raises InvalidInput, naming those there are, for any other."""
    names = preset_names()
    if name not in names:
        raise InvalidInput("policy", name, "is not a shipped preset", f"Use one of: {', '.join(names)}")
    file = f"{name}.yaml"
    return parse_policy((presets_folder() / file).read_bytes(), file, preset)
