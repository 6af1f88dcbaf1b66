"""The one reader of a machine: samples, books, keeps a checkpoint every tick, seals and publishes segments.

What makes it safe to kill at any moment: rows count only once they are in the checkpoint, which is replaced as a
whole. A seal first writes a checkpoint that holds the finished bytes and an empty book, then publishes those bytes;
whoever takes over publishes them again, byte for byte the same, under the same name.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable

from carbon_sched_runtime import book as books
from carbon_sched_runtime.accounts import Accounts, GpuScene, Scene, SliceScene, Stay
from carbon_sched_runtime.nvml import visible_devices
from carbon_sched_runtime.processes import TICKS_PER_SECOND, Allocation, ProcessTable
from carbon_sched_runtime.wire import UNATTRIBUTED, Note, Segment, WireError, format_segment, parse_segment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched_runtime.accounts import Sample
    from carbon_sched_runtime.counters import Meterable
    from carbon_sched_runtime.machine import Claim, Machine
    from carbon_sched_runtime.sources import Sources

CHECKPOINT_VERSION = 1
SEAL_AFTER_NS = 30_000_000_000
SEAL_ROWS = 100
FINISHED_KEPT = 200

Sign = Callable[[bytes], bytes]
Observe = Callable[["Mapping[str, Meterable]", "Sample", books.Book], None]


@dataclass(frozen=True)
class _Checkpoint:
    """Where a reader stopped. `vouched`: it is our own user's, and its reader signed what it read."""

    mono_ns: int
    turn: int
    accounts: Accounts
    data: dict[str, Any]
    vouched: bool


