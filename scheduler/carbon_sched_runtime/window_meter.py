"""One process's own look at the counters: joules between any two moments, for windows in user code.

Every window that is open when an interval is booked gets that interval, so what is inside a window adds up to the
window, in whole microjoules. The rules for one counter are those of the machine's reader (`counters.advance`); a window
needs neither the reader nor its lock, because counters are cumulative and anyone may read them.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable

from carbon_sched_runtime.counters import SHORTEST_NS, Meterable, Reading, Track, advance
from carbon_sched_runtime.nvml import visible_devices
from carbon_sched_runtime.processes import TICKS_PER_SECOND
from carbon_sched_runtime.wire import COUNTER, ESTIMATED

if TYPE_CHECKING:
    from carbon_sched_runtime.accounts import Sample
    from carbon_sched_runtime.counters import Step
    from carbon_sched_runtime.sources import Sources

PERIOD_S = 1.0
JITTER = 0.1  # of the period, so as not to keep step with a load that repeats every second
VISIBLE = "CUDA_VISIBLE_DEVICES"
SHORT = "shorter-than-step"
STRADDLES = "gap"


@dataclass(frozen=True)
class Part:
    """Joules of one device by one class of source. `error_uj` bounds what the figure may be off, on either side."""

    device: str
    kind: str
    name: str
    scope: str
    source: str
    energy_uj: int
    error_uj: int
    flags: tuple[str, ...] = ()


@dataclass
class Tally:
    """An open window's account. Times are of the boot clock; `devices` are what this process may use."""

    devices: frozenset[str]
    start_ns: int
    start_us: int
    end_ns: int
    energy_uj: dict[tuple[str, str], int] = field(default_factory=dict)
    flags: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    closed: bool = False

    @property
    def end_us(self) -> int:
        """UTC at the end, by the boot clock: a step of the wall clock changes no window's length."""
        return self.start_us + (self.end_ns - self.start_ns) // 1000

    def book(self, device: str, step: Step) -> None:
        """Add what of a step lies in the window; energy of an interval that began earlier follows time."""
        if device not in self.devices or step.end_ns <= self.start_ns:
            return
        key, energy, flags = (device, step.source), step.energy_uj, set(step.flags)
        if step.start_ns < self.start_ns:
            energy = energy * (step.end_ns - self.start_ns) // (step.end_ns - step.start_ns)
            flags.add(STRADDLES)
        self.energy_uj[key] = self.energy_uj.get(key, 0) + energy
        self.flags.setdefault(key, set()).update(flags)


class WindowMeter:
    """Reads the devices at every edge of a window, and once a second while one is open. Safe in several threads."""

    def __init__(self, sources: Sources, visible: Callable[[], str | None] | None = None) -> None:
        self._sources = sources
        self._visible = visible or (lambda: os.environ.get(VISIBLE))
        self._lock = threading.Lock()
        self._open: list[Tally] = []
        self._tracks: dict[str, Track] = {}
        self._at_ns = 0
        self._at_us = 0
        self._trouble: dict[str, str] = {}
        self._stop: threading.Event | None = None

    def open(self) -> Tally:
        """Begin a window now."""
        with self._lock:
            if not self._open:
                self._tracks, self._trouble, self._at_ns = {}, {}, 0
            self._look()
            devices, note = self._usable()
            tally = Tally(devices, self._at_ns, self._at_us, self._at_ns)
            if note:
                tally.notes[note] = None
            tally.notes.update(dict.fromkeys(text for name, text in self._trouble.items() if name in devices))
            self._open.append(tally)
            if self._stop is None:
                self._stop = threading.Event()
                threading.Thread(
                    target=self._sample, args=(self._stop,), name="carbon-sched-window", daemon=True
                ).start()
            return tally

    def close(self, tally: Tally) -> tuple[Part, ...]:
        """End a window now: its joules by device and class of source, none for devices that could not be read."""
        with self._lock:
            if not tally.closed:
                self._look()
                tally.end_ns, tally.closed = self._at_ns, True
                self._open.remove(tally)
                if not self._open and self._stop is not None:
                    self._stop.set()
                    self._stop = None
            return tuple(self._part(tally, *key) for key in sorted(tally.energy_uj))

    def look(self) -> None:
        """Read every device and book what happened since the last look."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        """Two looks closer than a millisecond are one, so that windows may share an edge."""
        sample = self._sources.sample()
        if self._at_ns and sample.mono_ns - self._at_ns < SHORTEST_NS:
            return
        for name, device in self._sources.devices.items():
            self._advance(name, device, sample)
        self._at_ns, self._at_us = sample.mono_ns, sample.utc_us

    def _advance(self, name: str, device: Meterable, sample: Sample) -> None:
        reading = sample.readings.get(name, Reading(error="not read"))
        moved = advance(device, self._tracks.get(name), reading, sample.mono_ns)
        self._trouble.pop(name, None)
        if reading.error is None or name in self._tracks:
            self._tracks[name] = moved.track
        problem = reading.error or moved.note
        if problem:
            self._trouble[name] = f"{name}: {problem}"
        for tally in self._open:
            if problem and name in tally.devices:
                tally.notes[self._trouble[name]] = None
            if moved.step is not None:
                tally.book(name, moved.step)

    def _usable(self) -> tuple[frozenset[str], str | None]:
        """The devices of this process: every CPU, and the GPUs it is not barred from."""
        devices = self._sources.devices
        text = self._visible()
        if text is None:
            return frozenset(devices), None
        seen = frozenset(visible_devices(text, self._sources.nvml.order) or ())
        cut = any(name.startswith("mig:") for name in seen)
        note = "a MIG slice is not metered by itself: its joules are in the attempt's receipt" if cut else None
        return frozenset(name for name, device in devices.items() if device.kind != "gpu" or name in seen), note

    def _part(self, tally: Tally, name: str, source: str) -> Part:
        device, energy = self._sources.devices[name], tally.energy_uj[name, source]
        flags = set(tally.flags[name, source])
        if tally.end_ns - tally.start_ns < step_ns(device):
            flags.add(SHORT)
        return Part(
            name, device.kind, device.name, device.scope, source, energy, error_uj(device, source, energy),
            tuple(sorted(flags)),
        )  # fmt: skip

    def _sample(self, stop: threading.Event) -> None:
        while not stop.wait(PERIOD_S * (1 + JITTER * (os.urandom(1)[0] / 127.5 - 1))):
            with self._lock:
                if not stop.is_set():
                    self._look()


def step_ns(device: Meterable) -> int:
    """How long a device's counter may stand before it shows what was used: its quantum, or the kernel's clock tick."""
    return 1_000_000_000 // TICKS_PER_SECOND if device.source == ESTIMATED else device.quantum_ns


def error_uj(device: Meterable, source: str, energy_uj: int) -> int:
    """How far a window's joules may be off: the device's own error, and one step of the counter at full power.

    A counter is behind by at most one step at either edge; one is in the figure, the other is missing from it, so the
    two never add up. What is integrated has no such bound: power between two looks is not seen.
    """
    own = energy_uj * device.error_ppm // 1_000_000
    if source != COUNTER:
        return own
    return own + (device.limit_mw or 0) * device.quantum_ns // 1_000_000
