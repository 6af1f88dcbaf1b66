"""Counter rules: from two readings of one device to joules, epoch and flags. Pure; specified in ENERGY-ATTRIBUTION.md.

Nothing is smoothed over: a counter that went backwards, jumped, or stood still under load is flagged, and the interval
is closed with integrated power, or left unknown where there is no power reading either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from carbon_sched_runtime.wire import COUNTER, INTEGRATED

SECOND_NS = 1_000_000_000
PLAUSIBLE_FACTOR = 1.2  # over the power limit: sensors overshoot
SLACK_NS = 200_000_000  # a 100 ms counter quantum at either end of the interval
DEFAULT_LIMIT_MW = 2_000_000
STUCK_AFTER_NS = 5 * SECOND_NS
STUCK_POWER_MW = 5_000  # below this a counter of 1 mJ steps may honestly stand still
SHORTEST_NS = 1_000_000  # two readings closer than this are one
BRIDGE_NS = 5 * SECOND_NS  # power is integrated over at most this long a hole


@dataclass(frozen=True)
class Meterable:
    """What the rules need to know of a device, besides its name on the wire.

    `source` is the class of its counter. `wrap_uj` is the value at which the counter starts again at 0 (0: it never
    does). `counts` is False where the device has no energy counter and power must be integrated.
    """

    id: str
    kind: str
    name: str
    scope: str
    source: str = COUNTER
    limit_mw: int | None = None
    wrap_uj: int = 0
    counts: bool = True
    error_ppm: int = 50_000
    quantum_ns: int = 0


@dataclass(frozen=True)
class Reading:
    """One look at a device: energy in uJ since some epoch, power in mW. None is "not told"; `error` says why."""

    counter_uj: int | None = None
    power_mw: int | None = None
    average_mw: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Track:
    """Where a device's accounts stand. Survives its reader (it is part of the checkpoint).

    `raw_uj` is the counter as last read, `total_uj` the same with wraps undone, `integrated_uj` what was booked from
    power since boot; `quiet_*` describe how long the counter has not moved, and the power integrated meanwhile.
    """

    mono_ns: int
    epoch: int = 0
    raw_uj: int | None = None
    total_uj: int = 0
    integrated_uj: int = 0
    power_mw: int | None = None
    quiet_ns: int = 0
    quiet_uj: int = 0
    stuck: bool = False


@dataclass(frozen=True)
class Step:
    """What one interval `[start_ns, end_ns)` of a device came to: the joules to be split, and their account.

    `first_uj` and `last_uj` are values of the cumulative account of `(epoch, source)`; their difference is the energy.
    """

    start_ns: int
    end_ns: int
    epoch: int
    source: str
    first_uj: int
    last_uj: int
    integral_uj: int | None
    flags: tuple[str, ...] = ()

    @property
    def energy_uj(self) -> int:
        """Microjoules of the interval, never negative."""
        return self.last_uj - self.first_uj


@dataclass(frozen=True)
class Advance:
    """The track after a reading, the step it closed (None: nothing can be said), and what to note."""

    track: Track
    step: Step | None = None
    note: str | None = None


def advance(device: Meterable, track: Track | None, reading: Reading, mono_ns: int) -> Advance:
    """Take one reading into the accounts of a device. `mono_ns` is the boot clock at the reading."""
    if track is None:
        return Advance(_first_track(reading, mono_ns))
    if reading.error is not None or (reading.counter_uj is None and reading.power_mw is None):
        return Advance(track, note="unreadable")
    if mono_ns - track.mono_ns < SHORTEST_NS:
        return Advance(track)
    if not device.counts or reading.counter_uj is None:
        return _integrate(device, track, reading, mono_ns)
    if track.raw_uj is None:
        return _close_epoch(track, reading, mono_ns, "counter-returned")
    return _count(device, track, reading, mono_ns)


def integral_uj(track: Track, reading: Reading, mono_ns: int) -> int | None:
    """Trapezoid of the two power readings over the interval, in uJ; None without both (mW x ns = 1e-6 uJ)."""
    if track.power_mw is None or reading.power_mw is None:
        return None
    return (track.power_mw + reading.power_mw) * (mono_ns - track.mono_ns) // 2_000_000


def plausible_uj(device: Meterable, interval_ns: int) -> int:
    """The most energy (uJ) the device can have used: 1.2 x limit x (interval + counter quanta)."""
    limit_mw = device.limit_mw or DEFAULT_LIMIT_MW
    return int(PLAUSIBLE_FACTOR * limit_mw * (interval_ns + SLACK_NS) / 1_000_000)


def _first_track(reading: Reading, mono_ns: int) -> Track:
    return Track(
        mono_ns=mono_ns,
        raw_uj=reading.counter_uj,
        total_uj=reading.counter_uj or 0,
        power_mw=reading.power_mw,
    )


def _restart(track: Track, reading: Reading, mono_ns: int) -> Track:
    """A new epoch of the counter begins with this reading."""
    return Track(
        mono_ns=mono_ns,
        epoch=track.epoch + 1,
        raw_uj=reading.counter_uj,
        total_uj=reading.counter_uj or 0,
        integrated_uj=track.integrated_uj,
        power_mw=reading.power_mw,
    )


def _count(device: Meterable, track: Track, reading: Reading, mono_ns: int) -> Advance:
    raw, last = reading.counter_uj or 0, track.raw_uj or 0
    interval_ns = mono_ns - track.mono_ns
    most = plausible_uj(device, interval_ns)
    delta = raw - last
    if delta < 0 and device.wrap_uj:
        if most >= device.wrap_uj:
            return _close_epoch(track, reading, mono_ns, "wrap-unknown")
        if delta + device.wrap_uj <= most:
            delta += device.wrap_uj
    if delta < 0:
        return _close_epoch(track, reading, mono_ns, "reset")
    if delta > most:
        return _close_epoch(track, reading, mono_ns, "jump")
    if device.wrap_uj and most >= device.wrap_uj:
        # It may have gone round any number of times unseen.
        return _close_epoch(track, reading, mono_ns, "wrap-unknown")
    if track.stuck and delta:
        return _close_epoch(track, reading, mono_ns, "unstuck")
    return _book(track, reading, mono_ns, delta, device.source)


def _book(track: Track, reading: Reading, mono_ns: int, delta: int, source: str) -> Advance:
    integral = integral_uj(track, reading, mono_ns)
    if delta == 0 and integral is not None and integral > STUCK_POWER_MW * (mono_ns - track.mono_ns) // 1_000_000:
        return _stand_still(track, reading, mono_ns, integral, source)
    total = track.total_uj + delta
    step = Step(track.mono_ns, mono_ns, track.epoch, source, track.total_uj, total, integral)
    moved = replace(
        track, mono_ns=mono_ns, raw_uj=reading.counter_uj, total_uj=total, power_mw=reading.power_mw,
        quiet_ns=0, quiet_uj=0, stuck=False,
    )  # fmt: skip
    return Advance(moved, step)


def _stand_still(track: Track, reading: Reading, mono_ns: int, integral: int, source: str) -> Advance:
    """The counter did not move although power flows: wait 5 s, then book what power says, flagged `stuck`."""
    quiet_ns = track.quiet_ns + mono_ns - track.mono_ns
    quiet_uj = track.quiet_uj + integral
    still = replace(track, mono_ns=mono_ns, power_mw=reading.power_mw, quiet_ns=quiet_ns, quiet_uj=quiet_uj)
    if quiet_ns < STUCK_AFTER_NS:
        step = Step(track.mono_ns, mono_ns, track.epoch, source, track.total_uj, track.total_uj, integral)
        return Advance(still, step)
    booked = track.integrated_uj + quiet_uj
    step = Step(track.mono_ns, mono_ns, track.epoch, INTEGRATED, track.integrated_uj, booked, integral, ("stuck",))
    # `quiet_ns` stays above the bound: while stuck, every interval is booked at once.
    stuck = replace(still, integrated_uj=booked, quiet_uj=0, stuck=True)
    return Advance(stuck, step, note=None if track.stuck else "stuck")


def _integrate(device: Meterable, track: Track, reading: Reading, mono_ns: int) -> Advance:
    """There is no counter, or it did not answer: book the trapezoid of power."""
    flags = ("counter-missing",) if device.counts else ()
    # Without `raw_uj` a counter that comes back starts a new epoch: its difference would count this time twice.
    fresh = replace(track, mono_ns=mono_ns, raw_uj=None, power_mw=reading.power_mw)
    return _with_integral(track, fresh, reading, flags)


def _close_epoch(track: Track, reading: Reading, mono_ns: int, why: str) -> Advance:
    """The counter cannot be believed over this interval: integrate power, and start a new epoch at the reading."""
    closed = _with_integral(track, _restart(track, reading, mono_ns), reading, (why,))
    return replace(closed, note=why if closed.step else f"{why}-unknown")


def _with_integral(track: Track, after: Track, reading: Reading, flags: tuple[str, ...]) -> Advance:
    integral = integral_uj(track, reading, after.mono_ns)
    if integral is None or after.mono_ns - track.mono_ns > BRIDGE_NS:
        return Advance(after, note="power-unknown")
    booked = track.integrated_uj + integral
    step = Step(track.mono_ns, after.mono_ns, track.epoch, INTEGRATED, track.integrated_uj, booked, integral, flags)
    return Advance(replace(after, integrated_uj=booked), step)
