"""What the wrapper does for metering beside the job: claim, meter if nobody does, keep the journal.

Runs in threads of the wrapper, after the job has been started. Whatever goes wrong here is reported in the attempt's
record and goes no further: the job is never harmed.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Callable

from carbon_sched_runtime.journal import Journal
from carbon_sched_runtime.machine import Claim, Machine, boot_clock_ns
from carbon_sched_runtime.others import OtherNodes
from carbon_sched_runtime.processes import ProcessTable, millionths
from carbon_sched_runtime.seat import PERIOD_S, Seat, drain
from carbon_sched_runtime.sources import Sources

if TYPE_CHECKING:
    from carbon_sched_runtime.allocation import AllocationWatch
    from carbon_sched_runtime.sinks import Courier

ROW_WAIT_S = 3.0  # how long an ending attempt waits for the reader's last row
ASK_AGAIN_S = 0.5
OTHERS_WAIT_S = 6.0  # how long it waits for the journals of the job's other nodes
OTHERS_URGENT_S = 2.0
DELIVERY_WAIT_S = 3.0  # how long it waits for its last segments to be delivered; they are in the folder as well
DELIVERY_URGENT_S = 1.0
LINGER_S = 1.0  # how long an ending attempt waits for its last processes (Ray ends workers after the driver)

Report = Callable[..., None]


@dataclass(frozen=True)
class Attempt:
    """What the environment says of the attempt, and where its journal lies; `sinks` as in `sinks.py`."""

    id: str
    folder: str
    cpus: str | None
    gpus: str | None
    visible: str | None
    start_ns: int
    sinks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How the journal ended: segments in the folder, what a reader of the figures must know (None: nothing), names."""

    segments: int
    reason: str | None
    journal: str | None = None


