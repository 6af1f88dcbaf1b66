"""Settings of the server: defaults < config file < environment (`CARBON_SCHED_*`) < flags; no secrets among them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from carbon_sched.data_dir import default_data_dir
from carbon_sched.domain.errors import InvalidInput

REFERENCE = re.compile("(file|env):.+")
NOT_SHOWN = "(not shown)"
HARMLESS = ("provider", "zone", "file", "signal", "basis", "perimeter")
"""Settings of the grid whose values an error may repeat; a key may stand in place of any other."""


class SeriesSetting(BaseModel):
    """A file with the intensity of one zone over time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: str
    file: Path


class CountsSetting(BaseModel):
    """How a provider counts, for those that do not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    signal: Literal["average", "marginal"] = "average"
    basis: Literal["lifecycle", "direct"] = "lifecycle"
    perimeter: Literal["consumption", "generation"] = "consumption"


class ProviderSetting(BaseModel):
    """An intensity provider. `key` says where its key is read from, never the key itself.

    zones: those it is asked for (none given: all it covers). locations: zone -> the provider's own name for it.
    options: what this provider alone knows, listed by `carbon-sched grid providers`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str
    zones: tuple[str, ...] = ()
    key: str | None = None
    url: str | None = None
    locations: dict[str, str] = Field(default_factory=dict)
    counts: CountsSetting | None = None
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)

    @field_validator("key")
    @classmethod
    def _reference(cls, text: str | None) -> str | None:
        if text is not None and not REFERENCE.fullmatch(text):
            raise PydanticCustomError("reference", "is not file:PATH or env:VARIABLE; keys themselves are never stored")
        return text

    @field_validator("url")
    @classmethod
    def _without_secrets(cls, text: str | None) -> str | None:
        if text is not None and "@" in text:
            raise PydanticCustomError("secret", "holds a user or password; give `key: file:PATH or env:VARIABLE`")
        return text


class GridSettings(BaseModel):
    """Where intensities come from, best first: files, then providers, then the shipped yearly averages.

    providers: None means those that need no key; an empty list means none. A name alone stands for `{provider: NAME}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    series: tuple[SeriesSetting, ...] = ()
    providers: tuple[ProviderSetting, ...] | None = None

    @field_validator("providers", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        return (
            [{"provider": one} if isinstance(one, str) else one for one in given]
            if isinstance(given, (list, tuple))
            else given
        )


class SealSettings(BaseModel):
    """Where seals of the ledger go beside `seals.jsonl` in the data folder, and how often one is made.

    file: only appended to. git: a clone in which each seal is a commit, pushed to `git_remote` where one is named.
    timestamp_url: a timestamp service (RFC 3161) that countersigns each, believed by the certificates in timestamp_ca.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    every_s: float = Field(default=600.0, ge=1.0, le=86_400.0)
    file: Path | None = None
    git: Path | None = None
    git_remote: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[^-\s]\S*$")
    timestamp_url: str | None = Field(default=None, max_length=500, pattern=r"^https?://[^@\s]+$")
    timestamp_ca: Path | None = None

    @model_validator(mode="after")
    def _believed(self) -> SealSettings:
        if (self.timestamp_url is None) != (self.timestamp_ca is None):
            problem = "timestamp_url and timestamp_ca go together: nobody's timestamp is believed without a certificate"
            raise PydanticCustomError("timestamps", problem)
        return self


