"""What goes wrong with a machine in a first week: its disk, its ports, its users, what an update left. A real server.

Each has one clear behaviour: an error with a remedy and an exit code of ours, nothing lost, and all goes on as soon as
the machine does. Sleep and clocks: tests/unit/service/test_setbacks.py; locks: tests/contract/test_local_server.py.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from carbon_sched.cli.main import run
from carbon_sched.store.location import check_local_filesystem
from tests.fakes.disks import mounted
from tests.fakes.real_server import eventually, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.disks import Disk

__all__ = ["place"]

AS_NOBODY = """
import os
from carbon_sched.cli import connection, job_source, parcel, submit  # as nobody, files of Python may be out of reach
from carbon_sched.options import request
from carbon_sched.cli.main import run
run(["doctor", "--json"])
os.setgid(65534), os.setuid(65534)
commands = ["list"], ["submit", "--no-wait", "--", "true"], ["server", "stop"], ["server", "logs"]
print([run(words) for words in commands])
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounted where `place` has its data; asked for before `place`, so that it outlives the server."""
    with mounted(tmp_path / "data", "8m") as made:
        yield made


def test_on_a_full_disk_nothing_is_accepted_and_nothing_lost(disk, place, tmp_path):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "train.py").write_text("print('hello')\n")
    place.add_cluster()
    place.finished(place.submit("first"))  # before the machine's first reading something is missing
    job = place.submit("runs", then="sleep 2")
    eventually(lambda: "runs" in place.runs())
    disk.fill()
    for arguments in (["--", "true"], [str(tmp_path / "train.py")]):
        refused = place.server.cli("submit", "--no-wait", *arguments)
        assert refused.returncode == 125, refused.stderr
        assert "Free some space" in refused.stderr
    assert [path.name for path in (place.server.data_dir / "bundles").iterdir()] == []
    assert "runs" in place.server.cli("list", check=True).stdout, "it can be read"
    eventually(lambda: place.head.jobs[f"cs-{job}-a1"].status, lambda status: status == "SUCCEEDED")
    place.server.kill()
    refused = place.server.cli("list")
    assert refused.returncode in (120, 125)
    assert "Free some space" in refused.stderr

    disk.free()
    receipt = place.finished(job)
    assert (receipt["state"], receipt["missing"]) == ("succeeded", [])
    assert place.runs() == ["first", "runs"]
    client = place.server.up()
    assert client.verify()["ok"]
    assert [view["name"] for view in client.jobs()["jobs"]] == ["runs", "first"]


def test_a_disk_that_can_only_be_read(disk, place):
    place.add_cluster()  # or the first job would start a Ray head
    running = place.server.running()
    disk.read_only()
    refused = place.server.cli("submit", "--no-wait", "--working-dir", str(Path(__file__).parent), "--", "true")
    assert refused.returncode == 125
    assert "Read-only file system" in refused.stderr
    place.server.cli("server", "stop", check=True)
    place.server.gone(running.process)
    refused = place.server.cli("list")
    assert refused.returncode == 120
    assert "cannot be used (Read-only file system). Set CARBON_SCHED_DATA_DIR" in refused.stderr
    disk.writable()
    assert place.server.up().health()["ok"]


def test_a_network_filesystem_is_refused(tmp_path, monkeypatch, capsys):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:1 / / rw - ext4 none rw\n2 1 0:2 / {tmp_path} rw - nfs4 server:/home rw\n")
    monkeypatch.setattr(
        "carbon_sched.compose.check_local_filesystem", functools.partial(check_local_filesystem, mounts=mounts)
    )
    assert run(["serve", "--data-dir", str(tmp_path / "data")]) == 120
    said = capsys.readouterr().err
    assert "lies on a network filesystem (nfs4), which can corrupt SQLite" in said
    assert "--data-dir" in said
    assert not (tmp_path / "data").exists()


def test_a_port_that_is_taken_and_the_database_of_a_newer_version(place):
    config = place.server.data_dir / "config.yaml"
    place.server.data_dir.mkdir()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config.write_text(f"port: {port}\n")
        refused = place.server.cli("list")
    assert refused.returncode == 120
    assert f"port: '{port}' cannot be used on 127.0.0.1 (Address already in use). Choose a free port" in refused.stderr
    config.unlink()

    place.server.gone(place.server.up() and place.server.signal(signal.SIGTERM))
    with closing(sqlite3.connect(place.server.data_dir / "carbon-sched.sqlite")) as database, database:
        database.execute("UPDATE schema_info SET revision = 9999, min_code = 9999")
    refused = place.server.cli("list")
    assert refused.returncode == 125
    assert "Install a newer carbon-sched" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) <= 2, "the reason, not a page of log"


@pytest.mark.parametrize("what", ["removed", pytest.param("replaced", marks=pytest.mark.slow)])
def test_without_its_data_folder_a_server_ends_and_says_why(place, what):
    place.server.up()
    process, data = place.server.running().process, place.server.data_dir
    with (data / "server.log").open() as log:
        aside = data.rename(data.with_name("aside"))
        if what == "replaced":
            data.mkdir()
        else:
            shutil.rmtree(aside)
        place.server.gone(process)
        said = log.read()
    assert f"{data} was removed or replaced: the server and its local Ray heads end" in said
    assert "Traceback" not in said
    assert place.server.up().health()["ok"], "the next command begins anew"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_data_folder(place, tmp_path):
    place.server.up()
    running = place.server.running()
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    environment = {**os.environ, "CARBON_SCHED_DATA_DIR": str(place.server.data_dir)}
    command = [sys.executable, "-c", AS_NOBODY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[122, 122, 122, 122]", done.stderr
    assert done.stderr.count("belongs to another user: set CARBON_SCHED_DATA_DIR to a folder") == 4
    assert place.server.running() == running