class Reader:
    """Meters the machine; make one only while holding its lock.

    `sign` turns the bytes of a segment into signed bytes (`wire.append_signature`); only a separately owned machine
    meter has one, wrappers publish unsigned. A reader that signs vouches only for what it read itself: what it takes
    over from another user's checkpoint it publishes unsigned, and begins anew (ENERGY-ATTRIBUTION.md, section 7).
    `observe` sees every sample, with the rows that were booked from it, before they are sealed.
    """

    def __init__(
        self, machine: Machine, sources: Sources, sign: Sign | None = None, observe: Observe | None = None
    ) -> None:
        self.machine = machine
        self.sources = sources
        self.identity = books.Reader(machine.machine, machine.boot, os.urandom(4).hex(), machine.uid)
        self.table = ProcessTable(proc=sources.proc)
        self.sealed_to_ns = 0
        self._sign = sign
        self._observe = observe
        self._seq = 0
        self._turn = 0
        self._busy = 0
        self._sealing: list[tuple[str, bytes]] = []
        self._finished: list[str] = []
        self.hand_over_trouble = ""
        self._devices = dict(sources.devices)
        self.accounts = self._begin()

    def tick(self, *, seal: bool = False) -> None:
        """Sample and book; seal when asked, every 30 s, or when the book grows large.

        OSError when the checkpoint cannot be written (disk full): nothing is lost, the next tick tries again.
        """
        sample = self.sources.sample()
        self.accounts.take(self._devices, sample, self._scene(sample))
        if self._observe:
            self._observe(self._devices, sample, self.accounts.book)
        large = len(self.accounts.book.rows) >= SEAL_ROWS
        if seal or large or sample.mono_ns - self.sealed_to_ns >= SEAL_AFTER_NS:
            self.seal(sample)
        else:
            self._save(clean=False)
            self._publish()

    def seal(self, sample: Sample) -> None:
        """Close the book into segments and publish them."""
        open_book, was = self.accounts.book, (self._seq, list(self._sealing))
        self._seal_open(signed=True)
        try:
            self._save(clean=False)
        except OSError:
            self.accounts.book, (self._seq, self._sealing) = open_book, was
            raise
        self.sealed_to_ns = sample.mono_ns
        self.accounts.check_clock(sample)
        self._publish()

    def end(self) -> None:
        """Leave the machine in good order for the next reader: everything sealed, and said so."""
        self.tick(seal=True)
        self._save(clean=True)
        self.sources.close()

    def note(self, kind: str, text: str) -> None:
        """Put a note for people into the next segment."""
        self.accounts.book.note(Note(self.accounts.offset_us + self.accounts.mono_ns // 1000, kind, text))

    # taking over ---------------------------------------------------------------------------------------------------

    def _begin(self) -> Accounts:
        sample = self.sources.sample()
        found = self._checkpoints(sample)
        last = found[-1] if found else None
        if last is not None and self._sign and not last.vouched:
            self._hand_over(found, sample)
            last = None
        if last is None:
            accounts = Accounts.new(self.sources.threads, sample)
            self._busy = self.sources.busy_ticks
        else:
            accounts = self._take_over(last)
        accounts.baselines_mw.update(self.sources.baselines_mw)
        self.sealed_to_ns = sample.mono_ns
        self.accounts = accounts
        scene = self._scene(sample)
        if not found:
            self._note_heads(scene, sample)
        accounts.take(self._devices, sample, scene)
        self._save(clean=False)
        self._publish()
        return accounts

    def _checkpoints(self, sample: Sample) -> list[_Checkpoint]:
        """Those of this boot that were written before now, the newest last."""
        found = []
        for text, own in self.machine.checkpoints():
            try:
                data = json.loads(text)
                accounts = Accounts.from_json(data["accounts"])
                usable = data["v"] == CHECKPOINT_VERSION and data["boot"] == self.machine.boot
                turn = int(data["turn"])
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
            if usable and accounts.mono_ns <= sample.mono_ns:
                found.append(_Checkpoint(accounts.mono_ns, turn, accounts, data, own and data.get("signs") is True))
        found.sort(key=lambda one: (one.mono_ns, one.turn))
        self._turn = found[-1].turn if found else 0
        return found

    def _take_over(self, last: _Checkpoint) -> Accounts:
        """Go on where a reader stopped: its processes, and the segments it may not have published."""
        data = last.data
        self._busy = int(data["busy"])
        self._finished = [str(attempt) for attempt in data["finished"]]
        self.table.load(data["processes"], int(data["scan_ticks"]))
        for name, text in data["sealing"]:
            try:
                parse_segment(text.encode("ascii"), name)
            except (WireError, UnicodeEncodeError):
                continue
            if last.vouched or not self.machine.has_published(name):
                self._sealing.append((name, text.encode("ascii")))
        last.accounts.taken_over = data["clean"] is not True
        return last.accounts

    def _hand_over(self, found: list[_Checkpoint], sample: Sample) -> None:
        """Somebody we do not vouch for was the reader since: seal what each of us booked, theirs unsigned.

        Whatever they wrote, it must not stop us, nor remain in what we sign: tables and tracks begin anew.
        """
        mine = next((one for one in reversed(found) if one.vouched), None)
        if mine is not None:
            self.accounts = self._take_over(mine)
            self._seal_open(signed=True)
        sealed = (self._seq, list(self._sealing))
        trouble = ""
        try:
            self.table = ProcessTable(proc=self.sources.proc)
            self.accounts = self._take_over(found[-1])
            self.accounts.baselines_mw.update(self.sources.baselines_mw)
            self.accounts.take(self._devices, sample, self._scene(sample))
            self._seal_open(signed=False)
        except Exception as error:  # noqa: BLE001 - a file of another user
            self._seq, self._sealing = sealed
            trouble = type(error).__name__
        self.table, self._finished = ProcessTable(proc=self.sources.proc), []
        self.hand_over_trouble = trouble

    def _seal_open(self, *, signed: bool) -> None:
        """Put what is booked into segments, to be published with the next checkpoint."""
        segments = self._segments()
        self.accounts.book = books.Book()
        self._sealing += [(str(one.name), self._bytes(one, signed=signed)) for one in segments]
        self._seq += len(segments)

    def _note_heads(self, scene: Scene, sample: Sample) -> None:
        for stay in scene.stays:
            missed_ms = (sample.mono_ns - stay.start_ns) // 1_000_000
            if missed_ms > 0:
                text = f"{stay.attempt}: {missed_ms} ms before the first reading of this boot are not metered"
                self.accounts.book.note(Note(sample.utc_us, "unmetered-head", text))

    # who is here ---------------------------------------------------------------------------------------------------

    def _scene(self, sample: Sample) -> Scene:
        claims = self.machine.claims()
        scan = self.table.scan(((c.pid, c.started_ticks, c.attempt) for c in claims), sample.mono_ns)
        held = self._held(sample) if self.sources.nvml.order else {}
        stays = {claim.attempt: self._stay(claim, sample.mono_ns) for claim in claims}
        for attempt, start_ns in scan.first_start_ns.items():
            if attempt not in stays:
                stays[attempt] = self._stay_without_claim(attempt, start_ns)
        stays.update({name: replace(stays[name], held=parts) for name, parts in held.items() if name in stays})
        busy, self._busy = self.sources.busy_ticks - self._busy, self.sources.busy_ticks
        gpus = {name: self._gpu_scene(name) for name, d in self._devices.items() if d.kind == "gpu"}
        return Scene(tuple(stays.values()), scan.used_ticks, max(0, busy), gpus)

    def _stay(self, claim: Claim, now_ns: int) -> Stay:
        end_ns = claim.end_ns
        if end_ns is None and not self._alive(claim):
            # Killed without a word: it ended some time since the last look.
            end_ns = now_ns
            self.machine.remove_claim(claim.attempt)
        elif end_ns is not None and end_ns > self.accounts.mono_ns and self._alive(claim):
            end_ns = now_ns  # its wrapper is its last process, and waits for this very row
        if end_ns is not None and claim.attempt not in self._finished:
            self._finished = [*self._finished, claim.attempt][-FINISHED_KEPT:]
        visible = visible_devices(claim.visible, self.sources.nvml.order)
        return Stay(claim.attempt, claim.start_ns, end_ns, claim.cpus, claim.gpus, visible)

    def _alive(self, claim: Claim) -> bool:
        process = self.table.known.get(claim.pid)
        if process is not None and process.started_ticks == claim.started_ticks:
            return True
        # In a container a wrapper has another number, but the same mark and the same start.
        same = (p for p in self.table.known.values() if p.started_ticks == claim.started_ticks)
        return any(p.owner == claim.attempt for p in same)

    def _stay_without_claim(self, attempt: str, start_ns: int) -> Stay:
        """Workers on a node without the wrapper go by their environment; what outlives its attempt holds nothing."""
        if attempt in self._finished:
            return Stay(attempt, start_ns, leftover=True)
        given = self.table.allocations.get(attempt, Allocation())
        return Stay(attempt, start_ns, None, given.cpus, given.gpus)

    def _held(self, sample: Sample) -> dict[str, dict[str, int]]:
        """The parts of GPUs that raylets gave to each attempt, as far as a slot stands for a GPU that we know."""
        order = self.sources.nvml.order
        found: dict[str, dict[str, int]] = {}
        for held in self.machine.held(sample.utc_us / 1e6):
            seen = order if held.visible is None else visible_devices(held.visible, order) or ()
            parts = found.setdefault(held.attempt, {})
            for slot, part in held.slots:
                if slot < len(seen):
                    parts[seen[slot]] = parts.get(seen[slot], 0) + part
        return found

    def _gpu_scene(self, device: str) -> GpuScene:
        processes = self.sources.gpu_processes(device)
        users: dict[str, int] = {}
        use: dict[str, int] = {}
        if processes.slices is not None:
            slices = (SliceScene(s.id, s.part, self._owners(s.pids)) for s in processes.slices)
            return GpuScene({}, {}, slices=tuple(slices))
        for pid in processes.pids:
            name, start_ns = self._owner(pid)
            users[name] = min(start_ns, users.get(name, start_ns))
            use[name] = use.get(name, 0) + processes.utilisation.get(pid, 0)
        return GpuScene(users, use if processes.utilisation else {}, processes.known)

    def _owner(self, pid: int) -> tuple[str, int]:
        """An owner for a process on a GPU, and its start; processes of nobody, or of no one we can see, included."""
        owner, start_ns = self.table.owner_of(pid) or (None, 0)
        return owner or UNATTRIBUTED, start_ns

    def _owners(self, pids: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(sorted({self._owner(pid)[0] for pid in pids}))

    # writing -------------------------------------------------------------------------------------------------------

    def _segments(self) -> list[Segment]:
        return books.seal(self.accounts.book, self.identity, self._seq, self.accounts.offset_us, self._all_devices())

    def _all_devices(self) -> dict[str, Any]:
        """Devices of the book, those too that only an earlier reader could read."""
        known = dict(self._devices)
        for span in self.accounts.book.spans:
            if span.device not in known:
                known[span.device] = books.vanished(span.device)
        return known

    def _bytes(self, segment: Segment, *, signed: bool) -> bytes:
        data = format_segment(segment)
        return self._sign(data) if self._sign and signed else data

    def _publish(self) -> None:
        while self._sealing:
            self.machine.publish(*self._sealing[0])
            self._sealing = self._sealing[1:]

    def _save(self, *, clean: bool) -> None:
        self._turn += 1
        state = {
            "v": CHECKPOINT_VERSION,
            "boot": self.machine.boot,
            "turn": self._turn,
            "clean": clean,
            "signs": self._sign is not None,
            "busy": self._busy,
            "scan_ticks": self.accounts.mono_ns * TICKS_PER_SECOND // 1_000_000_000,
            "finished": self._finished,
            "processes": self.table.to_json(),
            "sealing": [(name, data.decode("ascii")) for name, data in self._sealing],
            "accounts": self.accounts.to_json(),
        }
        self.machine.write_checkpoint(json.dumps(state, separators=(",", ":")).encode())
