"""The meter on a node of a job that has no wrapper there: what a metering actor runs.

The same threads, lock and journal as beside the wrapper (`attend.py`), without a claim: what the attempt uses here is
known by the stamps of its workers. The actor itself carries no stamp, so that its presence is not the attempt's.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from carbon_sched_runtime.attend import Attempt, Attendance
from carbon_sched_runtime.machine import boot_clock_ns, boot_id, machine_id
from carbon_sched_runtime.run import journal_folder

FINISH_S = 4.0


class Post(Attendance):
    """An attendance for an attempt whose wrapper is on another node."""

    leftovers = "workers of the attempt are still there and are not metered from here on"

    def _come(self) -> None:
        """No claim: it would make this process the attempt's."""
        self._watch_allocation()

    def _go(self) -> None:
        self._gone_ns = boot_clock_ns()

    def _withdraw(self) -> None:
        pass

    def _expected(self) -> set[int]:
        return {os.getpid()}


class NodeMeter:
    """The actor's class: `begin`, then `hurry` any number of times, then `finish`; all return plain values."""

    def __init__(self, attempt: str, gpus: str | None = None, sinks: dict[str, str] | None = None) -> None:
        self._faults: list[str] = []
        self._role = threading.Event()
        self._said: dict[str, Any] = {}
        told = Attempt(
            id=attempt,
            folder=journal_folder(),
            cpus=None,
            gpus=gpus,
            visible=None,
            start_ns=boot_clock_ns(),
            sinks=sinks or {},
        )
        self._post = Post(told, self._hear)
        self._post.start()

    def begin(self) -> dict[str, Any]:
        """Once metering began, or failed: machine, boot and role of this node."""
        self._role.wait(30)
        role = self._said.get("role")
        return {"machine": machine_id(), "boot": boot_id(), "role": role, "faults": self._faults[:4]}

    def hurry(self) -> None:
        """Close a segment every second from now on."""
        self._post.hurry()

    def finish(self) -> dict[str, Any]:
        """Close the journal: how many segments it has, which, and what a reader of the figures must know."""
        outcome = self._post.finish(boot_clock_ns(), FINISH_S)
        return {"segments": outcome.segments, "reason": outcome.reason, "journal": getattr(outcome, "journal", None)}

    def _hear(self, event: str, **fields: Any) -> None:
        if event == "fault":
            self._faults.append(str(fields.get("reason")))
        elif event == "metering":
            self._said = fields
        self._role.set()
