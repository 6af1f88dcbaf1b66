"""A service under load from a second process, on two real heads: its cluster turns dirty, then the next one dies."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from carbon_sched.domain.time import from_rfc3339
from tests.e2e.conftest import installed_in
from tests.e2e.test_main_job import gpu_counter_uj
from tests.fakes.real_server import eventually, recorded_spans

WITHOUT_SERVE = importlib.util.find_spec("grpc_reflection") is None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(WITHOUT_SERVE, reason="Ray Serve is not installed (pip install 'ray[serve]')"),
]

PATIENCE_S = 600.0
"""Serve's first start takes seconds on a quiet machine, and minutes on a busy one."""
CODE = """
import asyncio
from fastapi import FastAPI
from ray import serve
from carbon_sched_runtime import serving

api = FastAPI()
api.add_middleware(serving.Middleware)

@serve.deployment(ray_actor_options={"num_cpus": 1, "num_gpus": 1})
@serve.ingress(api)
class Chat:
    @api.get("/answer")
    async def answer(self):
        await asyncio.sleep(0.02)
        return {"usage": {"prompt_tokens": 3, "completion_tokens": 7}}

app = Chat.bind()
"""
APP = """
name: chat
application:
  import_path: chat:app
  route_prefix: /chat
  runtime_env: {working_dir: code}
gpus_per_replica: 1
model: chat-of-the-test
horizon: 1m
min_gain: 10%
min_stay: 5s
max_age: 2s
drain: 30s
"""
LOAD = """
import json, sys, threading, time, urllib.request

server, token = sys.argv[1:3]
said = threading.Lock()

def ask(url, headers={}):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return json.load(answer)

def client():
    address, asked, keep = "", 0.0, 0.0
    while True:
        if time.monotonic() - asked >= keep:
            try:
                view = ask(server + "/v1/serve-apps/chat/endpoint", {"Authorization": "Bearer " + token})
                address, asked, keep = view["address"], time.monotonic(), view["max_age_s"]
            except OSError:
                time.sleep(0.5)
                continue
        began, error = time.time(), ""
        try:
            ask(address + "/answer")
        except Exception as problem:
            error = repr(problem)
            time.sleep(0.2)
        with said:
            print(json.dumps([began, address, error]), flush=True)
        time.sleep(0.05)

for _ in range(3):
    threading.Thread(target=client, daemon=True).start()
sys.stdin.read()
"""


def write_grid(folder: Path, **g_per_kwh: float) -> dict[str, Any]:
    """Flat grids, from an hour ago on."""
    begin = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
    for zone, value in g_per_kwh.items():
        rows = [f"{(begin + timedelta(minutes=5 * i)).isoformat()},{value}" for i in range(72)]
        (folder / f"{zone}.csv").write_text("start,g_per_kwh\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return {"providers": [], "series": [{"zone": zone, "file": str(folder / f"{zone}.csv")} for zone in g_per_kwh]}


def write_app(folder: Path) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "chat.py").write_text(CODE, encoding="utf-8")
    (folder / "chat.yaml").write_text(APP, encoding="utf-8")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Load:
    """The second process; `answers` are (when, address, error) of each request it made."""

    def __init__(self, installation, folder: Path) -> None:
        url = json.loads((installation.data / "server.json").read_text())["url"]
        token = (installation.data / "token").read_text().strip()
        self.told = (folder / "answers").open("w+", encoding="utf-8")
        command = [sys.executable, "-c", LOAD, url, token]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.told)

    def answers(self, address: str = "", *, since: float = 0.0) -> list[tuple[float, str, str]]:
        lines = Path(self.told.name).read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        found = (tuple(json.loads(line)) for line in lines)
        return [one for one in found if one[1].startswith(address) and one[0] >= since]

    def good(self, address: str = "", *, since: float = 0.0) -> int:
        return sum(not error for _, _, error in self.answers(address, since=since))

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.told.close()


def app(installation) -> dict[str, Any]:
    return installation.json("serve-app", "status", "chat")


def settled_on(installation, cluster: str) -> dict[str, Any]:
    """Once the service runs there, and nowhere else."""
    return eventually(
        lambda: app(installation),
        lambda view: view["state"] == "running" and view["current"]["cluster"] == cluster,
        patience_s=PATIENCE_S,
    )


