"""Which process belongs to which attempt, and how much CPU time each attempt used: a scan of /proc that stays cheap.

The key is the stamp CARBON_SCHED_ATTEMPT in a process's environment, which the server puts into every attempt's
runtime_env: Ray workers are children of the raylet, not of the wrapper. A process without a readable stamp belongs to
whom its parent belongs to. What is known of a process is kept by (pid, start time); only processes of attempts are
looked at in every scan, the others in turn.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from carbon_sched_runtime.wire import IDLE, OWNER, UNATTRIBUTED

if TYPE_CHECKING:
    from collections.abc import Iterable

STAMP = b"CARBON_SCHED_ATTEMPT="
PLACE = "CARBON_SCHED_MACHINE_DIR"
ENVIRONMENT_LIMIT = 256 * 1024
YOUNG_SCANS = 3  # a process may be seen between fork and exec, still with its parent's environment
RECHECKED_PER_SCAN = 16
REMEMBERED_SCANS = 10  # a driver may list a process for a while after its end
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass
class Process:
    """One process as last seen. `ticks` is CPU time with that of waited-for children; `owner` None: nobody's."""

    parent: int
    started_ticks: int
    ticks: int
    owner: str | None
    scans: int = 0


@dataclass(frozen=True)
class Allocation:
    """What a stamped environment says its attempt was given on this node, in millionths."""

    cpus: int = 0
    gpus: int = 0


@dataclass(frozen=True)
class Scan:
    """What one scan found: CPU ticks by attempt since the last scan, and the start of each attempt's first process."""

    used_ticks: dict[str, int]
    first_start_ns: dict[str, int]