class Settings(BaseModel):
    """Everything `carbon-sched serve` can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_dir: Path = Field(default_factory=default_data_dir)
    database: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    shared_dir: Path | None = None
    leader_lease_s: float = Field(default=15.0, ge=1.0, le=600.0)
    grid: GridSettings = GridSettings()
    seal: SealSettings = SealSettings()
    secrets_dir: Path | None = None
    token_file: Path | None = None
    clusters_file: Path | None = None
    policies_dir: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    requests_per_s: float = Field(default=500.0, gt=0, le=1e6)

    @property
    def shared(self) -> Path:
        """Where bundles, kept logs and the key of sealed variables lie: one folder for all servers on a database."""
        return self.shared_dir or self.data_dir

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
    for name in ("database", "host", "port", "shared_dir", "leader_lease_s"):
        if value := os.environ.get(f"CARBON_SCHED_{name.upper()}"):
            merged[name] = value
    if (named := os.environ.get("CARBON_SCHED_GRID_PROVIDERS")) is not None:
        merged["grid"] = _with_providers(merged.get("grid"), named)
    merged |= {name: value for name, value in flags.items() if value is not None} | {"data_dir": data_dir}
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise _told(error.errors()[0], file) from None
    anchored: dict[str, Any] = {"grid": _anchored(settings.grid, file.parent)}
    places = {
        name: file.parent / place for name in ("file", "git", "timestamp_ca") if (place := getattr(settings.seal, name))
    }
    anchored["seal"] = settings.seal.model_copy(update=places)
    for name in ("secrets_dir", "token_file", "clusters_file", "policies_dir"):
        if (place := getattr(settings, name)) is not None:
            anchored[name] = file.parent / place
    if (settings.tls_cert is None) != (settings.tls_key is None):
        remedy = "Give --tls-cert and --tls-key, or neither behind a proxy that does TLS"
        raise InvalidInput("tls_cert", settings.tls_cert or "", "and tls_key belong together", remedy)
    return settings.model_copy(update=anchored)


def _with_providers(grid: Any, named: str) -> dict[str, Any]:
    """`none`, or names separated by commas; a provider that the file configures keeps its configuration."""
    before = grid if isinstance(grid, dict) else {}
    configured = before.get("providers")
    names = [] if named.strip() in ("", "none") else [name.strip() for name in named.split(",")]
    chosen: list[Any] = []
    for name in names:
        entries = configured if isinstance(configured, list) else []
        mine = [one for one in entries if isinstance(one, dict) and one.get("provider") == name]
        chosen += mine or [name]
    return {**before, "providers": chosen}


def _anchored(grid: GridSettings, folder: Path) -> GridSettings:
    """With relative paths meant from the config file's folder."""
    series = tuple(one.model_copy(update={"file": folder / one.file}) for one in grid.series)
    providers = grid.providers and tuple(_key_anchored(one, folder) for one in grid.providers)
    return grid.model_copy(update={"series": series, "providers": providers})


def _key_anchored(one: ProviderSetting, folder: Path) -> ProviderSetting:
    kind, _, where = (one.key or "").partition(":")
    return one.model_copy(update={"key": f"file:{folder / where}"}) if kind == "file" else one


def _told(first: ErrorDetails, file: Path) -> InvalidInput:
    """The first problem as every other bad input is said; what may be a secret in the wrong place is not repeated."""
    loc, value = first["loc"], first.get("input", "")
    field, problem, remedy = ".".join(str(part) for part in loc), first["msg"].lower(), f"Correct it in {file}"
    if first["type"] == "extra_forbidden":
        known = ", ".join(_siblings(loc))
        value, problem, remedy = NOT_SHOWN, "is not a setting", f"Correct it in {file}; there are: {known}"
    if loc[0] == "grid" and loc[-1] not in HARMLESS:
        value = NOT_SHOWN
    if first["type"] in ("reference", "secret"):
        problem = first["msg"]
    return InvalidInput(field, value, problem, remedy)


def _siblings(loc: tuple[int | str, ...]) -> list[str]:
    """The settings there are where an unknown one was found."""
    by_place: dict[int | str, type[BaseModel]] = {
        "counts": CountsSetting, "providers": ProviderSetting, "series": SeriesSetting, "grid": GridSettings,
        "seal": SealSettings,
    }  # fmt: skip
    place = next((by_place[part] for part in reversed(loc[:-1]) if part in by_place), Settings)
    return sorted(place.model_fields)


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
