from __future__ import annotations

import gzip
import json
import os
from datetime import datetime, timedelta

import pytest

from carbon_sched.domain.errors import InvalidFile, InvalidInput, ZoneNotCovered
from carbon_sched.domain.intensity import Basis, Comparability, Grade, Kind, Perimeter, Signal
from carbon_sched.domain.time import UTC
from carbon_sched.grid.series import SeriesFile

T0 = datetime(2026, 3, 10, tzinfo=UTC)
FAR = T0 + timedelta(days=400)
DIRECT = Comparability(Signal.AVERAGE, Basis.DIRECT, Perimeter.CONSUMPTION)
HOURLY = """datetime,gCO2eq_per_kWh,direct_gCO2eq_per_kWh,estimated
2026-03-10T00:00:00Z,526.77,449.07,0
2026-03-10T01:00:00Z,533.4,455.08,1
2026-03-10T02:00:00Z,100,90,filled
2026-03-10T03:00:00Z,101,,
"""
SIMPLE = "start,g_per_kwh\n2026-03-10T00:00:00Z,100\n2026-03-10T00:00:05Z,200\n2026-03-10T00:00:10Z,150\n"


def series(tmp_path, text, name="z.csv", modified=FAR, **options):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    os.utime(path, (modified.timestamp(), modified.timestamp()))
    return SeriesFile(path, "DE", **options)


def all_of(source, now=FAR):
    return source.readings("DE", T0 - timedelta(days=1000), T0 + timedelta(days=1000), now)


@pytest.mark.parametrize("name", ["DE.csv", "DE.csv.gz"])
def test_the_benchmark_format_is_read_plain_and_gzipped(tmp_path, name):
    found = all_of(series(tmp_path, HOURLY, name))
    assert [r.intensity_mg_per_kwh for r in found] == [526_770, 533_400, 100_000, 101_000]
    assert [r.kind for r in found] == [Kind.MEASURED, Kind.ESTIMATED, Kind.ESTIMATED, Kind.ESTIMATED]
    assert {r.end - r.start for r in found} == {timedelta(hours=1)}
    assert {r.basis for r in found} == {Basis.LIFECYCLE}


def test_the_direct_column_is_taken_when_the_series_is_said_to_be_direct(tmp_path):
    text = "\n".join(HOURLY.splitlines()[:3])
    found = all_of(series(tmp_path, text, like=DIRECT))
    assert [(r.intensity_mg_per_kwh, r.basis) for r in found] == [(449_070, Basis.DIRECT), (455_080, Basis.DIRECT)]


def test_a_compressed_day_has_steps_of_seconds(tmp_path):
    found = all_of(series(tmp_path, SIMPLE))
    assert [(r.start - T0).total_seconds() for r in found] == [0, 5, 10]
    assert found[-1].end - found[-1].start == timedelta(seconds=5)


def test_ends_may_be_given_and_steps_may_then_vary(tmp_path):
    text = "start,end,g_per_kwh\n2026-03-10T00:00Z,2026-03-10T00:15Z,10\n2026-03-10T00:15Z,2026-03-10T02:00Z,20\n"
    assert [r.end - r.start for r in all_of(series(tmp_path, text))] == [timedelta(minutes=15), timedelta(minutes=105)]


def test_json_holds_the_same(tmp_path):
    rows = [{"start": f"2026-03-10T0{h}:00:00+01:00", "g_per_kwh": 100 + h} for h in range(3)]
    found = all_of(series(tmp_path, json.dumps(rows, indent=1), "z.json"))
    assert [r.intensity_mg_per_kwh for r in found] == [100_000, 101_000, 102_000]
    assert found[0].start == T0 - timedelta(hours=1)


def test_what_has_not_begun_is_a_forecast_and_what_had_not_ended_when_written_is_no_measurement(tmp_path):
    source = series(tmp_path, SIMPLE, modified=T0 + timedelta(seconds=7))
    found = all_of(source, now=T0 + timedelta(seconds=7))
    assert [(r.kind, r.grade) for r in found] == [
        (Kind.MEASURED, Grade.LIVE),
        (Kind.ESTIMATED, Grade.LIVE),
        (Kind.FORECAST, Grade.PROVIDER_FORECAST),
    ]
    assert {r.issued_at for r in found} == {T0 + timedelta(seconds=7)}
    later = all_of(source, now=T0 + timedelta(hours=1))
    assert [(r.kind, r.grade) for r in later][1:] == [(Kind.ESTIMATED, Grade.LIVE)] * 2


