"""The other nodes of a job: when the helper is started at all, where it keeps meters, what it says of them."""

from __future__ import annotations

import json
import os
import sys
import time
from types import SimpleNamespace

import pytest

from carbon_sched_runtime import nodes, others
from carbon_sched_runtime.nodes import Ears, Gone, Watch, watch
from carbon_sched_runtime.others import OtherNodes, our_packages, several_hosts

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
MAPPED = "0000000000000000FFFF0000"
ME, PEER, LOOPBACK, ANOTHER = "024DE70A", "034DE70A", "0100007F", "0200007F"
GCS = "18EB"  # 6379


def connection(local: str, remote: str, state: str = "01") -> str:
    return f"   1: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 1 1 0 20 0 0 10 -1\n"


# Is there anybody? ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "line", "found"),
    [
        ("tcp6", connection(f"{MAPPED}{ME}:{GCS}", f"{MAPPED}{PEER}:9934"), True),
        ("tcp", connection(f"{ME}:{GCS}", f"{PEER}:9934"), True),
        ("tcp", connection(f"{PEER}:C9C0", f"{ME}:{GCS}"), True),  # the control store is on another host
        ("tcp", connection(f"{ME}:{GCS}", f"{ME}:9934"), False),
        ("tcp", connection(f"{ANOTHER}:{GCS}", f"{LOOPBACK}:9934"), False),
        ("tcp6", connection(f"{MAPPED}{ANOTHER}:{GCS}", f"{MAPPED}{LOOPBACK}:9934"), False),
        ("tcp6", connection(f"{'0' * 24}01000000:{GCS}", f"{'0' * 24}01000000:9934"), False),
        ("tcp", connection(f"{ME}:{GCS}", f"{PEER}:9934", state="06"), False),
        ("tcp", connection(f"{ME}:1F90", f"{PEER}:9934"), False),
        ("tcp", "", False),
    ],
)
def test_other_hosts_are_read_off_the_connections_of_the_control_store(tmp_path, table, line, found):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / table).write_text(HEAD + line)
    assert several_hosts("10.231.77.2:6379", str(tmp_path)) is found


@pytest.mark.parametrize("address", ["", "auto", "ray://head", "10.0.0.1:"])
def test_an_address_that_is_none_says_nothing(tmp_path, address):
    assert several_hosts(address, str(tmp_path)) is False


def test_only_our_own_package_goes_to_other_nodes():
    uris = ["gcs://_ray_pkg_csabc.zip", "gcs://_ray_pkg_users.zip"]
    assert our_packages(json.dumps({"runtime_env": {"py_modules": uris}})) == uris[:1]
    assert our_packages(json.dumps({"runtime_env": {"py_modules": uris[1:]}})) == uris[1:]
    assert our_packages(json.dumps({"runtime_env": {}})) == []
    assert our_packages("no json") == our_packages("") == our_packages("[]") == []


# The helper as the wrapper holds it ----------------------------------------------------------------------------------


@pytest.fixture
def heard(monkeypatch, tmp_path):
    """What goes into the record; there are other hosts."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(HEAD + connection(f"{ME}:{GCS}", f"{PEER}:9934"))
    monkeypatch.setenv("RAY_ADDRESS", "10.231.77.2:6379")
    return []


def a_helper(monkeypatch, tmp_path, heard, program: str) -> OtherNodes:
    """The real pipes, with a program of the test's own in the helper's place."""
    script = tmp_path / "helper.py"
    script.write_text(program)
    spawn = os.posix_spawn

    def ours(path, command, environment, **options):
        assert command[1:3] == ["-m", "carbon_sched_runtime.nodes"]
        assert "RAY_JOB_CONFIG_JSON_ENV_VAR" not in environment
        return spawn(path, [sys.executable, str(script), command[3]], environment, **options)

    monkeypatch.setattr(os, "posix_spawn", ours)
    return OtherNodes("cs-a-a1", lambda event, **fields: heard.append((event, fields)), str(tmp_path))


def test_on_one_node_nothing_is_started(monkeypatch, tmp_path, heard):
    (tmp_path / "net" / "tcp").write_text(HEAD + connection(f"{ANOTHER}:{GCS}", f"{LOOPBACK}:9934"))
    monkeypatch.setattr(os, "posix_spawn", lambda *_, **__: pytest.fail("a process was started"))
    alone = OtherNodes("cs-a-a1", lambda event, **fields: heard.append((event, fields)), str(tmp_path))
    alone.beat()
    alone.hurry()
    alone.end()
    assert (alone.pid, alone.wait(5), heard) == (None, None, [])


def test_outside_ray_nothing_is_looked_for(monkeypatch, tmp_path, heard):
    monkeypatch.delenv("RAY_ADDRESS")
    plain = OtherNodes("cs-a-a1", lambda event, **fields: heard.append((event, fields)), str(tmp_path))
    plain.beat()
    assert plain.pid is None


TALKS = """
import json, os, sys
say = lambda **what: os.write(1, (json.dumps(what) + chr(10)).encode())
say(event="node", node_id="ab" * 28, machine="0" * 12, boot=None, role="reader", extra=1)
os.write(1, b"no json" + bytes([10]))
words = b""
while not words.endswith(b"end" + bytes([10])):
    words += os.read(0, 100)
