"""Which GPUs the raylet gave to an attempt's workers, as the cluster's dashboard shows it for this node.

`GET /nodes?view=summary` lists the workers of every raylet with the GPU slots they hold. Where the dashboard is, which
node this is and what a slot stands for are read off the raylet's own command line and environment. Ray refreshes the
list every 15 s and makes no promise about it: where it says nothing, the rules that know less apply, and each row of
energy names its rule.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carbon_sched_runtime.machine import Held
from carbon_sched_runtime.processes import ProcessTable

if TYPE_CHECKING:
    from carbon_sched_runtime.machine import Machine

PERIOD_S = 10.0
TIMEOUT_S = 5.0
ANSWER_LIMIT = 16 * 1024 * 1024
WORKERS = 10_000
VISIBLE = b"CUDA_VISIBLE_DEVICES="


@dataclass(frozen=True)
class Raylet:
    """This node's raylet: its node id, its cluster's dashboard (`HOST:PORT`), and the GPUs it was confined to."""

    node: str
    dashboard: str
    visible: str | None


def own_raylet(proc: str = "/proc") -> Raylet | None:
    """The raylet that this process descends from; None outside Ray and where Ray is too old to say what is needed.

    Entrypoints descend from it by the job's supervisor, actors directly.
    """
    pid = os.getpid()
    try:
        while pid > 1:
            words = _read(f"{proc}/{pid}/cmdline").replace(b"\0", b" ").split()
            node, dashboard = (_option(words, name) for name in (b"--node_id=", b"--webui="))
            if node and dashboard:
                return Raylet(node, dashboard, _visible(_read(f"{proc}/{pid}/environ")))
            pid = int(_read(f"{proc}/{pid}/stat").rpartition(b")")[2].split()[1])
    except OSError:
        return None
    return None


def slots_by_pid(answer: Any, node: str) -> dict[int, dict[int, int]]:
    """From the dashboard's answer: the GPU slots that each worker of a node holds, in millionths of a GPU.

    In a placement group the same slot stands under the group's name and the bundle's, and counts once. ValueError when
    the answer has another shape.
    """
    try:
        nodes = [one["raylet"] for one in answer["data"]["summary"]]
        workers = next(one for one in nodes if one["nodeId"] == node).get("coreWorkersStats", [])[:WORKERS]
        return {int(one["pid"]): slots for one in workers if (slots := _slots(one.get("usedResources") or {}))}
    except StopIteration:
        return {}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError("the dashboard's answer has another shape") from error


def ask(dashboard: str) -> Any:
    """The dashboard's summary of its nodes; OSError or ValueError when it gives none within 5 s."""
    return json.loads(get(dashboard, "/nodes?view=summary", cluster_token()))


def get(address: str, path: str, token: str = "") -> bytes:
    """A page of HOST:PORT; OSError when it gives none within 5 s, or an endless one."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        data = answer.read(ANSWER_LIMIT + 1)
    except http.client.HTTPException as error:
        raise OSError(f"{address} answers no HTTP: {type(error).__name__}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK or len(data) > ANSWER_LIMIT:
        raise OSError(f"{address} answers {answer.status} with {len(data)} bytes")
    return data


class AllocationWatch:
    """Tells the machine's reader every 10 s what an attempt holds here. A silent dashboard leaves the file to age."""

    def __init__(self, machine: Machine, attempt: str, raylet: Raylet) -> None:
        self._machine, self._attempt, self._raylet = machine, attempt, raylet
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="carbon-sched-allocation", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End, and take back what was said; an answer still awaited is not waited for."""
        self._stop.set()
        self._machine.remove_held(self._attempt, self._raylet.node)

    def look(self) -> None:
        """Ask once, and pass on what this attempt's processes hold. OSError or ValueError."""
        workers = slots_by_pid(ask(self._raylet.dashboard), self._raylet.node)
        table, slots = ProcessTable(), dict[int, int]()
        for pid, mine in workers.items():
            owner = table.owner_of(pid)
            for slot, part in mine.items() if owner and owner[0] == self._attempt else ():
                slots[slot] = slots.get(slot, 0) + part
        if not self._stop.is_set():
            held = Held(self._attempt, self._raylet.visible, tuple(sorted(slots.items())))
            self._machine.write_held(held, self._raylet.node)

    def _run(self) -> None:
        while not self._stop.is_set():
            # Without an answer the rules that know less apply; the rows say so by their names.
            with contextlib.suppress(OSError, ValueError):
                self.look()
            self._stop.wait(PERIOD_S)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _visible(environment: bytes) -> str | None:
    found = (v for v in environment.split(b"\0") if v.startswith(VISIBLE))
    return next((value[len(VISIBLE) :].decode("ascii", "replace") for value in found), None)


def _option(words: list[bytes], name: bytes) -> str:
    return next((word[len(name) :].decode("ascii", "replace") for word in words if word.startswith(name)), "")


def _slots(resources: dict[str, Any]) -> dict[int, int]:
    """Ray rewrites names on this page: `GPU`, and in placement groups `GPUGroup…`."""
    found: dict[int, int] = {}
    for name, amount in resources.items():
        for entry in amount["resourceSlots"] if name.startswith("GPU") else ():
            slot, part = int(entry["slot"]), int(float(entry["allocation"]) * 1_000_000 + 0.5)
            found[slot] = max(part, found.get(slot, 0))
    return found


def cluster_token() -> str:
    """The cluster's token as Ray's own clients find it; empty where there is none."""
    given = os.environ.get("RAY_AUTH_TOKEN")
    if given:
        return given.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    try:
        with open(path, encoding="ascii") as file:
            return file.read(4096).strip()
    except (OSError, UnicodeDecodeError):
        return ""