def test_only_what_overlaps_is_given(tmp_path):
    source = series(tmp_path, SIMPLE)
    found = source.readings("DE", T0 + timedelta(seconds=5), T0 + timedelta(seconds=6), FAR)
    assert [r.intensity_mg_per_kwh for r in found] == [200_000]
    assert source.readings("DE", FAR, FAR + timedelta(days=1), FAR) == []
    with pytest.raises(ZoneNotCovered):
        source.readings("FR", T0, FAR, FAR)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("start,g_per_kwh\n2026-03-10T00:00Z,1O0\n2026-03-10T01:00Z,5\n", "z.csv:2:0: g_per_kwh '1O0' is not a number"),
        ("start,g_per_kwh\n2026-03-10T00:00Z,\n2026-03-10T01:00Z,5\n", "z.csv:2:0: g_per_kwh '' is not a number"),
        (
            "start,g_per_kwh\n2026-03-10T00:00Z,nan\n2026-03-10T01:00Z,50\n",
            "z.csv:2:0: g_per_kwh 'nan' is not a number",
        ),
        ("start,g_per_kwh\n2026-03-10T00:00Z,-5\n2026-03-10T01:00Z,50\n", "z.csv:2:0: g_per_kwh -5 is negative"),
        (
            "start,g_per_kwh\n2026-03-10T00:00Z,50\n2026-03-10T01:00Z,2501\n",
            "z.csv:3:0: g_per_kwh 2501 is out of range",
        ),
        ("start,g_per_kwh\n2026-03-10T00:00Z,50\n2026-03-10T01:00Z,1e9\n", "z.csv:3:0: g_per_kwh 1e9 is out of range"),
        ("start,g_per_kwh\n2026-03-10T00:00Z,50\n2026-03-10T01:00Z,0\n", "z.csv:3:0: g_per_kwh is 0"),
        (
            "start,g_per_kwh\n2026-03-10T00:00Z,0.4\n2026-03-10T01:00Z,0.5\n",
            "z.csv: g_per_kwh never reaches 5 g/kWh: this looks like kg/kWh",
        ),
        (
            "start,g_per_kwh\n2026-03-10 00:00,50\n2026-03-10T01:00Z,50\n",
            "z.csv:2:0: start '2026-03-10 00:00' has no time zone",
        ),
        ("start,g_per_kwh\nyesterday,50\n2026-03-10T01:00Z,50\n", "z.csv:2:0: start 'yesterday' is not an instant"),
        (
            "start,g_per_kwh\n2026-03-10T00:00Z,50\n2026-03-10T00:00Z,50\n2026-03-10T01:00Z,5\n",
            "z.csv:3:0: start 2026-03-10T00:00:00+00:00 stands twice",
        ),
        (
            "start,g_per_kwh\n2026-03-10T01:00Z,50\n2026-03-10T02:00Z,50\n2026-03-10T00:00Z,5\n",
            "z.csv:4:0: start 2026-03-10T00:00:00+00:00 is earlier than the line before",
        ),
        (
            "start,g_per_kwh\n2026-03-10T00:00Z,9\n2026-03-10T01:00Z,9\n2026-03-10T03:00Z,9\n",
            "z.csv:4:0: start 2026-03-10T03:00:00+00:00 leaves a gap after 2026-03-10T02:00:00+00:00 (1:00:00 missing)",
        ),
        (
            "start,g_per_kwh\n2026-03-10T00:00Z,9\n2026-03-10T01:00Z,9\n2026-03-10T01:30Z,9\n2026-03-10T02:30Z,9\n",
            "z.csv:4:0: start 2026-03-10T01:30:00+00:00 overlaps",
        ),
        ("start,end,g_per_kwh\n2026-03-10T00:00Z,2026-03-10T00:00Z,9\n", "z.csv:2:0: end is not after the start"),
        ("start,g_per_kwh\n2026-03-10T00:00Z,9\n", "z.csv:2:0: end is missing and no step can be inferred"),
        ("start,g_per_kwh\n2026-03-10T00:00Z,9,8\n2026-03-10T00:00Z,9\n", "z.csv:2:0: has 3 fields, the header has 2"),
        ("start,g_per_kwh,estimated\n2026-03-10T00:00Z,9,maybe\n", "z.csv:2:0: estimated 'maybe' is not understood"),
        (
            "start,lb_per_mwh\n2026-03-10T00:00Z,900\n",
            "z.csv:1:0: g_per_kwh is not among the columns start, lb_per_mwh",
        ),
        ("when,g_per_kwh\n2026-03-10T00:00Z,900\n", "z.csv:1:0: start is not among the columns when, g_per_kwh"),
        (
            "start,start,g_per_kwh\n2026-03-10T00:00Z,2026-03-10T00:00Z,900\n",
            "z.csv:1:0: start is the name of several columns",
        ),
        ("start,g_per_kwh\n", "z.csv: holds no values"),
        ("", "z.csv: holds no values"),
        ('[{"start": "2026-03-10T00:00Z", "g_per_kwh": "9"}]', "z.csv:1:0: g_per_kwh '9' is not a number"),
        ('[{"start": "2026-03-10T00:00Z", "g_per_kwh": true}]', "z.csv:1:0: g_per_kwh True is not a number"),
        ('[\n {"start": "2026-03-10T00:00Z", "g_per_kwh": 9},\n 7]', "z.csv:3:0: is not an object"),
        (
            '[\n {"start": "2026-03-10T00:00Z", "g_per_kwh": 9},\n {"g_per_kwh": 9}]',
            "z.csv:3:0: start None is not an instant",
        ),
        ('[{"start": "2026-03-10T00:00Z",\n "g_per_kwh": }]', "z.csv:2:15: is not JSON"),
        ('{"start": "2026-03-10T00:00Z", "g_per_kwh": 9}', "z.csv: is not a list of values"),
        ("[]", "z.csv: is not a list of values"),
        ("[" * 100_000, "z.csv: is not JSON that can be read"),
        ('[{"start": "2026-03-10T00:00Z", "g_per_kwh": 1' + "0" * 5000 + "}]", "z.csv: is not JSON that can be read"),
        ("start,g_per_kwh\n0001-01-01T00:00+05:00,9\n", "z.csv:2:0: start '0001-01-01T00:00+05:00' is not an instant"),
    ],
)
def test_every_doubt_is_refused_with_file_line_field_and_remedy(tmp_path, text, expected):
    with pytest.raises(InvalidFile) as refused:
        series(tmp_path, text)
    shown = str(refused.value).replace(f"{tmp_path}{os.sep}", "")
    assert expected in shown
    assert all(problem.remedy for problem in refused.value.problems)


