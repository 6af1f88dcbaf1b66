"""The accounts of one machine: takes samples and scenes, books rows, and can be stopped and resumed at any tick.

A state machine without input or output: the reader feeds it, writes its checkpoint, and seals its book. Whoever holds
the checkpoint goes on where the last reader stood.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from carbon_sched_runtime.attribution import (
    WHOLE,
    GpuUse,
    Share,
    Tenant,
    cpu_shares,
    gpu_shares,
    holders_of,
    mig_shares,
    squatters_of,
)
from carbon_sched_runtime.book import UNCERTAIN, Book
from carbon_sched_runtime.counters import Meterable, Reading, Step, Track, advance
from carbon_sched_runtime.processes import TICKS_PER_SECOND
from carbon_sched_runtime.wire import IDLE, LARGEST, UNATTRIBUTED, Note

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GAP_NS = 2_500_000_000  # longer than two missed ticks: nobody looked who was there
BASELINE_FROM_NS = 500_000_000  # shorter intervals say more of the counter's quantum than of the power
UNSEEN_REST = 10  # a GPU that was never seen without users rests at so small a part of its power limit
CLOCK_STEP_US = 250_000
TICK_NS = 1_000_000_000 // TICKS_PER_SECOND  # as exact as starts of processes are told
GAP = "gap"
TAKEOVER = "takeover"
SQUATTER = "squatter"
LEFTOVER = "leftover"
SQUATTER_AFTER_NS = 40_000_000_000  # the raylet's list of who holds what may be so old


@dataclass(frozen=True)
class Stay:
    """An attempt's time on this machine, on the boot clock; `end_ns` is None while it is there.

    `cpus` and `gpus` are its allocation in millionths; `visible` the GPU ids its entrypoint was confined to; `held` the
    parts of GPUs that the raylet gave to its workers. A `leftover` has outlived its attempt.
    """

    attempt: str
    start_ns: int
    end_ns: int | None = None
    cpus: int = 0
    gpus: int = 0
    visible: tuple[str, ...] | None = None
    held: Mapping[str, int] = field(default_factory=dict)
    leftover: bool = False


@dataclass(frozen=True)
class SliceScene:
    """Who is on one MIG device now: its id, its part of the board in millionths, and the owners of its processes."""

    id: str
    part: int
    owners: tuple[str, ...]


@dataclass(frozen=True)
class GpuScene:
    """Who is on one GPU now: the earliest start (boot clock, ns) of each owner's processes there, and SM use.

    In MIG mode `slices` says it instead (None: not in MIG mode).
    """

    users: Mapping[str, int]
    utilisation: Mapping[str, int]
    known: bool = True
    slices: tuple[SliceScene, ...] | None = None


NOT_SEEN = GpuScene({}, {}, known=False)


@dataclass(frozen=True)
class Scene:
    """Who was on the machine since the last sample: stays, CPU ticks by attempt and in all, and the GPUs' users."""

    stays: tuple[Stay, ...]
    used_ticks: Mapping[str, int]
    busy_ticks: int
    gpus: Mapping[str, GpuScene]


@dataclass(frozen=True)
class Sample:
    """One look at every device, with the boot clock and UTC at that moment."""

    mono_ns: int
    utc_us: int
    readings: Mapping[str, Reading]


