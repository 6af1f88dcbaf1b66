"""`carbon-sched server install` with a real user manager of systemd; only logind, asked to let it linger, is a stub."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from carbon_sched import systemd
from carbon_sched.clusters import processes
from carbon_sched.local_server import LocalServer
from tests.fakes.real_server import CLI, eventually
from tests.fakes.user_manager import user_manager

FOLDER = 'of 100% "data" $HOME'
"""What systemd would expand, split or unquote, were it not told otherwise."""
LOGINCTL = '#!/bin/sh\necho "$@" >> "{folder}/asked"\n{then}\n'


class Login:
    """A user of the manager, with commands to run."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.data_dir = folder, folder / FOLDER
        self.local = LocalServer(self.data_dir, lambda _: None)
        self.environment = {
            **os.environ,
            **environment,
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "CARBON_SCHED_DATA_DIR": str(self.data_dir),
        }
        self.logind("")

    def logind(self, then: str) -> None:
        path = self.folder / "bin" / "loginctl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(LOGINCTL.format(folder=self.folder, then=then))
        path.chmod(0o755)

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> str:
        done = subprocess.run(
            [*CLI, *arguments], env={**self.environment, **environment}, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def pid(self) -> int:
        return eventually(self.local.find).pid

    def under_systemd(self) -> bool:
        return systemd.UNIT in Path(f"/proc/{self.pid()}/cgroup").read_text()

    def close(self) -> None:
        if running := self.local.find():
            os.kill(running.pid, signal.SIGTERM)
            assert processes.wait_until(lambda: not processes.alive(running.process), 30)


@pytest.fixture
def login(tmp_path, monkeypatch):
    with user_manager(tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        made = Login(tmp_path, environment)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.slow
def test_installed_it_is_of_no_session_and_comes_back_by_itself(login):
    login("list")
    before = login.pid()
    assert not login.under_systemd()
    assert "carbon-sched.service" in login("server", "install")
    assert login.pid() != before
    assert login.under_systemd()
    assert (login.folder / "asked").read_text() == "enable-linger\n"
    assert os.getsid(login.pid()) != os.getsid(0)

    killed = login.pid()
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: login.pid() != killed), "no command was needed"
    assert login.under_systemd()

    said = login("server", "stop")
    assert "starts again with the next command" in said
    assert login.local.find() is None
    login("list")
    assert login.under_systemd(), "the next command starts the unit"
    assert login("server", "logs", "-n", "1000").count("startup complete") == 4, "one log for all of them"

    login("server", "uninstall")
    assert login.local.find() is None
    assert not systemd.unit_file().exists()
    login("list")
    assert not login.under_systemd()


def test_a_bad_setting_is_told_once_and_not_tried_over_and_over(login):
    login.data_dir.mkdir()
    (login.data_dir / "config.yaml").write_text("port: much\n")
    assert "port" in login("server", "install", code=123)
    (login.data_dir / "config.yaml").unlink()
    login("list")
    assert login.under_systemd()


def test_where_logind_refuses_the_remedy_is_told_and_another_folders_unit_is_left_alone(login):
    login.logind("echo 'Could not enable linger: Access denied' >&2; exit 1")
    said = login("server", "install", code=122)
    assert "Access denied" in said
    assert 'loginctl enable-linger "$USER"' in said
    assert login.under_systemd()

    unit = systemd.unit_file().read_text()
    other = str(login.folder / "other")
    assert "server uninstall" in login("server", "install", code=121, CARBON_SCHED_DATA_DIR=other)
    assert "no unit runs" in login("server", "uninstall", CARBON_SCHED_DATA_DIR=other)
    assert systemd.unit_file().read_text() == unit
    assert login.under_systemd()


# without one ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["no systemd", "no user manager"])
def test_without_a_user_manager_it_says_what_to_do_and_changes_nothing(tmp_path, there):
    path = os.environ["PATH"] if there == "no user manager" else str(tmp_path)
    environment = {
        **os.environ, "PATH": path, "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_RUNTIME_DIR": str(tmp_path),
        "CARBON_SCHED_DATA_DIR": str(tmp_path / "data"), "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere",
    }  # fmt: skip
    done = subprocess.run([*CLI, "server", "install"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 120
    assert "carbon-sched serve" in done.stderr
    assert ("is not on this machine" in done.stderr) == (there == "no systemd")
    assert not (tmp_path / "config").exists()
    assert LocalServer(tmp_path / "data", print).find() is None


def test_the_unit_is_shown_without_touching_anything(tmp_path):
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "CARBON_SCHED_DATA_DIR": str(tmp_path)}
    command = [*CLI, "server", "install", "--print"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"ExecStart={sys.executable} -m carbon_sched.cli.main serve --data-dir {tmp_path}\n" in done.stdout
    assert not (tmp_path / "config").exists()
