"""The local head's life without Ray: a stand-in program is started, adopted, killed and ended as Ray would be.

tests/e2e/test_local_head_with_ray.py does the same once with Ray itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from carbon_sched.clusters import head_ports, local_head, processes
from carbon_sched.clusters.local_head import LocalRayHead
from carbon_sched.clusters.registry import RayClusters
from carbon_sched.domain.cluster import Cluster, LocalHead, Pue
from carbon_sched.domain.errors import ClusterRefused, ClusterUnclear, ClusterUnreachable
from tests.fakes.clock import StoppedClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Notes each start; has a child in its session, one that lost its environment (as Ray's agents, which rewrite their
# title), and one in a session of its own (as Ray's jobs are).
HEAD = """#!/bin/sh
echo "$$" >> {starts}
env > {environment}
echo "$@" > {arguments}
sleep 1000 &
env -i sleep 1000 &
echo "$!" > {bare}
setsid sleep 1000 &
exec sleep 1000
"""
STUBBORN = """#!/bin/sh
trap '' TERM
echo "$$" >> {starts}
while true; do sleep 1; done
"""
FAILING = """#!/bin/sh
echo "$$" >> {starts}
echo "Traceback"
echo "{last_words}"
exit 1
"""


class Place:
    """A folder with a stand-in program, and heads on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, StoppedClock()
        self.data = folder / "data"
        self.head_folder = self.data / "local-heads" / "one"
        self.use(HEAD)

    def use(self, program: str, last_words: str = "") -> None:
        self.python = self.folder / "python"
        names = {name: self.folder / name for name in ("starts", "environment", "arguments", "bare")}
        self.python.write_text(program.format(**names, last_words=last_words))
        self.python.chmod(0o755)

    def head(self, name: str = "one") -> LocalRayHead:
        folder = self.data / "local-heads" / name
        return LocalRayHead(name, folder, LocalHead(cpus=2), self.clock, str(self.python))

    def clusters(self) -> RayClusters:
        return RayClusters(self.data, self.clock, str(self.python))

    def starts(self) -> list[int]:
        path = self.folder / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def state(self) -> dict[str, object]:
        return json.loads((self.head_folder / "head.json").read_text())

    def bare(self) -> set[int]:
        """The child without an environment, which only its session tells."""
        return {int((self.folder / "bare").read_text())}

    def left(self) -> set[int]:
        return processes.members(-1, f"{local_head.MARKER}={self.head_folder}")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for folder in (place.data / "local-heads").glob("*"):
        LocalRayHead(folder.name, folder, LocalHead(), place.clock).stop()


def started(place: Place, count: int = 1) -> list[int]:
    """The pids of `count` starts, once the stand-in has said them and started its children."""
    assert processes.wait_until(lambda: len(place.starts()) == count, 10)
    return place.starts()


def settled(place: Place) -> set[int]:
    assert processes.wait_until(lambda: len(place.left()) == 4, 10)
    return place.left()


# starting and adopting ---------------------------------------------------------------------------


def test_many_starters_at_once_start_one(place: Place):
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(place.head().endpoint().address)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(answers) == 8
    settled(place)
    assert len(place.starts()) == 1


