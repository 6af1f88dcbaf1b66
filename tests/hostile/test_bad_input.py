"""What goes wrong in a first week, one row each: a clear error with field, value and remedy, and nothing left behind.

Rows of jobs run the whole command line against a loopback server that must not hear of them; rows that only a server
can judge run the real services. What is found deeper down has its own tests: times in tests/unit/cli/test_times.py,
series in tests/unit/grid/test_grid_series.py, lies of a dashboard in tests/contract/test_ray_client_faults.py.
"""

from __future__ import annotations

import os
import random
import re
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from carbon_sched import working_dir
from carbon_sched.cli.main import run
from carbon_sched.client import Client
from carbon_sched.clusters.http import Endpoint
from carbon_sched.clusters.ray_client import RayClient
from carbon_sched.domain.cluster import SecretRef
from carbon_sched.domain.errors import ClusterError, ClusterUnauthorized, ClusterUnclear, InvalidFile, InvalidInput
from carbon_sched.domain.job import JobState
from carbon_sched.grid.series import SeriesFile
from carbon_sched.grid.zones import known_zone
from tests.fakes.api_server import TOKEN, RunningApi
from tests.fakes.api_views import job_view
from tests.fakes.certificates import authority_and_server
from tests.fakes.ray_cluster import RealClock
from tests.fakes.ray_head import FakeRayHead
from tests.fakes.world import World, a_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = "print('hello')\n"