say(event="fault", reason=words.decode().replace(chr(10), " ") + sys.argv[1])
say(event="node-closed", node_id="ab" * 28, segments=2, reason=None, journal="89abcdef:0-1")
"""


def test_what_the_helper_says_goes_into_the_record(monkeypatch, tmp_path, heard):
    helper = a_helper(monkeypatch, tmp_path, heard, TALKS)
    helper.beat()
    assert helper.pid is not None
    helper.hurry()
    helper.end()
    assert helper.wait(30) is None
    assert heard == [
        ("node", {"node_id": "ab" * 28, "machine": "0" * 12, "boot": None, "role": "reader"}),
        ("fault", {"reason": "the meter of other nodes said something unknown"}),
        ("fault", {"reason": "hurry end cs-a-a1"}),
        ("node-closed", {"node_id": "ab" * 28, "segments": 2, "reason": None, "journal": "89abcdef:0-1"}),
    ]
    assert helper.pid is None


def test_a_helper_that_dies_while_it_closes_is_said(monkeypatch, tmp_path, heard):
    helper = a_helper(monkeypatch, tmp_path, heard, "import os; os.read(0, 10); os.kill(os.getpid(), 15)")
    helper.beat()
    helper.end()
    assert helper.wait(30) is None
    assert heard == [("fault", {"reason": "the meter of other nodes ended by itself with -15"})]


def test_a_helper_that_does_not_end_is_ended_and_what_is_missing_said(monkeypatch, tmp_path, heard):
    helper = a_helper(monkeypatch, tmp_path, heard, "import time; time.sleep(600)")
    helper.beat()
    helper.end()
    assert "did not close their journals" in helper.wait(0.1)
    assert [event for event, _ in heard] == ["fault"]
    assert helper.pid is None


@pytest.mark.parametrize(("code", "said"), [(others.ALONE, []), (1, ["fault"])])
def test_a_helper_that_dies_is_said_and_one_that_found_a_single_node_is_not(monkeypatch, tmp_path, heard, code, said):
    helper = a_helper(monkeypatch, tmp_path, heard, f"raise SystemExit({code})")
    helper.beat()
    wait_until(lambda: helper.beat() or helper.pid is None)
    assert [event for event, _ in heard] == said
    helper.beat()
    assert helper.pid is None  # not again at once


def test_a_flood_of_events_stays_within_the_record(monkeypatch, tmp_path, heard):
    flood = 'import os\nfor _ in range(5000): os.write(1, b\'{"event":"fault","reason":"x"}\' + bytes([10]))'
    helper = a_helper(monkeypatch, tmp_path, heard, flood)
    helper.beat()
    helper.end()
    assert helper.wait(30) is None
    assert len(heard) == others.EVENTS_KEPT
    assert heard[-1] == ("fault", {"reason": "more happened on other nodes than this record holds"})


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


# Where meters are kept -----------------------------------------------------------------------------------------------


class FakeMeter:
    """Begins at once and closes when told, unless the test says otherwise."""

    def __init__(self) -> None:
        self.state, self.gone, self.answers, self.hurried = "begun", False, True, 0

    def begun(self):
        self._check()
        return {"machine": "0" * 12, "boot": None, "role": "reader", "faults": []} if self.answers else None

    def hurry(self):
        self._check()
        self.hurried += 1

    def finish(self):
        self._check()
        self.state = "finishing"

    def finished(self):
        self._check()
        return {"segments": 3, "reason": None, "journal": "89abcdef:0-2"} if self.answers else None

    def end(self):
        self.state = "ended"

    def _check(self):
        if self.gone:
            raise Gone("its meter ended")


class FakeRay:
    """A cluster whose nodes and workers the test names."""

    def __init__(self) -> None:
        self.own_node, self.living, self.working, self.made = "own", {"own", "a", "b", "c"}, set(), []
        self.trouble: OSError | None = None

    def alive(self):
        return set(self.living)

    def busy(self):
        if self.trouble:
            raise self.trouble
        return set(self.working)

    def meter(self, node):
        self.made.append((node, FakeMeter()))
        return self.made[-1][1]

    def last(self, node) -> FakeMeter:
        return [meter for name, meter in self.made if name == node][-1]


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


@pytest.fixture
def said() -> list:
    return []


@pytest.fixture
def keeper(ray, said) -> Watch:
    return Watch(ray, lambda event, **fields: said.append((event, fields.get("node_id") or fields.get("reason"))))


def test_meters_are_only_on_other_nodes_with_workers_once_each(ray, keeper, said):
    ray.working = {"own", "a", "not alive"}
    keeper.step(0)
    keeper.step(5)
    ray.working = {"a", "b"}
    keeper.step(10)
    assert [node for node, _ in ray.made] == ["a", "b"]
    assert said == [("node", "a"), ("node", "b")]


def test_a_meter_ends_half_a_minute_after_the_last_worker_left(ray, keeper, said):
    ray.working = {"a"}
    keeper.step(100)
    ray.working = set()
    keeper.step(129.9)
    assert ray.last("a").state == "begun"
    keeper.step(130)
    assert ray.last("a").state == "ended"
    assert said == [("node", "a"), ("node-closed", "a")]
    ray.working = {"a"}
    keeper.step(140)
    assert len(ray.made) == 2


def test_workers_that_come_back_in_time_keep_their_meter(ray, keeper):
    for now, working in ((0, {"a"}), (20, set()), (29, {"a"}), (50, set()), (58, set())):
        ray.working = working
        keeper.step(now)
    assert ray.last("a").state == "begun"
    assert len(ray.made) == 1


def test_a_node_that_dies_is_said_to_miss_its_end(ray, keeper, said):
    ray.working = {"a"}
    keeper.step(0)
    ray.living.discard("a")
    keeper.step(5)
    assert said[-1] == ("fault", "node a: the node is gone: the end of its journal is missing")
    keeper.finish(lambda: True)
    assert len(said) == 2


def test_an_actor_that_dies_is_said_and_begun_again(ray, keeper, said):
    ray.working = {"a"}
    ray.meter, made = (lambda node: gone_meter(ray, node)), ray.made
    keeper.step(0)
    assert said == [("fault", "node a: its meter ended: the end of its journal is missing")]
    del ray.meter
    keeper.step(5)
    assert said[-1] == ("node", "a")
    assert len(made) == 2


def gone_meter(ray: FakeRay, node: str) -> FakeMeter:
    meter = FakeMeter()
    meter.gone = True
    ray.made.append((node, meter))
    return meter


def test_at_the_end_every_journal_is_closed_or_named(ray, keeper, said):
    ray.working = {"a", "b", "c"}
    keeper.step(0)
    ray.last("b").answers = False
    ray.last("c").gone = True
    patience = iter([True, True, False])
    keeper.finish(lambda: next(patience))
    assert sorted(said[3:]) == [
        ("fault", "node b: its meter did not answer in time: the end of its journal is missing"),
        ("fault", "node c: its meter ended: the end of its journal is missing"),
        ("node-closed", "a"),
    ]


def test_a_meter_that_had_not_begun_when_it_was_ended_is_named_first(ray, keeper, said):
    ray.working = {"a"}
    slow = FakeMeter()
    slow.answers = False
    ray.meter = lambda _: slow
    keeper.step(0)
    assert (said, keeper.unsettled) == ([], True)
    slow.answers = True
    keeper.finish(lambda: True)
    assert said == [("node", "a"), ("node-closed", "a")]


class Script(Ears):
    """The wrapper's words: one action of the test at each listening, then the end."""

    def __init__(self, *actions) -> None:
        super().__init__()
        self.actions = list(actions)

    def listen(self, timeout_s: float) -> None:
        assert timeout_s <= nodes.POLL_S
        if not self.actions:
            self.ended = True
            return
        self.actions.pop(0)(self)