def test_all_problems_are_listed_at_once(tmp_path):
    with pytest.raises(InvalidFile) as refused:
        series(tmp_path, "start,g_per_kwh\n2026-03-10T00:00Z,x\n2026-03-10T01:00Z,y\n2026-03-10T02:00Z,9\n")
    assert [problem.line for problem in refused.value.problems] == [2, 3]


def test_zero_is_refused_where_the_method_cannot_give_it_and_taken_where_it_can(tmp_path):
    text = "start,g_per_kwh\n2026-03-10T00:00Z,50\n2026-03-10T01:00Z,0\n"
    assert [r.intensity_mg_per_kwh for r in all_of(series(tmp_path, text, like=DIRECT))] == [50_000, 0]


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        ("bytes", "z.csv", "is not UTF-8 text"),
        ("text", "z.csv.gz", "is not a gzip file"),
        ("half", "z.csv.gz", "is not a gzip file"),
        ("bomb", "z.csv.gz", "is larger than 64 MiB"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path, content, name, problem):
    contents = {
        "bytes": lambda: b"\xff\xfe\x00",
        "text": lambda: b"start,g_per_kwh",
        "half": lambda: gzip.compress(b"start" * 1000)[:40],
        "bomb": lambda: gzip.compress(bytes(65 * 1024 * 1024), 1),
    }
    (tmp_path / name).write_bytes(contents[content]())
    with pytest.raises(InvalidInput, match=problem):
        SeriesFile(tmp_path / name, "DE")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"none\.csv.*cannot be read"):
        SeriesFile(tmp_path / "none.csv", "DE")


def test_a_changed_file_is_read_again_and_only_then(tmp_path):
    source = series(tmp_path, SIMPLE)
    first = all_of(source)
    (tmp_path / "z.csv").write_text(SIMPLE.replace("100", "300"))
    os.utime(tmp_path / "z.csv", (FAR.timestamp(), FAR.timestamp()))
    assert all_of(source) == first, "same time and size: not read again"
    os.utime(tmp_path / "z.csv", (FAR.timestamp() + 9, FAR.timestamp() + 9))
    changed = all_of(source, FAR + timedelta(minutes=1))
    assert changed[0].intensity_mg_per_kwh == 300_000
    assert changed[0].payload_sha256 != first[0].payload_sha256
    assert changed[0].issued_at > first[0].issued_at


def test_a_file_broken_later_leaves_the_last_good_values_and_says_so(tmp_path, caplog):
    source = series(tmp_path, SIMPLE)
    (tmp_path / "z.csv").write_text("start,g_per_kwh\nbroken")
    good = all_of(source)
    assert len(good) == 3
    assert "has 1 fields" in source.problem
    all_of(source)
    assert len([r for r in caplog.records if "using the values read before" in r.message]) == 1
    (tmp_path / "z.csv").unlink()
    assert len(all_of(source)) == 3
    assert "cannot be read" in source.problem
    series(tmp_path, SIMPLE)
    assert len(all_of(source)) == 3
    assert source.problem is None