@dataclass
class Shell:
    """Runs a command line; every error must be one message, without a traceback."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err


@pytest.fixture
def api(monkeypatch, tmp_path):
    """A loopback server, a scratch folder of its own, and a project with a script in it."""
    project, scratch = tmp_path / "project", tmp_path / "scratch"
    project.mkdir()
    scratch.mkdir()
    (project / "pyproject.toml").touch()
    (project / "train.py").write_text(SCRIPT, encoding="utf-8")
    monkeypatch.chdir(project)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setenv("TZ", "Europe/Berlin")
    monkeypatch.setenv("CARBON_SCHED_DATA_DIR", str(tmp_path / "data"))
    with RunningApi() as running:
        monkeypatch.setenv("CARBON_SCHED_URL", running.url)
        monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)
        yield running


@pytest.fixture
def shell(capsys):
    return Shell(capsys)


# what the command line refuses by itself ------------------------------------------------------------------------------


def write(name: str, text: str) -> Callable[[], None]:
    def prepare() -> None:
        Path(name).write_text(text, encoding="utf-8")

    return prepare


def metadata(*lines: str) -> str:
    return "\n".join(["# /// script", "# [tool.carbon-sched]", *(f"# {line}" for line in lines), "# ///", SCRIPT])


def too_large() -> None:
    with Path("data.bin").open("wb") as file:
        file.truncate(2 * 2**30)


def nothing() -> None:
    return


REFUSED_HERE: dict[str, tuple[Callable[[], None], list[str], str]] = {
    "missing script": (nothing, ["gone.py"], r"script: 'gone\.py' cannot be read \(No such file"),
    "a folder as script": (lambda: Path("a.py").mkdir(), ["a.py"], r"script: 'a\.py' "),
    "unreadable script": (lambda: Path("a.py").symlink_to("a.py"), ["a.py"], r"script: 'a\.py' cannot be read"),
    "unknown option in metadata": (
        write("train.py", metadata('durration = "5m"')), ["train.py"],
        r"train\.py:3:1: tool\.carbon-sched\.durration is not an option\. Did you mean duration\?",
    ),
    "wrong value in metadata": (
        write("train.py", metadata('duration = "-5m"')), ["train.py"],
        r"duration \(train\.py, line 3\): '-5m' is negative",
    ),
    "malformed metadata": (
        write("train.py", metadata("duration = 5m")), ["train.py"], r"train\.py:3:\d+: .*is not TOML",
    ),
    "malformed YAML": (
        write("job.yaml", "script: train.py\nname: [a\nphase: other\n"), ["job.yaml"],
        r"job\.yaml:3:6: .*(YAML|expected)",
    ),
    "unknown option in YAML": (
        write("job.yaml", "script: train.py\n\nnam: x\n"), ["job.yaml"], r"job\.yaml:3:1: nam is not an option\. Did",
    ),
    "malformed runtime environment": (
        write("env.yaml", "env_vars:\n  A: [\n"), ["--runtime-env", "env.yaml", "train.py"],
        r"not YAML at line 3, column 1",
    ),
    "time without a zone": (
        nothing, ["--deadline", "2026-12-01T18:00", "train.py"],
        r"has no time zone\. Write 2026-12-01T18:00:00\+01:00 \(your zone, Europe/Berlin\) or 2026-12-01T18:00:00Z",
    ),
    "negative duration": (nothing, ["--duration", "-5m", "train.py"], r"--duration: '-5m' is negative"),
    "zero duration": (nothing, ["--duration", "0s", "train.py"], r"--duration: '0s' is no time at all"),
    "NaN duration": (nothing, ["--duration", "nan", "train.py"], r"--duration: 'nan' is not a duration"),
    "infinite duration": (nothing, ["--duration", "inf", "train.py"], r"--duration: 'inf' is not a duration"),
    "duration without unit": (nothing, ["--duration", "90", "train.py"], r"--duration: '90' has no unit"),
    "negative delay": (nothing, ["--max-delay", "-1h", "train.py"], r"--max-delay: '-1h' is negative"),
    "unknown phase": (nothing, ["--phase", "training", "train.py"], r"--phase: 'training' is not known\. Use one of:"),
    "negative GPUs": (nothing, ["--gpus", "-1", "train.py"], r"--gpus: '-1'"),
    "NaN GPUs": (nothing, ["--gpus", "nan", "train.py"], r"--gpus: 'nan'"),
    "half a worker": (nothing, ["--workers", "1.5", "train.py"], r"--workers: '1\.5'"),
    "a folder over the limit": (too_large, ["train.py"], r"more than 1024 MiB together.*data\.bin \(2048\.0 MiB\)"),
    "unknown flag": (nothing, ["--nme", "x", "train.py"], r"No such option '--nme'"),
    "no script": (nothing, ["README"], r"script: 'README' is not a script"),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED_HERE)
def test_refused_before_anything_is_sent(api, shell, tmp_path, row):
    prepare, arguments, words = REFUSED_HERE[row]
    prepare()
    code, out, err = shell("submit", "--no-wait", *arguments)
    assert (code, out) == (120, "")
    assert re.search(words, " ".join(err.split())), err
    assert (api.jobs, api.bundles) == ({}, {})
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("evening_before", "words"),
    [
        (datetime(2026, 10, 24, 20, tzinfo=timezone.utc), "happens twice on 2026-10-25 in Europe/Berlin"),
        (datetime(2026, 3, 28, 20, tzinfo=timezone.utc), "does not happen on 2026-03-29 in Europe/Berlin"),
    ],
    ids=["twice", "never"],
)
def test_a_local_time_in_a_night_when_the_clocks_change(api, shell, monkeypatch, evening_before, words):
    monkeypatch.setattr("carbon_sched.cli.clock.now", lambda: evening_before)
    code, _, err = shell("submit", "--no-wait", "--deadline", "02:30", "train.py")
    assert code == 120
    assert f"--deadline: '02:30' {words}" in " ".join(err.split())
    assert api.calls == []


def test_a_folder_whose_zip_passes_100_mib(api, shell, tmp_path, monkeypatch):
    monkeypatch.setattr(working_dir, "ZIP_BYTES", 50_000)
    Path("noise.bin").write_bytes(random.Random(1).randbytes(80_000))
    code, _, err = shell("submit", "--no-wait", "train.py")
    assert code == 120
    assert "noise.bin" in err
    assert ".rayignore" in err
    assert (api.jobs, api.bundles) == ({}, {})
    assert list((tmp_path / "scratch").iterdir()) == []


@contextmanager
def no_superuser(folder: Path) -> Iterator[None]:
    """As a user like others, also where the tests run as root, who reads everything."""
    if os.geteuid() != 0:
        yield
        return
    for place in (folder, *folder.parents):
        place.chmod(place.stat().st_mode | 0o011)
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_script(api, shell, tmp_path):
    assert shell("submit", "--no-wait", "train.py")[0] == 0  # and all that is imported for it can be read
    sent = len(api.calls)
    Path("train.py").chmod(0)
    with no_superuser(tmp_path / "project"):
        code, _, err = shell("submit", "--no-wait", "train.py")
    assert code == 120
    assert "script: 'train.py' cannot be read (Permission denied)" in err
    assert len(api.calls) == sent


def test_of_a_script_in_the_home_directory_only_the_file_is_sent(api, shell, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("a private key", encoding="utf-8")
    (home / ".git").mkdir()
    (home / "job.py").write_text(SCRIPT, encoding="utf-8")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    code, _, err = shell("submit", "--no-wait", "job.py")
    assert code == 0
    assert "job.py travels alone" in err
    (content,) = api.bundles.values()
    assert b"job.py" in content
    assert b"id_ed25519" not in content


# what only a server can judge -----------------------------------------------------------------------------------------


REFUSED_THERE = {
    "deadline before the earliest possible end": (
        {"deadline": "2026-03-01T13:00:00Z", "duration_s": 7200}, "deadline", "before the earliest possible end",
    ),
    "deadline before the earliest start": (
        {"deadline": "2026-03-01T13:00:00Z", "earliest": "2026-03-01T14:00:00Z"}, "deadline", "is not after",
    ),
    "deadline that has passed": ({"deadline": "2026-03-01T11:59:59Z"}, "deadline", "is not after"),
    "NaN duration": ({"duration_s": float("nan")}, "duration", "not a positive number"),
    "zero duration": ({"duration_s": 0}, "duration", "not a positive number"),
    "negative delay": ({"max_delay_s": -1}, "max_delay", "is not a duration"),
    "unknown cluster": ({"clusters": ["nowhere"]}, "cluster", "is not configured"),
    "unknown phase": ({"phase": "training"}, "phase", "is not known"),
    "unknown policy": ({"policy": "greenest"}, "policy", "greenest"),
    "NaN GPUs": ({"resources": {"gpus": float("nan")}}, "gpus", "is not an amount"),
}  # fmt: skip


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, [a_cluster("only", "DE", home=True)], {"DE": [(0, 400.0)]})
    yield world
    world.close()


@pytest.mark.parametrize("row", REFUSED_THERE)
def test_refused_by_the_server_and_nothing_is_stored(world, row):
    request, field, words = REFUSED_THERE[row]
    with pytest.raises(InvalidInput, match=words) as caught:
        world.submit(**request)
    assert caught.value.field == field
    assert caught.value.remedy
    with world.store.transaction(write=False) as tx:
        assert tx.live_jobs() == []


def test_gpus_that_no_pool_can_ever_offer(world):
    job = world.submit(resources={"gpus": 64})
    world.settle()
    assert world.job(job).state is JobState.REFUSED
    assert re.search(r"64.*GPU|GPU.*64", world.job(job).reason)


@pytest.mark.parametrize("zone", ["Germany", "DEE", "", "US-XX"])
def test_an_unknown_zone(zone):
    with pytest.raises(InvalidInput) as caught:
        known_zone(zone)
    assert caught.value.field == "zone"
    assert caught.value.remedy


# clusters and servers -------------------------------------------------------------------------------------------------


def call(address: str, **endpoint: object) -> RayClient:
    one = Endpoint("lab", address, **endpoint)  # type: ignore[arg-type]
    return RayClient("lab", lambda: one, RealClock())


def test_a_wrong_cluster_token(tmp_path):
    (tmp_path / "token").write_text("wrong", encoding="utf-8")
    with FakeRayHead(token="right") as head:
        client = call(head.address, token=SecretRef(file=str(tmp_path / "token")))
        with pytest.raises(ClusterUnauthorized, match=r"not accepted.*Check the cluster's `token`"):
            client.job("x")


def test_a_dashboard_that_answers_html():
    with FakeRayHead() as head:
        head.lie("html", times=9)
        with pytest.raises(ClusterUnclear, match=r"a web page, not like a Ray dashboard\. Check its address"):
            call(head.address).job("x")


def test_https_to_a_server_that_speaks_plain_http():
    with FakeRayHead() as head, pytest.raises(ClusterError, match="TLS failed; is this address really https"):
        call(head.address.replace("http:", "https:")).job("x")


def test_a_certificate_that_nobody_vouches_for(api, shell, tmp_path, monkeypatch):
    _, certificate, key = authority_and_server(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with RunningApi(context) as running:
        monkeypatch.setenv("CARBON_SCHED_URL", running.url)
        code, _, err = shell("list")
    assert code == 123
    assert "certificate" in err
    assert "REQUESTS_CA_BUNDLE" in err


def test_a_wrong_token_of_ours(api, shell, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_TOKEN", "cs_wrong")
    code, _, err = shell("submit", "--no-wait", "train.py")
    assert code == 122
    assert "CARBON_SCHED_TOKEN" in err
    assert "cs_wrong" not in err


@pytest.mark.parametrize("place", ["/proc/none/data", "file/data"])
def test_a_data_folder_that_cannot_be_written(api, shell, monkeypatch, tmp_path, place):
    (tmp_path / "file").touch()
    monkeypatch.delenv("CARBON_SCHED_URL")
    monkeypatch.setenv("CARBON_SCHED_DATA_DIR", str(tmp_path / place))
    code, _, err = shell("submit", "--no-wait", "train.py")
    assert code in range(120, 128)
    assert str(tmp_path / place) in err


# series files ---------------------------------------------------------------------------------------------------------


ROWS = ["2026-03-10T00:00Z,100", "2026-03-10T01:00Z,90", "2026-03-10T02:00Z,80", "2026-03-10T03:00Z,70"]
SERIES = {
    "gap": ([*ROWS[:2], ROWS[3]], "leaves a gap"),
    "zero": ([ROWS[0], "2026-03-10T01:00Z,0"], "is 0"),
    "text": ([ROWS[0], "2026-03-10T01:00Z,n/a"], "'n/a' is not a number"),
    "nan": ([ROWS[0], "2026-03-10T01:00Z,NaN"], "is not a number"),
    "negative": ([ROWS[0], "2026-03-10T01:00Z,-3"], "is negative"),
    "duplicate": ([*ROWS[:2], ROWS[1]], "stands twice"),
    "unsorted": ([ROWS[1], ROWS[0], ROWS[2]], "is earlier than the line before"),
    "kg instead of g": ([row.replace(",", ",0.") for row in ROWS], "looks like kg/kWh"),
    "g/MWh instead of g/kWh": ([f"{row}000" for row in ROWS], "convert the unit"),
    "no zone of time": (["2026-03-10T00:00,100", "2026-03-10T01:00,90"], "has no time zone"),
    "empty": ([], "holds no values"),
}


@pytest.mark.parametrize("row", SERIES)
def test_a_series_that_cannot_be_believed(tmp_path, row):
    lines, words = SERIES[row]
    (tmp_path / "de.csv").write_text("\n".join(["start,g_per_kwh", *lines]) + "\n", encoding="utf-8")
    with pytest.raises(InvalidFile, match=re.escape(words)) as caught:
        SeriesFile(tmp_path / "de.csv", "DE")
    assert str(tmp_path / "de.csv") in str(caught.value)
    assert all(problem.remedy for problem in caught.value.problems)


# logs -----------------------------------------------------------------------------------------------------------------


ENDED = {"state": "succeeded", "exit_code": 0, "cluster": "north", "finished_at": "2026-03-01T12:00:00Z"}
LOGS = {
    "10,000 lines": "".join(f"line {n}\n" for n in range(10_000)),
    "no newline at the end": "almost\ndone",
    "nothing": "",
    "one line of a megabyte": "x" * 2**20,
    "binary": "\x00\x01\x1b[31m\ufffd\x7f\r\n\u2028 end",
}


@pytest.mark.parametrize("row", LOGS)
def test_the_log_arrives_as_it_was_written(api, capfdbinary, row):
    api.tell(job_view(**ENDED), text=LOGS[row])
    with Client(api.url, TOKEN) as client:
        client.submit({"entrypoint": "x"}, idempotency_key="k")
    assert run(["logs", "0123456789"]) == 0
    assert capfdbinary.readouterr().out == LOGS[row].encode()