def test_while_ray_does_not_answer_meters_stay_and_it_is_said_once(ray, said, monkeypatch):
    monkeypatch.setattr(nodes, "EAGER_S", 0.0)
    ray.working = {"a"}

    def away(_):
        ray.trouble = OSError("no answer")

    def hurry(ears):
        ears.hurried = True

    watch(ray, Script(away, hurry, lambda _: None), lambda event, **fields: said.append((event, fields.get("reason"))))
    assert ray.last("a").hurried == 1
    assert said == [
        ("node", None),
        ("fault", "workers on other nodes may go unmetered: no answer"),
        ("node-closed", None),
    ]


def test_the_wrappers_closed_pipe_is_the_end(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr(nodes.select, "select", lambda *_: ([0], [], []))
    monkeypatch.setattr(nodes.os, "read", lambda _, size, read=os.read: read(reading, size))
    os.write(writing, b"hurry\n")
    ears = Ears()
    ears.listen(1)
    assert (ears.hurried, ears.ended) == (True, False)
    os.close(writing)
    ears.listen(1)
    assert ears.ended
    os.close(reading)


def test_the_replicas_of_a_service_are_found_among_the_actors_of_serve(monkeypatch):
    def actor(node, name):
        return SimpleNamespace(node_id=node, class_name=name)

    actors = [actor("a", "ServeReplica:chat:Chat"), actor("b", "ServeReplica:chatter:Chat"), actor("", "X"),
              actor("c", "ServeReplica:chat:Router")]  # fmt: skip
    cluster = object.__new__(nodes.RayCluster)
    cluster._attempt, cluster._jobs = "cs-a-a1", set()
    monkeypatch.setattr(cluster, "_list", lambda kind, **wanted: actors if kind == "actors" else [])
    assert cluster.busy() == set()
    monkeypatch.setenv("CARBON_SCHED_SERVE_APP", "chat")
    assert cluster.busy() == {"a", "c"}
