"""The load of `gpu_load.py` where the driver is the C stub of NVML (`tests/fakes/nvml_stub.c`): its script is written.

Each load adds to what the first GPU draws and is listed on it with the utilisation of its duty cycle. What is meant to
be seen of a real GPU (latency, sensors, heat) is not there: only that tests and meter run from end to end.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

REST_W, LOAD_W, STEP_S = 70, 300, 0.001


def run(seconds: float, steps: int, period: float, duty: float) -> None:
    """Draw power for a time, or until stopped."""
    lasting = steps * STEP_S or seconds
    begin = time.time()
    edges = [begin, begin + lasting]
    if period:
        cycles = range(math.ceil(lasting / period))
        edges = [begin + min(lasting, (cycle + part) * period) for cycle in cycles for part in (0, duty)]
    _add({"pid": os.getpid(), "use": round(100 * (duty if period else 1)), "end": begin + lasting, "edges": edges})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_cut(time.time())))
    print("ready", flush=True)
    time.sleep(lasting)
    print(f"steps {round(lasting / STEP_S)} seconds {time.time() - begin:.6f}", flush=True)


def _add(load: dict[str, object]) -> None:
    _rewrite(lambda loads: [*loads, load])


def _cut(now: float) -> None:
    """This process's load ends now."""

    def cut(load):
        if load["pid"] != os.getpid():
            return load
        before = [edge for edge in load["edges"] if edge < now]
        return {**load, "end": now, "edges": before + [now] * (len(before) % 2)}

    _rewrite(lambda loads: [cut(load) for load in loads])


def _rewrite(change) -> None:
    script = Path(os.environ["NVML_STUB_SCRIPT"])
    with script.with_suffix(".loads").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        loads = change(json.loads(file.read() or "[]"))
        file.truncate(0)
        file.write(json.dumps(loads))
        head = [line for line in script.read_text(encoding="utf-8").splitlines() if not line.startswith("at ")]
        fresh = script.with_suffix(".new")
        fresh.write_text("\n".join([*head, f"at 0 0 watts {REST_W}", *_events(loads)]) + "\n", encoding="utf-8")
        fresh.replace(script)


def _events(loads) -> list[str]:
    """What all loads come to: power steps at every edge, and who is there from its first to its end."""
    turns = [
        (edge, LOAD_W if number % 2 == 0 else -LOAD_W) for load in loads for number, edge in enumerate(load["edges"])
    ]
    events, watts = [], REST_W
    for at, change in sorted(turns):
        watts += change
        events.append((at, f"at {at:.6f} 0 watts {watts}"))
    for at in {moment for load in loads for moment in (load["edges"][0], load["end"])}:
        there = [f"{load['pid']}:{load['use']}" for load in loads if load["edges"][0] <= at < load["end"]]
        events.append((at, f"at {at:.6f} 0 pids {','.join(there) or '-'}"))
    return [text for _, text in sorted(events)]
