"""The server as the chart runs it, without Kubernetes: read-only root, random user id, settings and secrets in files.

Needs root, to make the read-only root (a mount namespace of its own) and to become somebody else. The other user keeps
one right of root, to read what it may not (the tests' Python may lie in a folder of root's), and none to write.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from carbon_sched.client import Client
from carbon_sched.domain.errors import NotAllowed, ServerUnavailable

UID = 1_234_567  # nobody's: no name, no home
TOKEN = "t" * 40
READ_ONLY = """
for folder in "$@"; do mount --bind "$folder" "$folder"; done
mount -o remount,bind,ro /
"""
LEAST = "-all,+dac_read_search"
AS_SOMEBODY = [
    "setpriv", f"--reuid={UID}", "--regid=0", "--clear-groups", "--no-new-privs",
    f"--inh-caps={LEAST}", f"--ambient-caps={LEAST}", f"--bounding-set={LEAST}",
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def container(volume: Path, *arguments: str):
    """A process of ours that can write in `volume` and nowhere else."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        pytest.skip("needs root, unshare and setpriv to make a read-only root and a random user")
    command = [sys.executable, "-m", "carbon_sched.cli.main", *arguments]
    script = f'set -e\n{READ_ONLY}\nexec "$0" {" ".join(map(str, AS_SOMEBODY[1:]))} -- {" ".join(command)}'
    environment = {"PATH": os.environ["PATH"], "HOME": str(volume / "tmp"), "TMPDIR": str(volume / "tmp")}
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    with (volume.parent / "out").open("w+") as out:
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "setpriv", str(volume)],
            env=environment, stdout=out, stderr=subprocess.STDOUT, cwd="/",
        )  # fmt: skip
        try:
            yield process, lambda: Path(out.name).read_text(encoding="utf-8")
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture
def volume():
    """What a pod mounts: data and tmp that anybody in group 0 can write, and files of settings.

    Not in pytest's own folder, which every pytest that begins closes to other users.
    """
    folder = Path(tempfile.mkdtemp(prefix="cs-volume-"))
    folder.chmod(0o711)
    made = folder / "volume"
    for name in ("data", "tmp", "policies"):
        (made / name).mkdir(parents=True)
    (made / "token").write_text(TOKEN + "\n", encoding="utf-8")
    (made / "clusters.yaml").write_text("lyon: {address: 'http://127.0.0.1:9', zone: FR, home: true}\n", "utf-8")
    policy = "apiVersion: carbon-sched/v1\nname: all\nextends: balanced\nteam: '*'\n"
    (made / "policies" / "all.yaml").write_text(policy, encoding="utf-8")
    settings = "grid: {providers: []}\ntoken_file: token\nclusters_file: clusters.yaml\npolicies_dir: policies\n"
    (made / "config.yaml").write_text(settings, encoding="utf-8")
    for path in (made / "data", made / "tmp"):
        os.chown(path, 0, 0)
        path.chmod(0o770)
    yield made
    shutil.rmtree(folder)


def test_a_random_user_with_a_read_only_root_serves_what_the_files_declare_and_follows_them(volume):
    port = free_port()
    arguments = ("--config", str(volume / "config.yaml"), "--data-dir", str(volume / "data"), "--log-format=json")
    with container(volume, "serve", "--port", str(port), *arguments) as (process, output):
        with Client(f"http://127.0.0.1:{port}", TOKEN) as client:
            until(client.clusters, process, output)
            assert [(one["name"], one["zone"], one["home"]) for one in client.clusters()] == [("lyon", "FR", True)]
            until(lambda: [one["name"] for one in client.policies() if one["version"]] == ["all"], process, output)
            assert client.put_cluster("oslo", {"zone": "NO", "address": "http://127.0.0.1:9"})["zone"] == "NO"
            (volume / "clusters.yaml").write_text(
                "lyon: {address: 'http://127.0.0.1:9', zone: FR, pue: 1.2}\n", "utf-8"
            )
            until(lambda: client.cluster("lyon")["pue"] == 1.2, process, output)
        with Client(f"http://127.0.0.1:{port}", "x" * 40) as stranger, pytest.raises(NotAllowed):
            stranger.clusters()
        assert Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").split("Uid:\t")[1].startswith(str(UID))
        process.terminate()
        assert process.wait(timeout=60) == 0, output()
    owners = {path.stat().st_uid for path in (volume / "data").iterdir()}
    assert owners == {UID}


def until(holds, process, output):
    """Ask until it does; a server that has ended is the failure, with what it wrote."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(ServerUnavailable):
            if holds():
                return
        assert process.poll() is None, output()
        assert time.monotonic() < deadline, output()
        time.sleep(0.05)


@pytest.mark.slow  # a read-only disk is among the bad machines
def test_only_the_volume_can_be_written(volume):
    elsewhere = volume.parent / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    with container(volume, "serve", "--data-dir", str(elsewhere)) as (process, output):
        assert process.wait(timeout=60) == 120
        assert "read-only" in output().lower()


def test_the_database_is_brought_up_to_date_and_left_so(volume):
    for _ in range(2):
        with container(volume, "serve", "--migrate-only", "--data-dir", str(volume / "data")) as (process, output):
            assert process.wait(timeout=60) == 0, output()
    assert (volume / "data" / "carbon-sched.sqlite").exists()


@pytest.mark.parametrize(
    ("content", "told"), [pytest.param(None, "cannot be read", marks=pytest.mark.slow), ("short", "holds 5 characters")]
)
def test_a_token_file_that_is_missing_or_too_short_is_named(volume, content, told):
    (volume / "token").unlink()
    if content is not None:
        (volume / "token").write_text(content, encoding="utf-8")
    arguments = ("--config", str(volume / "config.yaml"), "--data-dir", str(volume / "data"))
    with container(volume, "serve", *arguments) as (process, output):
        assert process.wait(timeout=60) == 120
        assert told in output()
        assert "openssl rand" in output()