def test_another_process_adopts_the_running_head(place: Place):
    address = place.head().endpoint().address
    pids = started(place)
    code = f"""
import time
from pathlib import Path
from carbon_sched.clusters.local_head import LocalRayHead
from carbon_sched.domain.cluster import LocalHead
class Clock:
    monotonic = staticmethod(time.monotonic)
head = LocalRayHead("one", Path({str(place.head_folder)!r}), LocalHead(), Clock(), {str(place.python)!r})
print(head.endpoint().address)
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == address
    assert place.starts() == pids


def test_a_head_outlives_the_object_that_started_it(place: Place):
    place.head().endpoint()
    settled(place)
    assert place.head().running()


@pytest.mark.parametrize("changed", [{"started": "1"}, {"boot": "another"}])
def test_a_process_that_only_has_the_number_is_left_alone(place: Place, changed: dict[str, str]):
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        known = processes.process(stranger.pid)
        state = {"base_port": 21000, "temp_dir": str(place.folder / "t" / "r"), "pid": stranger.pid}
        place.head_folder.mkdir(parents=True)
        written = {**state, "started": known.started, "boot": known.boot, **changed}
        (place.head_folder / "head.json").write_text(json.dumps(written))
        assert not place.head().running()
        place.head().endpoint()
        assert started(place) != [stranger.pid]
        place.head().stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_what_a_killed_head_left_is_ended_before_the_next_start(place: Place):
    head = place.head()
    first = head.endpoint().address
    left = (settled(place) | place.bare()) - {place.state()["pid"]}
    os.kill(place.state()["pid"], signal.SIGKILL)
    assert processes.wait_until(lambda: not head.running(), 10)
    assert all(processes.process(pid) for pid in left)
    place.clock.pass_s(3600)
    assert head.endpoint().address == first, "the ports are kept where they are free"
    assert not [pid for pid in left if processes.process(pid)]
    assert len(started(place, 2)) == 2


def test_a_state_file_that_was_cut_short_loses_no_process(place: Place):
    place.head().endpoint()
    old, temp_dir = settled(place) | place.bare(), Path(str(place.state()["temp_dir"])).parent
    (place.head_folder / "head.json").write_text('{"base_port": 21')
    place.head().endpoint()
    started(place, 2)
    assert not [pid for pid in old if processes.process(pid)]
    temp_dir.rmdir()  # only its name is lost with the file


def test_ray_is_started_as_it_must_be(place: Place, monkeypatch: pytest.MonkeyPatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "CARBON_SCHED_DATABASE", "CARBON_SCHED_TOKEN"):
        monkeypatch.setenv(name, "leaked")
    head = place.head()
    endpoint = head.endpoint()
    started(place)
    settled(place)
    environment = dict(
        line.split("=", 1) for line in (place.folder / "environment").read_text().splitlines() if "=" in line
    )
    arguments = (place.folder / "arguments").read_text().split()
    base, temp_dir = place.state()["base_port"], Path(str(place.state()["temp_dir"]))
    assert arguments[:4] == ["-m", "ray.scripts.scripts", "start", "--head"]
    assert {"--block", "--disable-usage-stats", "--num-cpus=2", f"--temp-dir={temp_dir}"} <= set(arguments)
    assert endpoint.address == f"http://127.0.0.1:{base + 1}"
    assert f"--dashboard-port={base + 1}" in arguments
    assert "leaked" not in environment.values()
    assert environment["PATH"].split(os.pathsep)[0] == str(place.folder)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == endpoint.token.file
    assert len({environment["AUTOSCALER_METRIC_PORT"], environment["DASHBOARD_METRIC_PORT"]}) == 2
    token_file = Path(endpoint.token.file)
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert len(token_file.read_text()) >= 43
    assert stat.S_IMODE(temp_dir.parent.stat().st_mode) == 0o700


def test_sockets_fit_below_the_temporary_folder(place: Place, monkeypatch: pytest.MonkeyPatch):
    deep = place.folder / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    place.head().endpoint()
    longest = "session_2026-11-23_23-26-17_845547_4194304/sockets/plasma_store"
    assert len(f"{place.state()['temp_dir']}/{longest}") <= 103


def test_the_temporary_folder_is_locked_against_cleaners(place: Place):
    head = place.head()
    head.endpoint()
    settled(place)
    folder = os.open(Path(str(place.state()["temp_dir"])).parent, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        head.stop()
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(folder)


def test_two_heads_have_ports_of_their_own(place: Place):
    assert place.head("one").endpoint().address != place.head("two").endpoint().address


# failing -----------------------------------------------------------------------------------------


def test_a_head_that_ends_at_once_says_why_and_is_not_started_over_and_over(place: Place):
    place.use(FAILING, last_words="no space left on device")
    head = place.head()
    head.endpoint()
    started(place)
    assert processes.wait_until(lambda: not head.running(), 10)
    for _ in range(3):
        with pytest.raises(ClusterUnreachable, match="no space left on device"):
            head.endpoint()
    assert len(place.starts()) == 1
    place.clock.pass_s(2)
    head.endpoint()
    started(place, 2)
    assert processes.wait_until(lambda: not head.running(), 10)
    for _ in range(2):  # twice as long now
        with pytest.raises(ClusterUnreachable):
            head.endpoint()
        place.clock.pass_s(2)
    head.endpoint()
    started(place, 3)


def test_without_ray_the_extra_is_named(place: Place):
    place.use(FAILING, last_words="/x/python: No module named 'ray'")
    head = place.head()
    head.endpoint()
    assert processes.wait_until(lambda: not head.running(), 10)
    with pytest.raises(ClusterUnreachable, match=r"pip install 'carbon-sched\[local\]'"):
        head.endpoint()


# ending ------------------------------------------------------------------------------------------


def test_stop_leaves_nothing(place: Place):
    head = place.head()
    head.endpoint()
    pids = settled(place) | place.bare()
    temp_dir = Path(str(place.state()["temp_dir"])).parent
    head.stop()
    assert not [pid for pid in pids if processes.process(pid)]
    assert not temp_dir.exists()
    assert not (place.head_folder / "head.json").exists()
    head.stop()
    with pytest.raises(ClusterUnreachable, match="was stopped"):
        head.endpoint()
    assert len(place.starts()) == 1


@pytest.fixture
def read_only(place: Place) -> Iterator[Callable[[], None]]:
    """Has the data folder be on a disk that can only be read, once it is called."""
    mounted = False

    def mount() -> None:
        nonlocal mounted
        done = subprocess.run(["mount", "--bind", place.data, place.data], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
        mounted = True
        subprocess.run(["mount", "-o", "remount,bind,ro", place.data], check=True)

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", place.data], check=True)


def test_a_head_whose_folder_can_only_be_read_is_ended(place: Place, read_only: Callable[[], None]):
    head = place.head()
    head.endpoint()
    pids, temp_dir = settled(place) | place.bare(), Path(str(place.state()["temp_dir"])).parent
    read_only()
    head.stop()
    assert not [pid for pid in pids if processes.process(pid)]
    assert not temp_dir.exists()


def test_a_head_whose_folder_was_removed_is_ended(place: Place):
    head = place.head()
    head.endpoint()
    pids, temp_dir = settled(place) | place.bare(), Path(str(place.state()["temp_dir"])).parent
    shutil.rmtree(place.data)
    head.stop()
    assert not [pid for pid in pids if processes.process(pid)]
    assert not temp_dir.exists()


def test_a_head_that_does_not_listen_is_killed(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_head, "TERM_WAIT_S", 0.1)
    place.use(STUBBORN)
    head = place.head()
    head.endpoint()
    started(place)
    head.stop()
    assert place.left() == set()


def test_what_cannot_be_ended_is_told(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_head, "TERM_WAIT_S", 0.1)
    monkeypatch.setattr(local_head, "KILL_WAIT_S", 0.1)
    head = place.head()
    head.endpoint()
    settled(place)
    with monkeypatch.context() as deaf:
        deaf.setattr(processes, "end", lambda pids, number: None)
        with pytest.raises(ClusterUnclear, match="do not end"):
            head.stop()
    assert place.state()["pid"], "it can be tried again"


# the registry ------------------------------------------------------------------------------------


def cluster(cpus: int = 2) -> Cluster:
    return Cluster("one", "DE", Pue(1_200_000, "2026", "a test"), local=LocalHead(cpus=cpus))


def test_a_cluster_is_served_by_one_client_until_it_changes(place: Place):
    clusters = place.clusters()
    first = clusters.client(cluster())
    assert clusters.client(cluster()) is first
    assert clusters.client(cluster(cpus=3)) is not first
    settled(place)
    assert len(place.starts()) == 1, "a running head is not disturbed"


def test_a_head_that_cannot_start_is_told_by_the_status(place: Place):
    place.use(FAILING, last_words="broken")
    clusters = place.clusters()
    client = clusters.client(cluster())
    assert processes.wait_until(lambda: "broken" in (client.status().problem or ""), 10)


def test_a_stopped_cluster_starts_again_only_when_it_was_forgotten(place: Place):
    clusters = place.clusters()
    client = clusters.client(cluster())
    settled(place)
    clusters.stop_local("one")
    assert place.left() == set()
    assert "was stopped" in client.status().problem
    assert "was stopped" in clusters.client(cluster()).status().problem
    clusters.forget("one")
    clusters.client(cluster())
    started(place, 2)


def test_a_server_that_never_knew_the_head_can_stop_it(place: Place):
    place.clusters().client(cluster())
    settled(place)
    place.clusters().stop_local("one")
    assert place.left() == set()
    place.clusters().stop_local("never-there")
    assert not (place.data / "local-heads" / "never-there").exists()


@pytest.mark.parametrize("name", ["..", "a/b", "."])
def test_a_name_is_never_a_path(place: Place, name: str):
    clusters = place.clusters()
    clusters.client(Cluster(name, "DE", Pue(1_200_000, "2026", "a test"), local=LocalHead()))
    (folder,) = (place.data / "local-heads").iterdir()
    assert (folder / "head.json").exists()
    clusters.stop_local(name)


# ports and processes -----------------------------------------------------------------------------


def test_a_block_of_ports_is_claimed_once():
    first = head_ports.claim(30_000)
    second = head_ports.claim(30_000)
    assert first.base != second.base
    first.close()
    third = head_ports.claim(first.base)
    assert third.base == first.base
    second.close()
    third.close()


def test_ports_in_use_are_passed_over():
    free = head_ports.claim(30_200)
    free.close()
    with socket.socket() as other:
        other.bind(("127.0.0.1", free.base + head_ports.OBJECT_MANAGER))
        other.listen()
        found = head_ports.claim(free.base)
        found.close()
    assert found.base != free.base


def test_a_heads_ports_stay_claimed_while_it_lives(place: Place):
    head = place.head()
    head.endpoint()
    settled(place)
    base = int(str(place.state()["base_port"]))
    other = head_ports.claim(base)
    other.close()
    assert other.base != base
    head.stop()
    again = head_ports.claim(base)
    again.close()
    assert again.base == base


def test_a_killed_head_comes_back_at_its_ports_once_they_are_given_back(place: Place, monkeypatch: pytest.MonkeyPatch):
    looks, free = list[bool](), head_ports.free
    address = place.head().endpoint().address
    (pid,) = started(place)
    settled(place)
    os.kill(pid, signal.SIGKILL)
    monkeypatch.setattr(head_ports, "free", lambda base: looks.append(free(base)) or looks[-1])
    with socket.socket() as held:
        held.bind(("127.0.0.1", int(str(place.state()["base_port"])) + head_ports.RAY_CLIENT))
        held.listen()
        asked = threading.Thread(target=place.head().endpoint)
        asked.start()
        assert processes.wait_until(lambda: looks, 10)
    asked.join()
    assert looks[0] is False
    started(place, 2)
    assert place.head().endpoint().address == address


def test_a_process_is_more_than_its_number():
    child = subprocess.Popen(["sleep", "1000"])
    known = processes.process(child.pid)
    assert processes.alive(known)
    assert not processes.alive(processes.Process(child.pid, "1", known.boot))
    child.kill()
    # Ended, and not reaped: a zombie is not alive.
    assert processes.wait_until(lambda: not processes.alive(known), 10)
    child.wait()
    assert processes.process(child.pid) is None


def test_a_head_that_ended_is_no_zombie(place: Place):
    place.use(FAILING, last_words="gone")
    head = place.head()
    head.endpoint()
    (pid,) = started(place)
    assert processes.wait_until(lambda: not head.running(), 10)
    with pytest.raises(ClusterUnreachable):
        head.endpoint()
    assert not Path(f"/proc/{pid}").exists()


def test_ourselves_and_our_parents_are_never_swept():
    mark = f"PATH={os.environ['PATH']}"
    child = subprocess.Popen(["sleep", "1000"])
    found = processes.members(os.getsid(0), mark)
    child.kill()
    child.wait()
    assert child.pid in found
    assert not {os.getpid(), os.getppid(), 1} & found


def test_where_there_is_no_proc_ps_is_asked(monkeypatch: pytest.MonkeyPatch):
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    monkeypatch.setattr(processes, "PROC", Path("/no-such-folder"))
    monkeypatch.setattr(processes, "boot_id", lambda: "this one")
    known = processes.process(child.pid)
    assert known.started
    assert processes.alive(known)
    assert processes.members(child.pid, "") == {child.pid}
    child.kill()
    assert processes.wait_until(lambda: not processes.alive(known), 10)
    child.wait()


def test_waiting_ends():
    start = time.monotonic()
    assert not processes.wait_until(lambda: False, 0.05)
    assert time.monotonic() - start >= 0.05


# what a killed head leaves -----------------------------------------------------------------------


def test_files_of_a_life_that_is_over_are_read_from_its_folder(place: Place, tmp_path: Path):
    """The stand-in answers no HTTP, as a head does not that was killed."""
    client = place.clusters().client(cluster())
    (pid,) = started(place)
    logs = Path(str(place.state()["temp_dir"]), "session_2026-11-29_01-00-00_000001_1", "logs")
    logs.mkdir(parents=True)
    (logs / "carbon-sched-a.record").write_bytes(b"its last words")
    (logs / "carbon-sched-b.record").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("not ours")
    os.kill(pid, signal.SIGKILL)

    assert client.list_files("the-old-node", "carbon-sched-*.record") == [
        "carbon-sched-a.record",
        "carbon-sched-b.record",
    ]
    assert client.list_files("the-old-node", "carbon-sched-c.record") == []
    assert client.read_file("the-old-node", "carbon-sched-a.record", limit=14) == b"its last words"
    for name, limit in (("carbon-sched-a.record", 13), ("carbon-sched-b.record", 14), ("carbon-sched-c.record", 14)):
        with pytest.raises(ClusterRefused, match=name):
            client.read_file("the-old-node", name, limit=limit)