class Attendance:
    """One attempt's part in metering its machine. `report(event, **fields)` writes a line into its record."""

    leftovers = "processes outlive the entrypoint"

    def __init__(self, attempt: Attempt, report: Report) -> None:
        self._attempt = attempt
        self._report = report
        self._ends, self._wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._end_ns: int | None = None
        self._gone_ns = 0
        self._others: OtherNodes | None = None
        self._allocation: AllocationWatch | None = None
        self._couriers: list[Courier] = []
        self._urgent = False
        self._lock: int | None = None
        self._seat: Seat | None = None
        self._faults: dict[str, int] = {}
        self._outcome: Outcome | None = None
        self._thread = threading.Thread(target=self._attend, name="carbon-sched-meter", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def hurry(self) -> None:
        """A stop signal came: from now on close a segment every second, for SIGKILL may follow. Safe in a handler."""
        self._urgent = True
        self._wake()

    def finish(self, end_ns: int, timeout_s: float) -> Outcome:
        """The job ended (boot clock): see its last row into the journal. Never longer than the timeout."""
        self._end_ns = end_ns
        self._wake()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return self._late(timeout_s)
        return self._outcome or Outcome(0, "; ".join(self._faults) or "metering failed")

    def _late(self, timeout_s: float) -> Outcome:
        reason = f"the meter did not come to an end within {timeout_s:g} s: the last rows are missing here"
        self._report("fault", reason=reason)
        return Outcome(0, reason)

    # the thread ----------------------------------------------------------------------------------------------------

    def _attend(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - a fault of ours must not reach the job, and must be seen
            self._fault(error)
        finally:
            self._release()

    def _run(self) -> None:
        self._machine = machine = Machine()
        self._come()
        self._journal = Journal(machine, self._attempt.folder, time.time(), self._sinks())
        self._lock = machine.lock(wait=False)
        if self._lock is None:
            threading.Thread(target=self._wait_for_lock, name="carbon-sched-lock", daemon=True).start()
            self._report("metering", machine=machine.machine, boot=machine.boot, role="follower")
        while True:
            self._take_seat()
            asked = self._pause()
            if self._end_ns is not None:
                break
            self._guarded(lambda seal=asked or self._urgent: self._beat(seal=seal))  # type: ignore[misc]
        self._close(machine)

    def _sinks(self) -> list[Callable[[str, bytes], None]]:
        """How segments are passed on, where the cluster's nodes deliver them."""
        if self._attempt.sinks:
            from carbon_sched_runtime.sinks import Courier, sinks_of  # noqa: PLC0415 - most clusters are pulled from

            sinks = sinks_of(self._attempt.sinks, self._attempt.id)
            self._couriers = [Courier(sink, self._report) for sink in sinks]
        return [courier.put for courier in self._couriers]

    # an attempt's presence here; `node_meter.Post` has another -------------------------------------------------------

    def _come(self) -> None:
        """Tell the reader that the attempt is here, and look after the job's other nodes."""
        self._claim = _claim(self._attempt, self._machine)
        self._machine.write_claim(self._claim)
        self._others = OtherNodes(self._attempt.id, self._report)
        self._watch_allocation()

    def _go(self) -> None:
        """Tell the reader that the attempt has gone."""
        self._gone_ns = boot_clock_ns()
        self._claim = replace(self._claim, end_ns=self._gone_ns)
        self._machine.write_claim(self._claim)

    def _withdraw(self) -> None:
        self._machine.remove_claim(self._attempt.id)

    def _watch_allocation(self) -> None:
        """Have the reader told which GPUs the raylet gives to the attempt's workers on this machine."""
        if not millionths(self._attempt.gpus):
            return
        from carbon_sched_runtime.allocation import AllocationWatch, own_raylet  # noqa: PLC0415 - most jobs hold none

        raylet = own_raylet()
        if raylet is not None:
            self._allocation = AllocationWatch(self._machine, self._attempt.id, raylet)
            self._allocation.start()

    def _expected(self) -> set[int]:
        """Processes of the attempt that are ours: their staying is no news."""
        return {self._others.pid} if self._others is not None and self._others.pid is not None else set()

    # metering ------------------------------------------------------------------------------------------------------

    def _take_seat(self) -> None:
        """Become the machine's reader once the lock is ours."""
        if self._lock is None or self._seat is not None:
            return
        self._seat = Seat(self._machine, Sources())
        self._report(
            "metering", machine=self._machine.machine, boot=self._machine.boot, role="reader",
            reason=self._seat.reader.sources.describe(),
        )  # fmt: skip

    def _pause(self) -> bool:
        """Wait for the next beat or for news; True when an ending attempt asks the reader for a row."""
        if self._seat is not None:
            asked = self._seat.wait(self._ends)
        else:
            select.select([self._ends], [], [], PERIOD_S)
            asked = False
        drain(self._ends)
        return asked

    def _beat(self, *, seal: bool) -> None:
        if self._seat is not None:
            self._seat.beat(seal=seal)
        elif self._urgent:
            self._machine.wake_reader()
        self._journal.sync()
        if self._others is not None:
            self._others.beat()
            if self._urgent:
                self._others.hurry()

    def _close(self, machine: Machine) -> None:
        """From the job's end to the last row in the journal."""
        if self._others is not None:
            self._others.end()
        left = self._linger()
        if self._allocation is not None:
            self._allocation.stop()
        self._go()
        reasons = [f"{left} {self.leftovers}"] if left else []
        if not self._last_row(machine):
            missing = "the machine's reader did not answer: the last row is missing here"
            self._report("fault", reason=missing)
            reasons.append(missing)
        self._withdraw()
        altered = self._journal.restore()
        if altered:
            reasons.append(f"journal files were altered or removed, and put back: {len(altered)}")
        deadline = time.monotonic() + (DELIVERY_URGENT_S if self._urgent else DELIVERY_WAIT_S)
        reasons += [late for courier in self._couriers if (late := courier.flush(deadline))]
        missing_elsewhere = self._others and self._others.wait(OTHERS_URGENT_S if self._urgent else OTHERS_WAIT_S)
        reasons += [missing_elsewhere] if missing_elsewhere else []
        reasons += self._faults
        self._outcome = Outcome(self._journal.segments, "; ".join(reasons) or None, self._journal.contents())

    def _last_row(self, machine: Machine) -> bool:
        deadline, ask = time.monotonic() + ROW_WAIT_S, 0.0
        while True:
            self._take_seat()
            if self._seat is not None:
                self._seat.leave()
                self._journal.sync()
                return True
            self._journal.sync()
            now = time.monotonic()
            if self._journal.covered_ns >= self._gone_ns or now >= deadline:
                return now < deadline
            if now >= ask:
                machine.wake_reader()
                ask = now + ASK_AGAIN_S
            select.select([self._ends], [], [], 0.02)

    def _linger(self) -> int:
        """Wait a moment for the attempt's last processes on this machine; returns how many stay all the same."""
        table, deadline = ProcessTable(), time.monotonic() + LINGER_S
        while True:
            table.scan([], boot_clock_ns())
            left = len(set(table.pids_of(self._attempt.id)) - self._expected() - _supervision(table, os.getpid()))
            if not left or self._urgent or time.monotonic() >= deadline:
                return left
            time.sleep(0.05)

    def _wait_for_lock(self) -> None:
        try:
            self._lock = self._machine.lock(wait=True)
            self._wake()
        except OSError as error:
            self._fault(error)

    def _guarded(self, action: Callable[[], None]) -> None:
        """A full disk or a broken folder is reported once and tried again at the next beat."""
        try:
            action()
        except OSError as error:
            self._fault(error)

    def _fault(self, error: BaseException) -> None:
        text = f"{type(error).__name__}: {error}"[:200]
        self._faults[text] = self._faults.get(text, 0) + 1
        if self._faults[text] == 1:
            self._report("fault", reason=text)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wakes, b"!")

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _claim(attempt: Attempt, machine: Machine) -> Claim:
    own = ProcessTable().owner_of(os.getpid())
    started_ns = own[1] if own is not None else 0
    return Claim(
        attempt=attempt.id, pid=os.getpid(), started_ticks=_ticks(started_ns), uid=machine.uid,
        start_ns=attempt.start_ns, cpus=millionths(attempt.cpus), gpus=millionths(attempt.gpus),
        visible=attempt.visible,
    )  # fmt: skip


def _ticks(mono_ns: int) -> int:
    return mono_ns * os.sysconf("SC_CLK_TCK") // 1_000_000_000


def _supervision(table: ProcessTable, wrapper: int) -> set[int]:
    """The wrapper, its ancestors, and what its parent started beside it.

    Under Ray the parent is the job's supervisor, which carries the attempt's stamp as well, and so does the shell loop
    that it starts beside each job to kill the job's group should the supervisor die. They end after the wrapper.
    """
    found = {0, 1}
    pid = wrapper
    while pid not in found:
        found.add(pid)
        pid = table.known[pid].parent if pid in table.known else 0
    parent = table.known[wrapper].parent if wrapper in table.known else 0
    beside = {parent} - {0, 1}
    while beside:
        found |= beside
        beside = {pid for pid, process in table.known.items() if process.parent in beside} - found
    return found
