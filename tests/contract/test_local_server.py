"""Finding, starting and ending the local server, with real processes, locks and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from carbon_sched import __version__
from carbon_sched.cli.main import run
from carbon_sched.client import Client
from carbon_sched.clusters import processes
from carbon_sched.domain.errors import Conflict, InvalidInput, NotAllowed, ServerUnavailable
from carbon_sched.local_server import LocalServer
from carbon_sched.server_files import Running, ServerFiles

ROOT = Path(__file__).parents[2]
GONE = {"url": "http://127.0.0.1:1", "version": __version__}


class Local:
    """The local server of one data folder, with the tiny server in place of the real one."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir, self.said, self.made = data_dir, [], []
        self.files = ServerFiles(data_dir)

    def server(self, *options: str) -> LocalServer:
        command = [sys.executable, "-m", "tests.fakes.tiny_server", str(self.data_dir), *options]
        made = LocalServer(self.data_dir, self.said.append, command=command)
        self.made.append(made)
        return made

    def ensure(self, *options: str) -> Running:
        return self.server(*options).ensure(busy=self.busy, end=self.end)

    def client(self, running: Running) -> Client:
        return Client(running.url, self.files.read_token())

    def busy(self, running: Running) -> bool:
        return self.client(running).server()["jobs_live"] > 0

    def end(self, running: Running) -> None:
        self.client(running).shutdown(stop_local_clusters=False)

    def starts(self) -> list[str]:
        return (self.data_dir / "starts").read_text(encoding="utf-8").split()

    def close(self) -> None:
        children = [made._child for made in self.made if made._child is not None]
        for child in children:
            child.kill()
            child.wait()


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = Local(tmp_path / "data dir")
    yield made
    made.close()


def test_a_server_is_started_once_and_found_again(local):
    running = local.ensure()
    assert local.ensure() == running
    assert local.starts() == [__version__]
    assert local.client(running).health()["ok"] is True