@dataclass
class Accounts:
    """Where a machine's accounts stand. `cpus` are its hardware threads, `baselines_mw` the least power at rest."""

    cpus: int
    offset_us: int
    mono_ns: int
    tracks: dict[str, Track] = field(default_factory=dict)
    baselines_mw: dict[str, int] = field(default_factory=dict)
    gpu_users: dict[str, list[str]] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)
    book: Book = field(default_factory=Book)
    taken_over: bool = False
    squatters: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def new(cls, cpus: int, sample: Sample) -> Accounts:
        """Accounts that begin with this sample: nothing before it is booked."""
        return cls(cpus=cpus, offset_us=sample.utc_us - sample.mono_ns // 1000, mono_ns=sample.mono_ns)

    def take(self, devices: Mapping[str, Meterable], sample: Sample, scene: Scene) -> None:
        """Book what happened since the last sample."""
        gap = sample.mono_ns - self.mono_ns > GAP_NS
        steps: dict[str, Step] = {}
        for name, device in devices.items():
            step = self._advance(device, sample.readings.get(name, Reading(error="not read")), sample)
            if step is not None:
                steps[name] = step
        gpus = [name for name, device in devices.items() if device.kind == "gpu"]
        presences = {stay.attempt: (stay.start_ns, stay.end_ns) for stay in scene.stays}
        leftovers = {stay.attempt for stay in scene.stays if stay.leftover}
        for name, step in steps.items():
            self._learn_baseline(devices[name], step, sample.readings[name], scene)
            tenants = _tenants(scene.stays, step)
            shares, cut, squatters = self._shares(devices[name], step, tenants, scene, gpus)
            squatters = {owner: holder for owner, holder in squatters.items() if owner not in leftovers}
            flags = self._flags(step, gap=gap)
            marks = _marks({UNCERTAIN: _uncertain(flags, tenants, shares), SQUATTER: squatters, LEFTOVER: leftovers})
            self.book.add(step, name, shares, flags, cut, presences, marks)
            self._note_squatters(sample, name, squatters)
        self.gpu_users = {name: sorted(scene.gpus[name].users) for name in gpus if name in scene.gpus}
        self.mono_ns = sample.mono_ns
        self.taken_over = False

    def check_clock(self, sample: Sample) -> None:
        """Follow a step of the wall clock (between two segments only, so that one segment has one clock)."""
        offset = sample.utc_us - sample.mono_ns // 1000
        if abs(offset - self.offset_us) > CLOCK_STEP_US:
            moved_ms = (offset - self.offset_us) // 1000
            self.offset_us = offset
            self._note(sample, "clock-step", f"the wall clock moved by {moved_ms} ms", None)

    def to_json(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "cpus": self.cpus,
            "offset_us": self.offset_us,
            "mono_ns": self.mono_ns,
            "tracks": {name: list(asdict(track).values()) for name, track in self.tracks.items()},
            "baselines_mw": self.baselines_mw,
            "gpu_users": self.gpu_users,
            "trouble": self.trouble,
            "book": self.book.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Accounts:
        """Read a checkpoint back; TypeError, KeyError, AttributeError or ValueError when it is not one."""
        accounts = cls(
            cpus=int(data["cpus"]),
            offset_us=int(data["offset_us"]),
            mono_ns=int(data["mono_ns"]),
            tracks={name: Track(*track) for name, track in data["tracks"].items()},
            baselines_mw={name: int(value) for name, value in data["baselines_mw"].items()},
            gpu_users={name: [str(user) for user in users] for name, users in data["gpu_users"].items()},
            trouble={name: str(what) for name, what in data["trouble"].items()},
            book=Book.from_json(data["book"]),
        )
        if not all(0 <= t.mono_ns <= accounts.mono_ns <= LARGEST for t in accounts.tracks.values()):
            raise ValueError("a device was read after the checkpoint was written")
        return accounts

    def _advance(self, device: Meterable, reading: Reading, sample: Sample) -> Step | None:
        moved = advance(device, self.tracks.get(device.id), reading, sample.mono_ns)
        self.tracks[device.id] = moved.track
        trouble = reading.error or moved.note
        if trouble and trouble != self.trouble.get(device.id):
            kind = "unreadable" if reading.error else str(moved.note)
            self._note(sample, kind, reading.error or NOTE_TEXTS.get(kind, kind), device.id)
        if trouble:
            self.trouble[device.id] = trouble
        else:
            self.trouble.pop(device.id, None)
        return moved.step

    def _learn_baseline(self, device: Meterable, step: Step, reading: Reading, scene: Scene) -> None:
        """The least power ever seen stands for the power at rest: instant power, else the counter's own.

        Of a GPU only what was seen while nobody was on it: the least of a loaded GPU is no rest.
        """
        length = step.end_ns - step.start_ns
        if length < BASELINE_FROM_NS or step.flags or not self._unused(device, scene):
            return
        seen_mw = reading.power_mw if reading.power_mw is not None else step.energy_uj * 1_000_000 // length
        self.baselines_mw[device.id] = min(seen_mw, self.baselines_mw.get(device.id, seen_mw))

    def _unused(self, device: Meterable, scene: Scene) -> bool:
        """Whether nobody was seen on it at either end of the interval; of other devices than GPUs nothing is asked."""
        seen = scene.gpus.get(device.id, NOT_SEEN)
        nobody = seen.known and seen.slices is None and not seen.users and not self.gpu_users.get(device.id)
        return device.kind != "gpu" or nobody

    def _baseline_uj(self, device: Meterable, length_ns: int) -> int:
        unseen_mw = (device.limit_mw or 0) // UNSEEN_REST if device.kind == "gpu" else 0
        return self.baselines_mw.get(device.id, unseen_mw) * length_ns // 1_000_000

    def _flags(self, step: Step, *, gap: bool) -> tuple[str, ...]:
        flags = set(step.flags)
        if gap or step.end_ns - step.start_ns > GAP_NS:
            flags.add(GAP)
        if self.taken_over:
            flags.add(TAKEOVER)
        return tuple(sorted(flags))

    def _shares(
        self, device: Meterable, step: Step, tenants: list[Tenant], scene: Scene, gpus: list[str]
    ) -> tuple[list[Share], object, dict[str, str]]:
        """The split, what names its owners, and who uses the GPU without holding it beside whom."""
        baseline_uj = self._baseline_uj(device, step.end_ns - step.start_ns)
        if device.kind != "gpu":
            shares = cpu_shares(
                step.energy_uj, baseline_uj, self.cpus * WHOLE, tenants, scene.used_ticks, scene.busy_ticks
            )
            return shares, sorted(tenant.attempt for tenant in tenants), {}
        seen = scene.gpus.get(device.id)
        if seen is not None and seen.slices is not None:
            slices = [(part.part, _slice_owners(part, tenants)) for part in seen.slices]
            return mig_shares(step.energy_uj, slices), [sorted(owners) for _, owners in slices], {}
        uses = {name: self._use(name, scene, step) for name in gpus if not _is_mig(scene, name)}
        holders = holders_of(uses, tenants, uses)[device.id]
        shares = gpu_shares(step.energy_uj, baseline_uj, uses[device.id], holders)
        long_there = (
            {o for o, start in seen.users.items() if step.end_ns - start > SQUATTER_AFTER_NS} if seen else set()
        )
        squatters = squatters_of(long_there, tenants, holders)
        return shares, [sorted(uses[device.id].users), sorted(holders)], squatters

    def _use(self, gpu: str, scene: Scene, step: Step) -> GpuUse:
        """Put the process lists at both ends of the interval together."""
        now = scene.gpus.get(gpu)
        if now is None or not now.known:
            return GpuUse({}, {}, known=False)
        before = set(self.gpu_users.get(gpu, ()))
        ends = {stay.attempt: stay.end_ns for stay in scene.stays if stay.end_ns is not None}
        users = {}
        for owner, start_ns in now.users.items():
            users[owner] = WHOLE if owner in before else _part_after(start_ns, step)
        for owner in before - set(now.users):
            users[owner] = WHOLE - _part_after(ends.get(owner, 0), step)
        return GpuUse(users, now.utilisation)

    def _note_squatters(self, sample: Sample, device: str, squatters: Mapping[str, str]) -> None:
        """Once for as long as it lasts."""
        for owner, holder in squatters.items():
            if owner not in self.squatters.get(device, {}):
                text = f"{owner} uses what {holder} holds" if holder else f"{owner} uses what it does not hold"
                self._note(sample, SQUATTER, text, device)
        self.squatters[device] = dict(squatters)

    def _note(self, sample: Sample, kind: str, text: str, device: str | None) -> None:
        self.book.note(Note(self.offset_us + sample.mono_ns // 1000, kind, text, device))


NOTE_TEXTS = {
    "reset": "the counter went backwards: a new epoch begins; the interval is booked from power",
    "reset-unknown": "the counter went backwards and no power reading closes the interval: its energy is unknown",
    "jump": "the counter moved more than 1.2 x the power limit allows: refused; the interval is booked from power",
    "jump-unknown": "the counter moved more than 1.2 x the power limit allows: refused; the energy is unknown",
    "stuck": "the counter stands still while power flows: booked from power until it moves",
    "unstuck": "the counter moves again: a new epoch begins",
    "unstuck-unknown": "the counter moves again: a new epoch begins",
    "wrap-unknown": "the counter may have gone round unseen: the interval is booked from power",
    "wrap-unknown-unknown": "the counter may have gone round unseen: the energy is unknown",
    "power-unknown": "no counter, and no two power readings close enough together: the energy is unknown",
    "counter-returned-unknown": "the counter answers again; the energy of the interval before is unknown",
}


def _marks(owners_by_flag: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The flags of each owner's rows."""
    marks: dict[str, list[str]] = {}
    for flag, owners in owners_by_flag.items():
        for owner in owners:
            marks.setdefault(owner, []).append(flag)
    return marks


def _uncertain(flags: tuple[str, ...], tenants: list[Tenant], shares: list[Share]) -> set[str]:
    """Whose share of an unwatched interval is a guess: each attempt's, and others' if one was there for most."""
    if not {GAP, TAKEOVER} & set(flags):
        return set()
    others = {share.owner for share in shares}
    attempts = {tenant.attempt for tenant in tenants} | others - {IDLE, UNATTRIBUTED}
    return attempts | others if any(2 * tenant.presence > WHOLE for tenant in tenants) else attempts


def _is_mig(scene: Scene, gpu: str) -> bool:
    seen = scene.gpus.get(gpu)
    return seen is not None and seen.slices is not None


def _slice_owners(part: SliceScene, tenants: list[Tenant]) -> list[str]:
    """Who is on a MIG device, else whose entrypoint is confined to it."""
    return sorted(part.owners or {tenant.attempt for tenant in tenants if part.id in (tenant.visible or ())})


def _tenants(stays: Iterable[Stay], step: Step) -> list[Tenant]:
    """The attempts that were there for any part of the interval."""
    length = step.end_ns - step.start_ns
    tenants = []
    for stay in stays:
        start = max(stay.start_ns, step.start_ns)
        end = min(step.end_ns if stay.end_ns is None else stay.end_ns, step.end_ns)
        if end > start:
            presence = (end - start) * WHOLE // length
            tenants.append(Tenant(stay.attempt, presence, stay.cpus, stay.gpus, stay.visible, stay.held))
    return tenants


def _part_after(moment_ns: int, step: Step) -> int:
    """The part of the interval after a moment, in millionths; half of it when the moment lies outside.

    Who started in the clock tick in which the interval began was there from its beginning.
    """
    if not step.start_ns - TICK_NS < moment_ns <= step.end_ns:
        return WHOLE // 2
    return (step.end_ns - max(moment_ns, step.start_ns)) * WHOLE // (step.end_ns - step.start_ns)
