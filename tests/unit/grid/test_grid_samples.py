"""Documented answers, word for word, become exactly these readings: units, hours and factors worked out by hand."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from carbon_sched.domain.cluster import SecretRef
from carbon_sched.domain.intensity import Kind
from carbon_sched.domain.time import UTC
from carbon_sched.grid.answers import Answer
from carbon_sched.grid.mix import intensity_g_per_kwh
from carbon_sched.grid.providers.carbon_aware_sdk import CarbonAwareSdk
from carbon_sched.grid.providers.eia930 import Eia930
from carbon_sched.grid.providers.electricity_maps import ElectricityMaps
from carbon_sched.grid.providers.energidataservice import EnergiDataService
from carbon_sched.grid.providers.energy_charts import EnergyCharts
from carbon_sched.grid.providers.entsoe import Entsoe
from carbon_sched.grid.providers.neso import Neso
from carbon_sched.grid.providers.openelectricity import OpenElectricity
from carbon_sched.grid.providers.rte_odre import RteOdre
from carbon_sched.grid.providers.watttime import WattTime

SAMPLES = Path(__file__).parent / "samples"
DAY = datetime(2026, 3, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Recorded:
    """Stands in for a Channel: a sample for each part of a path."""

    def __init__(self, **samples: str) -> None:
        self._samples = samples

    def get(self, path, params=None, **_):
        sample = next(sample for part, sample in self._samples.items() if part in path)
        return Answer(200, (SAMPLES / sample).read_bytes(), path, DAY + 30 * 24 * HOUR)

    def get_json(self, path, params=None, **options):
        answer = self.get(path, params, **options)
        return json.loads(answer.body), answer


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("SAMPLE_KEY", "k")
    return SecretRef(env="SAMPLE_KEY")


def lines(readings):
    """(day, hour, minute, minutes long, mg/kWh, kind) of each."""
    return [
        (
            r.start.day,
            r.start.hour,
            r.start.minute,
            round((r.end - r.start) / timedelta(minutes=1)),
            r.intensity_mg_per_kwh,
            r.kind,
        )
        for r in readings
    ]


def test_energy_charts():
    now = DAY + timedelta(hours=17, minutes=20)
    channel = Recorded(co2eq="energy_charts_co2eq.json")
    assert lines(EnergyCharts(channel).fetch("DE", DAY, DAY + 24 * HOUR, now)) == [
        (10, 17, 0, 15, 444_800, Kind.MEASURED),
        (10, 17, 15, 15, 452_200, Kind.MEASURED),
        (10, 17, 30, 15, 452_000, Kind.FORECAST),
        (10, 17, 45, 15, 458_200, Kind.FORECAST),
    ]


def test_neso():
    found = Neso(Recorded(fw48h="neso_fw48h.json")).fetch("GB", DAY, DAY + 2 * HOUR, DAY)
    assert lines(found) == [
        (10, 0, 0, 30, 154_000, Kind.MEASURED),
        (10, 0, 30, 30, 147_000, Kind.FORECAST),
        (10, 1, 0, 30, 136_000, Kind.FORECAST),
    ]


def test_a_region_of_neso_is_modelled_never_measured():
    found = Neso(Recorded(regional="neso_regional_fw48h.json")).fetch("GB-NESO-13", DAY, DAY + HOUR, DAY)
    assert lines(found) == [(10, 0, 0, 30, 148_000, Kind.ESTIMATED), (10, 0, 30, 30, 138_000, Kind.FORECAST)]


def test_electricity_maps(key):
    channel = Recorded(history="electricity_maps_history.json", forecast="electricity_maps_forecast.json")
    found = ElectricityMaps(channel, key).fetch("DE", DAY + 20 * HOUR, DAY + 26 * HOUR, DAY + 24 * HOUR)
    assert lines(found) == [
        (10, 22, 0, 60, 397_000, Kind.ESTIMATED),
        (10, 23, 0, 60, 359_000, Kind.ESTIMATED),
        (11, 0, 0, 60, 318_000, Kind.FORECAST),
        (11, 1, 0, 60, 278_000, Kind.FORECAST),
    ]
    assert found[0].issued_at == DAY + timedelta(hours=22, minutes=50)
    assert found[0].model_version == "TIME_SLICER_AVERAGE"
    assert found[0].retention == "used-only"


def test_watttime_in_pounds_per_megawatt_hour(key):
    channel = Recorded(
        login="watttime_login.json", historical="watttime_historical.json", forecast="watttime_forecast.json"
    )
    found = WattTime(channel, "user", key).fetch("US-CAL-CISO", DAY, DAY + HOUR, DAY + timedelta(minutes=10))
    # 854.8 lb/MWh x 453.59237 g/lb / 1000 kWh/MWh = 387.7308 g/kWh
    assert lines(found) == [
        (10, 0, 0, 5, 387_731, Kind.MEASURED),
        (10, 0, 5, 5, 384_238, Kind.MEASURED),
        (10, 0, 10, 5, 380_791, Kind.FORECAST),
        (10, 0, 15, 5, 377_343, Kind.FORECAST),
    ]
    assert {r.model_version for r in found} == {"2023-03-01"}


def test_energi_data_service_reads_the_utc_column_of_its_own_area():
    channel = Recorded(CO2EmisProg="energidataservice_co2emisprog.json")
    found = EnergiDataService(channel).fetch("DK-DK1", DAY, DAY + HOUR, DAY)
    assert lines(found) == [(10, 0, 0, 5, 127_000, Kind.FORECAST), (10, 0, 5, 5, 125_000, Kind.FORECAST)]


def test_rte_odre_future_rows_are_null():
    found = RteOdre(Recorded(eco2mix="rte_odre_records.json")).fetch("FR", DAY, DAY + HOUR, DAY + HOUR)
    assert lines(found) == [(10, 0, m, 15, 28_000, Kind.ESTIMATED) for m in (0, 15, 30)]
    assert found[0].model_version == "Données temps réel"


def test_entsoe_mix_times_factors_with_the_left_out_position(key):
    found = Entsoe(Recorded(api="entsoe_a75.xml"), key).fetch("DE", DAY, DAY + 4 * HOUR, DAY + 6 * HOUR)
    hours = [(4800, 7200, 9800), (4800, 7100, 9500), (4790, 7000, 9300), (4780, 7050, 9400)]
    expected = [round((b * 230 + c * 820 + g * 490) / (b + c + g) * 1000) for b, c, g in hours]
    assert lines(found) == [(10, h, 0, 60, mg, Kind.ESTIMATED) for h, mg in enumerate(expected)]


def test_eia_period_is_the_hour_that_ends_and_storage_is_no_generation(key):
    found = Eia930(Recorded(rto="eia_fuel_type_data.json"), key).fetch("US-CAL-CISO", DAY - HOUR, DAY, DAY + HOUR)
    grams = 120 * 820 + 8200 * 490 + 2260 * 12 + 640 * 490 + 2100 * 24 + 2900 * 11 + 880 * 38
    energy = 120 + 8200 + 2260 + 640 + 0 + 2100 + 2900 + 880
    assert lines(found) == [(9, 23, 0, 60, round(grams / energy * 1000), Kind.ESTIMATED)]


def test_carbon_aware_sdk():
    channel = Recorded(forecasts="casdk_forecasts_current.json", bylocation="casdk_bylocation.json")
    east = CarbonAwareSdk(channel, {"US-MIDA-PJM": "eastus"})
    assert lines(east.fetch("US-MIDA-PJM", DAY, DAY + HOUR, DAY + HOUR)) == [(10, 0, 0, 60, 70_000, Kind.ESTIMATED)]
    then = datetime(2022, 7, 19, 14, tzinfo=UTC)
    north = CarbonAwareSdk(channel, {"IE": "northeurope"}).fetch("IE", then, then + 24 * HOUR, then)
    assert lines(north) == [(19, 14, 0, 10, 532_023, Kind.FORECAST), (20, 4, 25, 10, 535_732, Kind.FORECAST)]
    assert north[0].issued_at == datetime(2022, 7, 19, 13, 35, tzinfo=UTC)


def test_open_electricity_divides_in_network_time(key):
    channel = Recorded(NEM="openelectricity_nem.json")
    found = OpenElectricity(channel, key, non_commercial=True).fetch("AU-NSW", DAY - 12 * HOUR, DAY, DAY)
    # 4300 t / 7200 MWh = 0.597222 t/MWh = 597.222 g/kWh; midnight in the market is 14:00 UTC
    assert lines(found) == [(9, h, 0, 60, 597_222, Kind.ESTIMATED) for h in (14, 15, 16)]
    assert "non-commercial" in found[0].licence


def test_a_mix_of_nothing_has_no_intensity():
    assert intensity_g_per_kwh({}) is None
    assert intensity_g_per_kwh({"storage": 500.0, "coal": -3.0}) is None
    assert intensity_g_per_kwh({"wind": 1.0, "storage": 500.0}) == 11.0