def test_two_commands_at_once_start_one_server(local):
    found = []
    threads = [threading.Thread(target=lambda: found.append(local.ensure("--slow", "0.3"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(local.starts()) == 1
    assert len(set(found)) == 1


def test_it_outlives_the_command_its_terminal_and_ctrl_c(local):
    running = local.ensure()
    assert os.getsid(running.pid) == running.pid != os.getsid(0)


def test_its_files_are_the_users_alone(local):
    local.ensure()
    assert local.data_dir.stat().st_mode & 0o777 == 0o700
    for name in ("token", "server.json", "server.log", "server.lock", "start.lock"):
        assert (local.data_dir / name).stat().st_mode & 0o077 == 0, name


def test_what_points_commands_elsewhere_is_not_handed_to_it(local, monkeypatch):
    for name in ("CARBON_SCHED_URL", "CARBON_SCHED_TOKEN", "CARBON_SCHED_TOKEN_FILE"):
        monkeypatch.setenv(name, "x")
    running = local.ensure()
    environment = Path(f"/proc/{running.pid}/environ").read_bytes()
    assert b"CARBON_SCHED_" not in environment


def test_kill_9_is_noticed_and_the_next_command_starts_another(local):
    first = local.ensure()
    os.kill(first.pid, signal.SIGKILL)
    local.made[0]._child.wait()
    server = local.server()
    assert server.crashed()
    assert server.find() is None
    assert local.ensure().pid != first.pid
    assert len(local.starts()) == 2


@pytest.mark.parametrize(
    "change",
    [{"boot": "another boot"}, {"started": "1"}, {"pid": 2**22 + 1}],
    ids=["after a reboot", "pid used again", "no such process"],
)
def test_the_word_of_a_server_that_is_no_more_counts_for_nothing(local, change):
    local.files.prepare()
    own = processes.process(os.getpid())
    stale = {**GONE, "pid": own.pid, "started": own.started, "boot": own.boot, "host": os.uname().nodename}
    local.files.state.write_text(json.dumps(stale), encoding="utf-8")
    assert local.server().find() is not None, "this very process would count"
    local.files.state.write_text(json.dumps(stale | change), encoding="utf-8")
    assert local.server().find() is None
    assert local.ensure().url != GONE["url"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 1}', "\x00"])
def test_a_damaged_state_file_is_no_server(local, content):
    local.files.prepare()
    local.files.state.write_text(content, encoding="utf-8")
    assert local.server().find() is None


def test_a_lock_file_of_a_dead_process_holds_nobody_up(local):
    local.files.prepare()
    for name in ("server.lock", "start.lock"):
        (local.data_dir / name).write_text('{"host": "elsewhere", "pid": 1, "boot": "old"}', encoding="utf-8")
    assert local.ensure().pid


def test_a_folder_held_by_a_server_on_another_machine_is_left_alone(local):
    running = local.ensure()
    elsewhere = {**running.__dict__, "host": "login-node-2", "boot": "theirs"}
    local.files.state.write_text(json.dumps(elsewhere), encoding="utf-8")
    with pytest.raises(Conflict, match="a server on login-node-2 uses"):
        local.ensure()


def test_a_second_server_of_a_folder_is_refused(local):
    running = local.ensure()
    with pytest.raises(Conflict, match=f"pid {running.pid} on {os.uname().nodename}"), local.files.exclusive():
        pass
    assert not ServerFiles(local.data_dir.parent / "other").in_use()


def test_an_idle_older_server_is_replaced(local):
    old = local.ensure("--version", "0.0.9")
    new = local.ensure()
    assert (old.version, new.version) == ("0.0.9", __version__)
    assert local.starts() == ["0.0.9", __version__]
    assert not processes.alive(old.process)
    assert any("replacing the idle server of carbon-sched 0.0.9" in text for text in local.said)


def test_an_older_server_with_jobs_is_used_and_said_to_be_older(local):
    old = local.ensure("--version", "0.0.9", "--jobs", "1")
    assert local.ensure() == old
    assert any("still carbon-sched 0.0.9" in text for text in local.said)


def test_a_newer_server_is_used_and_said_to_be_newer(local):
    new = local.ensure("--version", "99.0.0")
    assert local.ensure() == new
    assert any("newer than this command" in text for text in local.said)


def test_versions_are_ordered_as_numbers(local):
    from carbon_sched.local_server import _version

    mixed = ["1.0.0", "0.10.0", "0.9.0", "0.10.0.dev1", "0.9.0.dev1"]
    assert sorted(mixed, key=_version) == ["0.9.0.dev1", "0.9.0", "0.10.0.dev1", "0.10.0", "1.0.0"]


def test_a_server_that_cannot_start_is_told_with_the_end_of_its_log(local):
    with pytest.raises(ServerUnavailable) as caught:
        local.ensure("--fail")
    assert "exit code 5" in str(caught.value)
    assert "no such table: jobs" in str(caught.value)
    assert str(local.files.log) in str(caught.value)


def test_one_that_is_never_ready_is_given_up_and_ended(local, monkeypatch):
    monkeypatch.setattr("carbon_sched.local_server.START_S", 0.2)
    server = local.server("--slow", "600")
    with pytest.raises(ServerUnavailable, match=r"not ready within 0\.2 s"):
        server.ensure(busy=local.busy, end=local.end)
    assert server._child.poll() is not None


def test_one_that_was_started_by_hand_is_waited_for(local):
    command = [sys.executable, "-m", "tests.fakes.tiny_server", str(local.data_dir), "--slow", "0.4"]
    with subprocess.Popen(command, cwd=ROOT) as by_hand:
        while not local.files.in_use():
            assert by_hand.poll() is None
        assert local.ensure().pid == by_hand.pid
        by_hand.kill()
    assert len(local.starts()) == 1


def test_stop_ends_it_and_leaves_nothing_running(local):
    server = local.server()
    running = server.ensure(busy=local.busy, end=local.end)
    server.stop(running, lambda: local.end(running))
    assert not processes.alive(running.process)
    assert server.find() is None
    assert not server.crashed()


def test_one_that_does_not_listen_is_ended_by_signals(local, monkeypatch):
    monkeypatch.setattr("carbon_sched.local_server.HANDOVER_S", 0.1)
    server = local.server("--deaf")
    running = server.ensure(busy=local.busy, end=local.end)
    server.stop(running, lambda: local.end(running))
    assert not processes.alive(running.process)
    assert any("SIGTERM" in text for text in local.said)
    assert server.find() is None


def test_a_large_log_is_set_aside_at_the_next_start(local, monkeypatch):
    monkeypatch.setattr("carbon_sched.local_server.LOG_LIMIT", 10)
    local.files.prepare()
    local.files.log.write_text("old and long\n", encoding="utf-8")
    local.ensure()
    assert (local.data_dir / "server.log.1").read_text(encoding="utf-8") == "old and long\n"


def test_the_token_stays_and_must_be_private(local):
    local.files.prepare()
    assert local.files.token(lambda: "cs_first") == "cs_first"
    assert local.files.token(lambda: "cs_second") == "cs_first"
    token = local.data_dir / "token"
    token.chmod(0o644)
    with pytest.raises(NotAllowed, match="chmod 600"):
        local.files.read_token()
    token.write_text("", encoding="utf-8")
    with pytest.raises(NotAllowed, match="is empty"):
        local.files.read_token()
    token.unlink()
    with pytest.raises(NotAllowed, match="cannot be read"):
        local.files.read_token()


def test_a_data_folder_that_cannot_be_one(tmp_path):
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidInput, match="CARBON_SCHED_DATA_DIR"):
            ServerFiles(wrong).prepare()


# commands -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(local, monkeypatch, capsys):
    monkeypatch.setenv("CARBON_SCHED_DATA_DIR", str(local.data_dir))
    monkeypatch.setattr("carbon_sched.local_server._serve", lambda data_dir: local.server()._command)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        return code, *capsys.readouterr()

    return call


def test_status_and_logs_start_nothing(local, shell):
    code, out, _ = shell("server", "status", "--json")
    assert (code, json.loads(out)["running"]) == (123, False)
    assert shell("server", "status")[0] == 123
    assert shell("server", "logs")[0] == 0
    assert shell("server", "stop")[0] == 0
    assert not local.data_dir.exists()


def test_a_running_server_is_shown_and_ended(local, shell):
    running = local.ensure()
    code, out, _ = shell("server", "status", "--json")
    assert (code, json.loads(out)["running"]) == (0, True)
    assert shell("server", "stop")[0] == 0
    assert not processes.alive(running.process)
    assert shell("server", "status")[0] == 123


def test_a_bug_beside_a_server_of_another_version_names_it(local, shell, monkeypatch):
    local.ensure("--version", "99.0.0")

    def changed(*_: object, **__: object) -> None:
        raise KeyError("renamed")

    monkeypatch.setattr(Client, "jobs", changed)
    code, _, err = shell("list")
    assert code == 127
    assert "The server is carbon-sched 99.0.0: update the older of the two" in err
    assert "newer than this command" in err


def test_stop_spares_running_jobs_unless_told_and_says_what_becomes_of_the_others(local, shell, monkeypatch):
    running = local.ensure()
    jobs = [
        {"job_id": "here000000", "state": "running", "cluster": "north"},
        {"job_id": "waits00000", "state": "queued", "cluster": "north"},
        {"job_id": "there00000", "state": "starting", "cluster": "lyon"},
    ]
    monkeypatch.setattr(Client, "jobs", lambda *_, **__: {"jobs": jobs, "next": None})
    code, _, err = shell("server", "stop")
    assert code == 121
    assert "1 job(s) run on local clusters and would end: here000000" in err
    assert "--keep-clusters" in err
    assert processes.alive(running.process)
    code, _, err = shell("server", "stop", "--keep-clusters")
    assert code == 0
    assert "1 job(s) wait until a server runs again: waits00000" in err
    assert "1 job(s) run on other clusters and go on there: there00000" in err
    assert not processes.alive(running.process)