def booked_j(spans, owner: str, since: datetime, until: datetime) -> float:
    """Joules of an owner within a window, from the ledger's spans alone."""
    total = 0.0
    for span in spans:
        start, end = from_rfc3339(span["start"]), from_rfc3339(span["end"])
        inside = (min(end, until) - max(start, since)).total_seconds()
        if span["owner"] == owner and inside > 0:
            total += span["energy_uj"] / 1e6 * inside / (end - start).total_seconds()
    return total


def require_told(stays):
    """The ledger says where it was, and why."""
    assert [(stay["cluster"], stay["came_from"]) for stay in stays[:2]] == [("north", None), ("south", "north")]
    assert [stay["left_reason"] for stay in (stays[0], stays[-1])] == ["moved to south", "the service was deleted"]


def test_a_planned_move_fails_no_request_and_energy_per_request_adds_up(tmp_path):
    grid = write_grid(tmp_path, NO=50, DE=400)
    write_app(tmp_path)
    addresses = {name: f"http://127.0.0.1:{free_port()}" for name in ("north", "south")}
    with installed_in(tmp_path, grid) as installation:
        for name, place in (("south", ("DE", "--pue", "1.4", "--home")), ("north", ("NO", "--pue", "1.1"))):
            installation.run(
                "clusters", "add", name, "--replace", "--local", "--cpus", "4", "--serve-address", addresses[name],
                "--zone", *place,
            )  # fmt: skip
        installation.wait_ready()
        installation.run("serve-app", "deploy", str(tmp_path / "chat.yaml"))
        north = settled_on(installation, "north")["current"]
        load = Load(installation, tmp_path)
        try:
            eventually(lambda: load.good(addresses["north"]), lambda count: count >= 100)

            write_grid(tmp_path, NO=900, DE=400)  # its cluster turns dirty
            south = settled_on(installation, "south")["current"]
            until = load.good(addresses["south"])
            eventually(lambda: load.good(addresses["south"]), lambda count: count >= until + 100)
            assert [one for one in load.answers() if one[2]] == []
            view = eventually(
                lambda: app(installation)["requests"],
                lambda found: found and found["requests"] >= 50 and found["serve_requests"],
                patience_s=180,
            )
            with installation.client() as client:
                spans = recorded_spans(client)

            died = time.time()
            head = json.loads((installation.data / "local-heads" / "south" / "head.json").read_text())
            os.kill(head["pid"], signal.SIGKILL)
            eventually(lambda: load.good(since=died + 5), lambda count: count >= 50, patience_s=PATIENCE_S)
        finally:
            load.end()
        failed = [one for one in load.answers() if one[2]]
        installation.run("serve-app", "delete", "chat")
        stays = eventually(
            lambda: installation.json("audit", "service", "chat")["stays"],
            lambda found: found and all(stay["left_at"] for stay in found),
            patience_s=PATIENCE_S,
        )
        receipts = {stay["job"]: installation.finished(stay["job"]) for stay in stays}
        receipt = receipts[north["job_id"]]
        counters = [gpu_counter_uj(installation, gpu) for gpu in (0, 1)]  # once no attempt's energy is to come any more
        lifecycle = json.loads(installation.run("audit", "lifecycle", "--model", "chat-of-the-test", "--json").stdout)

    assert all(when >= died - 20 for when, _, _ in failed), "a request failed before the cluster died"
    window = from_rfc3339(view["since"]), from_rfc3339(view["until"])
    metered_j = booked_j(spans, f"cs-{south['job_id']}-a1", *window)
    assert metered_j > 0
    assert view["j_per_request"] * view["requests"] == pytest.approx(metered_j, rel=1e-3)
    assert view["j_per_output_token"] * view["output_tokens"] == pytest.approx(metered_j, rel=1e-3)
    assert view["output_tokens"] == 7 * view["requests"]
    assert view["p50_s"] <= view["p95_s"]
    assert view["boundary"]
    assert receipt["per_unit"]["requests"]["amount"] == load.good(addresses["north"])
    assert receipt["per_unit"]["requests"]["energy_j"] * load.good(addresses["north"]) == pytest.approx(
        receipt["energy_kwh"] * 3.6e6
    )
    assert [booked for booked, _ in counters] == [counted for _, counted in counters]
    said = f"count {load.good(addresses['north'])} requests, as many as the middleware"
    assert any(said in note for note in receipt["notes"]), receipt["notes"]
    require_told(stays)
    assert {unit["unit"] for unit in lifecycle["per_unit"]} >= {"requests", "output-tokens"}