@dataclass
class ProcessTable:
    """The processes of the machine. `proc` is the root of the process file system, for tests.

    `place` is the meeting place this process was told to use: whoever was told of another is metered there, not here.
    """

    proc: str = "/proc"
    place: str | None = field(default_factory=lambda: os.environ.get(PLACE))
    known: dict[int, Process] = field(default_factory=dict)
    allocations: dict[str, Allocation] = field(default_factory=dict)
    _departed: dict[int, tuple[int, Process]] = field(default_factory=dict)
    _scans: int = 0
    _roots: dict[int, tuple[int, str]] = field(default_factory=dict)
    _turn: int = 0
    _last_scan_ticks: int = 0

    def scan(self, roots: Iterable[tuple[int, int, str]], now_ns: int) -> Scan:
        """Look at the machine. `roots` are `(pid, started_ticks, attempt)` of wrappers, owned whatever they say."""
        self._roots = {pid: (started, attempt) for pid, started, attempt in roots}
        pids = sorted(int(name) for name in os.listdir(self.proc) if name.isdigit())
        used: dict[str, int] = {}
        gone = self.known.keys() - set(pids)
        for pid in gone:
            self._depart(pid, used, gone)
        self._scans += 1
        for pid in gone:
            self._departed[pid] = (self._scans, self.known.pop(pid))
        self._departed = {
            pid: entry for pid, entry in self._departed.items() if entry[0] > self._scans - REMEMBERED_SCANS
        }
        rechecked = self._in_turn(pids)
        for pid in pids:
            self._visit(pid, used, recheck=pid in rechecked)
        self._last_scan_ticks = now_ns * TICKS_PER_SECOND // 1_000_000_000
        starts: dict[str, int] = {}
        for process in self.known.values():
            if process.owner is not None:
                start = process.started_ticks * 1_000_000_000 // TICKS_PER_SECOND
                starts[process.owner] = min(start, starts.get(process.owner, start))
        self.allocations = {owner: a for owner, a in self.allocations.items() if owner in starts}
        return Scan({owner: max(0, ticks) for owner, ticks in used.items()}, starts)

    def owner_of(self, pid: int) -> tuple[str | None, int] | None:
        """A process's attempt (None: nobody's) and its start on the boot clock; None when there is no such process.

        One that ended within the last scans is still known.
        """
        process = self.known.get(pid) or self._look(pid)
        if process is not None:
            self.known[pid] = process
        elif pid in self._departed:
            process = self._departed[pid][1]
        else:
            return None
        return process.owner, process.started_ticks * 1_000_000_000 // TICKS_PER_SECOND

    def pids_of(self, attempt: str) -> list[int]:
        """The processes of an attempt at the last scan."""
        return [pid for pid, process in self.known.items() if process.owner == attempt]

    def to_json(self) -> list[list[Any]]:
        """Owned processes, for the checkpoint: the next reader goes on counting their CPU time."""
        owned = [(pid, p) for pid, p in self.known.items() if p.owner is not None][:2000]
        return [[pid, p.parent, p.started_ticks, p.ticks, p.owner] for pid, p in owned]

    def load(self, data: Iterable[Iterable[Any]], now_ticks: int) -> None:
        """Take over what the last reader knew; TypeError or ValueError when it is not that."""
        for pid, parent, started, ticks, owner in data:
            self.known[int(pid)] = Process(int(parent), int(started), int(ticks), str(owner), YOUNG_SCANS)
        self._last_scan_ticks = now_ticks

    def _in_turn(self, pids: list[int]) -> set[int]:
        if not pids:
            return set()
        start = self._turn % len(pids)
        self._turn = start + RECHECKED_PER_SCAN
        return set(pids[start : start + RECHECKED_PER_SCAN])

    def _visit(self, pid: int, used: dict[str, int], *, recheck: bool) -> None:
        before = self.known.get(pid)
        if before is not None and before.owner is None and before.scans >= YOUNG_SCANS and not recheck:
            return
        if before is not None and before.owner is not None:
            now = self._read_stat(pid)
            if now is not None and now.started_ticks == before.started_ticks:
                used[before.owner] = used.get(before.owner, 0) + now.ticks - before.ticks
                before.ticks, before.parent = now.ticks, now.parent
                return
        fresh = self._look(pid)
        same = fresh is not None and before is not None and before.started_ticks == fresh.started_ticks
        if before is not None and not same:
            self._depart(pid, used, {pid})
            del self.known[pid]
        if fresh is None:
            return
        fresh.scans = before.scans + 1 if before is not None and same else 0
        self.known[pid] = fresh
        if fresh.owner is not None and fresh.started_ticks >= self._last_scan_ticks:
            used[fresh.owner] = used.get(fresh.owner, 0) + fresh.ticks

    def _depart(self, pid: int, used: dict[str, int], gone: set[int]) -> None:
        """Take back the time of a process that is gone if it is about to be counted again.

        The kernel adds it to the nearest ancestor that waited: we count it there if that one is of the attempt too.
        """
        process = self.known[pid]
        if process.owner is None:
            return
        parent = process.parent
        while parent in gone and parent in self.known:
            parent = self.known[parent].parent
        heir = self.known.get(parent)
        if heir is not None and heir.owner == process.owner:
            used[process.owner] = used.get(process.owner, 0) - process.ticks

    def _look(self, pid: int) -> Process | None:
        process = self._read_stat(pid)
        if process is not None:
            process.owner = self._owner(pid, process)
        return process

    def _owner(self, pid: int, process: Process) -> str | None:
        root = self._roots.get(pid)
        if root is not None and root[0] == process.started_ticks:
            return root[1]
        stamp = self._stamp(pid)
        if stamp is not None:
            return stamp
        parent = self.known.get(process.parent)
        return parent.owner if parent is not None else None

    def _read_stat(self, pid: int) -> Process | None:
        try:
            with open(f"{self.proc}/{pid}/stat", "rb", buffering=0) as file:
                text = file.read(4096)
        except OSError:
            return None
        # The name in parentheses may hold anything, parentheses too: count from the last one.
        fields = text[text.rfind(b")") + 2 :].split(None, 21)
        if len(fields) < 21:
            return None
        return Process(int(fields[1]), int(fields[19]), sum(map(int, fields[11:15])), None)

    def _stamp(self, pid: int) -> str | None:
        try:
            with open(f"{self.proc}/{pid}/environ", "rb", buffering=0) as file:
                environment = b"\0" + _read_up_to(file, ENVIRONMENT_LIMIT)
        except OSError:
            return None
        value = _variable(environment, STAMP)
        if value is None or not OWNER.fullmatch(value) or value in (IDLE, UNATTRIBUTED):
            return None
        if _variable(environment, f"{PLACE}=".encode()) != self.place:
            return None
        if value not in self.allocations:
            self.allocations[value] = Allocation(
                millionths(_variable(environment, b"CARBON_SCHED_CPUS=")),
                millionths(_variable(environment, b"CARBON_SCHED_GPUS=")),
            )
        return value


def millionths(text: str | None) -> int:
    """A decimal amount as whole millionths; 0 for what is no amount from 0 to 100,000."""
    try:
        amount = float(text or "0")
    except ValueError:
        return 0
    return int(amount * 1_000_000 + 0.5) if 0 <= amount <= 100_000 else 0


def busy_ticks(stat: bytes) -> int:
    """Busy CPU time of the machine from the first line of /proc/stat: user, nice, system, irq, softirq."""
    fields = stat.split(b"\n", 1)[0].split()
    if len(fields) < 8 or fields[0] != b"cpu":
        raise ValueError("not /proc/stat")
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[1:8])
    return user + nice + system + irq + softirq


def _variable(environment: bytes, name: bytes) -> str | None:
    start = environment.find(b"\0" + name)
    if start < 0:
        return None
    start += 1 + len(name)
    end = environment.find(b"\0", start)
    return environment[start : end if end >= 0 else None].decode("ascii", "replace")


def _read_up_to(file: Any, limit: int) -> bytes:
    data = b""
    while len(data) < limit and (chunk := file.read(limit - len(data))):
        data += chunk
    return data
