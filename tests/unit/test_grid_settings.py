"""`grid:` in config.yaml: what is understood, what is refused in which words, and that no key is ever repeated."""

from __future__ import annotations

import pytest

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.grid.configured import ConfiguredGrid
from carbon_sched.grid.http import Web
from carbon_sched.settings import load_settings
from tests.fakes.clock import StoppedClock

CANARY = "C4N4RY-pasted-key"


@pytest.fixture
def load(tmp_path):
    """Settings of a config.yaml with this text."""

    def call(text: str = ""):
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        return load_settings({"data_dir": tmp_path}, None)

    return call


def made(settings) -> ConfiguredGrid:
    clock = StoppedClock()
    return ConfiguredGrid(settings.grid, Web(clock, clock.pass_s, lambda: 0.0), lambda _: None)


def names(grid: ConfiguredGrid) -> list[str]:
    return [source.name for source in grid.live]


def test_without_a_word_the_providers_that_need_no_key_are_used(load):
    assert names(made(load())) == ["energy-charts", "neso", "energidataservice", "rte-odre"]
    assert names(made(load("grid: {providers: []}"))) == []


def test_a_provider_in_full(load, tmp_path):
    settings = load(
        "grid:\n  providers:\n    - neso\n    - provider: electricity-maps\n      zones: [DE, US-CAL-CISO]\n"
        "      key: file:keys/em\n      options: {basis: direct, horizon_hours: 0}\n"
    )
    grid = made(settings)
    assert names(grid) == ["neso", "electricity-maps"]
    assert grid.live[1].zones() == {"DE", "US-CAL-CISO"}
    assert settings.grid.providers[1].key == f"file:{tmp_path / 'keys/em'}", "relative to the file, as series are"
    view = grid.describe()[1]
    assert (view["configured"], view["zones"], view["key"]) == (
        True,
        ["DE", "US-CAL-CISO"],
        f"file:{tmp_path / 'keys/em'}",
    )
    assert not grid.describe()[2]["configured"]


def test_the_environment_chooses_among_providers(load, monkeypatch):
    text = "grid:\n  providers:\n    - {provider: neso, url: 'http://127.0.0.1:1'}\n    - energy-charts\n"
    monkeypatch.setenv("CARBON_SCHED_GRID_PROVIDERS", "none")
    assert load(text).grid.providers == ()
    monkeypatch.setenv("CARBON_SCHED_GRID_PROVIDERS", "rte-odre, neso")
    chosen = load(text).grid.providers
    assert [one.provider for one in chosen] == ["rte-odre", "neso"]
    assert chosen[1].url == "http://127.0.0.1:1"


def test_a_zone_with_a_file_is_left_to_it_unless_a_provider_is_given_it(load, tmp_path):
    (tmp_path / "de.csv").write_text(
        "start,g_per_kwh\n2026-03-01T00:00Z,300\n2026-03-01T01:00Z,310\n", encoding="utf-8"
    )
    series = "grid:\n  series:\n    - {zone: DE, file: de.csv}\n"
    grid = made(load(series))
    assert "DE" not in grid.live[0].zones()
    assert "FR" in grid.live[0].zones()
    assert grid.sources()[0].zones() == {"DE"}
    grid = made(load(series + "  providers:\n    - {provider: energy-charts, zones: [DE]}\n"))
    assert grid.live[0].zones() == {"DE"}


REFUSED = {
    "key as it is": ("{provider: entsoe, key: %s}", "key", "never stored"),
    "number as a key": ("{provider: entsoe, key: 1234567}", "key", "string"),
    "key under another name": ("{provider: entsoe, token: %s}", "token", "there are: counts, key"),
    "key in the address": ("{provider: neso, url: 'https://%s@host'}", "url", "file:PATH or env:VARIABLE"),
    "key in place of a provider's settings": ("[%s]", "providers.0", "dictionary"),
    "unknown word": ("{provider: neso, counts: {basis: magic}}", "counts.basis", "'lifecycle' or 'direct'"),
    "options that are no mapping": ("{provider: neso, options: %s}", "options", "dictionary"),
}


@pytest.mark.parametrize(("text", "field", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_named_and_no_key_is_repeated(load, text, field, words):
    entry = text.replace("%s", CANARY)
    with pytest.raises(InvalidInput) as caught:
        load(f"grid:\n  providers:\n    - {entry}\n")
    assert field in caught.value.field
    assert words in str(caught.value)
    assert "config.yaml" in caught.value.remedy
    assert CANARY not in str(caught.value) + caught.value.value
    assert "1234567" not in str(caught.value)


@pytest.mark.parametrize("grid", ["{token: %s}", "[%s]", "{providers: {key: %s}}", "{series: [%s]}"])
def test_a_key_in_the_wrong_place_is_not_repeated_either(load, grid):
    with pytest.raises(InvalidInput) as caught:
        load(f"grid: {grid.replace('%s', CANARY)}\n")
    assert CANARY not in str(caught.value) + caught.value.value


UNUSABLE = {
    "unknown provider": ("{provider: gridnobody}", "is not an intensity provider. Choose from"),
    "unknown option": ("{provider: neso, options: {speed: 3}}", "is not an option of it"),
    "zone it does not cover": ("{provider: neso, zones: [DE]}", "is not a zone it covers. It covers Great Britain"),
    "no address": ("{provider: carbon-aware-sdk}", "is missing. Give the address"),
    "non-commercial": ("{provider: openelectricity}", "non_commercial"),
}


@pytest.mark.parametrize(("entry", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_provider_that_cannot_be_made_ends_the_start(load, entry, words):
    settings = load(f"grid:\n  providers:\n    - {entry}\n")
    with pytest.raises(InvalidInput) as caught:
        made(settings)
    assert words in str(caught.value)
