"""Settings of the server: defaults < config file < environment (`CARBON_SCHED_*`) < flags; no secrets among them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carbon_sched.data_dir import default_data_dir
from carbon_sched.domain.errors import InvalidInput

class SeriesSetting(BaseModel):
    """A file with the intensity of one zone over time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: str
    file: Path


class GridSettings(BaseModel):
    """Where intensities come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    series: tuple[SeriesSetting, ...] = ()


class Settings(BaseModel):
    """Everything `carbon-sched serve` can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_dir: Path = Field(default_factory=default_data_dir)
    database: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    grid: GridSettings = GridSettings()

    @property
    def database_url(self) -> str:
        """The configured database, or SQLite in the data folder."""
        return self.database or f"sqlite:///{self.data_dir / 'carbon-sched.sqlite'}"


def load_settings(flags: dict[str, Any], config: Path | None) -> Settings:
    """Merge all levels; raises InvalidInput naming the field, the value and the remedy.

    Without `config`, `config.yaml` in the data folder is read when it is there. Relative paths in a config file are
    relative to it.
    """
    data_dir = Path(flags.get("data_dir") or default_data_dir())
    explicit = config or (Path(os.environ["CARBON_SCHED_CONFIG"]) if "CARBON_SCHED_CONFIG" in os.environ else None)
    file = explicit or data_dir / "config.yaml"
    merged: dict[str, Any] = _read(file) if explicit or file.exists() else {}
    for name in ("database", "host", "port"):
        if value := os.environ.get(f"CARBON_SCHED_{name.upper()}"):
            merged[name] = value
    merged |= {name: value for name, value in flags.items() if value is not None} | {"data_dir": data_dir}
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(field, first.get("input", ""), first["msg"].lower(), f"Correct it in {file}") from None
    series = tuple(s.model_copy(update={"file": file.parent / s.file}) for s in settings.grid.series)
    return settings.model_copy(update={"grid": GridSettings(series=series)})


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput("config", file, f"cannot be read ({error.strerror})", "Name a readable YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidInput("config", file, f"is not YAML{where}", "Correct the file") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidInput("config", file, "is not a mapping", "Write keys such as 'grid:' at its top level")
    return content
