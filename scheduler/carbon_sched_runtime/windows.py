"""Windows in user code: `with window("epoch-3", tokens=n):` measures joules and gCO2e of what happens inside.

Works in a plain script, a notebook, a job and a Ray worker. On a cluster only this package travels, so import it there:

    from carbon_sched_runtime import windows
    with windows.window("epoch-3", tokens=4096 * steps, intensity=250, pue=1.2) as w:
        train()
    print(w.result)

Where carbon-sched is installed, `from carbon_sched import meter` is the same and knows yearly averages by zone.

The joules are those of whole devices that this process may use (all CPUs, GPUs by CUDA_VISIBLE_DEVICES), whoever else
was on them: the attempt's own share of shared devices is in its receipt. Metering never raises into user code: what
could not be measured is None, and `reason` says why.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable

from carbon_sched_runtime.fields import OWNER, WORD, WireError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self  # for the type checker only

    from carbon_sched_runtime.window_meter import Part, Tally, WindowMeter

INTENSITY, PUE, ZONE = "CARBON_SCHED_INTENSITY", "CARBON_SCHED_PUE", "CARBON_SCHED_ZONE"
LARGEST_INTENSITY = 2_500.0  # g/kWh, as for readings of grids
LARGEST_PUE = 10.0
QUALITY = "quality"
"""The window of a report; carbon_sched knows it by the same name (domain/energy.py)."""
UJ_PPM_MG_PER_UG = 3_600_000_000_000 * 1_000_000 // 1_000  # as in carbon_sched.domain.units; a test compares the two
NAME_LIMIT = 100

Averages = Callable[[str, int, int], "tuple[int, str, str]"]
"""`(zone, start_us, end_us)` -> intensity in mg/kWh, its grade, and where it is from; LookupError if there is none."""

log = logging.getLogger("carbon_sched")


@dataclass(frozen=True)
class Carbon:
    """What a window's energy is multiplied with. `reason` says why something is None; `grade` how good the rest is.

    `grade` is `given` (argument), `environment`, or that of a yearly average (`D-zone-year` to `F-world-year`).
    """

    intensity_mg_per_kwh: int | None
    grade: str | None
    origin: str | None
    pue_ppm: int | None
    reason: str | None


@dataclass(frozen=True)
class PerUnit:
    """Joules and grams CO2e for one unit of work; None where the window's figure is, or no work was done."""

    joules: float | None
    co2e_g: float | None


@dataclass(frozen=True)
class Measurement:
    """What a closed window measured. `energy_uj` is IT energy, None when nothing could be read."""

    name: str
    start_us: int
    end_us: int
    duration_s: float
    parts: tuple[Part, ...]
    carbon: Carbon
    units: dict[str, float]
    notes: tuple[str, ...] = ()

    @property
    def energy_uj(self) -> int | None:
        """Microjoules of all devices together."""
        return sum(part.energy_uj for part in self.parts) if self.parts else None

    @property
    def energy_j(self) -> float | None:
        """The same in joules."""
        return None if self.energy_uj is None else self.energy_uj / 1e6

    @property
    def error_j(self) -> float | None:
        """How far `energy_j` may be off, every device at its worst."""
        return sum(part.error_uj for part in self.parts) / 1e6 if self.parts else None

    @property
    def joules(self) -> dict[tuple[str, str], float]:
        """Joules by `(device, source class)`; the class is `counter`, `integrated` or `estimated`."""
        return {(part.device, part.source): part.energy_uj / 1e6 for part in self.parts}

    @property
    def co2e_ug(self) -> int | None:
        """Micrograms CO2e: energy x PUE x intensity; None with `carbon.reason` when one of them is unknown."""
        carbon = self.carbon
        if self.energy_uj is None or carbon.intensity_mg_per_kwh is None or carbon.pue_ppm is None:
            return None
        product = self.energy_uj * carbon.pue_ppm * carbon.intensity_mg_per_kwh
        return (2 * product + UJ_PPM_MG_PER_UG) // (2 * UJ_PPM_MG_PER_UG)

    @property
    def co2e_g(self) -> float | None:
        """The same in grams."""
        return None if self.co2e_ug is None else self.co2e_ug / 1e6

    @property
    def per_unit(self) -> dict[str, PerUnit]:
        """Joules and grams for one of each unit given to the window."""
        return {
            name: PerUnit(_ratio(self.energy_j, amount), _ratio(self.co2e_g, amount))
            for name, amount in self.units.items()
        }

    @property
    def reason(self) -> str | None:
        """What a reader of the figures must know: why something is missing, and what happened to the counters."""
        missing = [] if self.parts or self.notes else ["too short: no device was read twice"]
        return "; ".join([*missing, *self.notes, *([self.carbon.reason] if self.carbon.reason else [])]) or None

    def __str__(self) -> str:
        """One line for people, with the word "estimated" wherever it is."""
        estimated = any(part.source == "estimated" for part in self.parts)
        energy = "energy unknown" if self.energy_j is None else f"{self.energy_j:,.1f} J"
        carbon = "CO2e unknown" if self.co2e_g is None else f"{self.co2e_g:.4g} gCO2e ({self.carbon.grade})"
        per = [f"{p.joules:.4g} J/{name}" for name, p in self.per_unit.items() if p.joules is not None]
        words = [energy + (" (estimated)" if estimated else ""), carbon, *per]
        return f"{self.name}: {', '.join(words)} in {self.duration_s:.2f} s" + (
            f" [{self.reason}]" if self.reason else ""
        )


@dataclass
class Window:
    """A window; make it with `window`. Use it in a `with`, or call `start` and `stop` (notebook cells)."""

    name: str
    units: dict[str, float]
    intensity: float | None = None
    pue: float | None = None
    zone: str | None = None
    averages: Averages | None = None
    codecarbon_csv: str | os.PathLike[str] | None = None
    kept: bool = True
    """Whether it is written beside the attempt's journal."""
    id: str = field(default_factory=lambda: os.urandom(4).hex())
    _tally: Tally | None = None
    _meter: WindowMeter | None = None
    _result: Measurement | None = None
    _parent: str | None = None
    _trouble: str | None = None
    _pid: int = 0

    def start(self) -> Self:
        """Begin. RuntimeError when it began before."""
        if self._tally is not None or self._result is not None or self._trouble is not None:
            raise RuntimeError(f"the window {self.name!r} was started before: make a new one")
        self._pid = os.getpid()
        try:
            self._meter = _meter()
            self._tally = self._meter.open()
        except Exception as error:  # noqa: BLE001 - metering must never harm the job; the reason is in the result
            self._trouble = f"cannot meter here: {type(error).__name__}: {error}"
        stack = _open_windows()
        self._parent = stack[-1] if stack else None
        stack.append(self.id)
        return self

    def add(self, **units: float) -> None:
        """Count more work: `w.add(tokens=512)`. ValueError for what is no amount."""
        for name, amount in _checked_units(units).items():
            self.units[name] = self.units.get(name, 0.0) + amount

    def stop(self) -> Measurement:
        """End, and return the result; again, the same."""
        if self._result is None:
            if self._tally is None and self._trouble is None:
                raise RuntimeError(f"the window {self.name!r} was not started")
            stack = _open_windows()
            if self.id in stack:
                stack.remove(self.id)
            self._result = self._measure()
        return self._result

    @property
    def result(self) -> Measurement:
        """What was measured. RuntimeError while the window is open."""
        if self._result is None:
            raise RuntimeError(f"the window {self.name!r} is still open")
        return self._result

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _measure(self) -> Measurement:
        tally, notes = self._tally, [self._trouble] if self._trouble else []
        parts: tuple[Part, ...] = ()
        if self._pid != os.getpid():
            notes.append("started in another process: a forked child cannot end it")
        elif tally is not None and self._meter is not None:
            try:
                parts = self._meter.close(tally)
            except Exception as error:  # noqa: BLE001 - as in start
                notes.append(f"the end could not be read: {type(error).__name__}: {error}")
            notes += tally.notes
        start_us, end_us = (tally.start_us, tally.end_us) if tally else (0, 0)
        seconds = (tally.end_ns - tally.start_ns) / 1e9 if tally else 0.0
        carbon = self._carbon(start_us, end_us)
        measured = Measurement(self.name, start_us, end_us, seconds, parts, carbon, dict(self.units), tuple(notes))
        return self._kept(measured, tally)

    def _kept(self, measured: Measurement, tally: Tally | None) -> Measurement:
        """Write the window where it belongs; what cannot be written is said in the result's notes and the log."""
        troubles = []
        try:
            if tally is not None and self.kept:
                _write_for_attempt(self, measured, tally)
        except (OSError, WireError) as error:
            troubles.append(f"not written beside the journal: {error}")
        try:
            if self.codecarbon_csv is not None:
                from carbon_sched_runtime.codecarbon import append_row  # noqa: PLC0415 - only on request

                append_row(os.fspath(self.codecarbon_csv), self.id, measured)
        except OSError as error:
            troubles.append(f"not written to {self.codecarbon_csv}: {error}")
        for trouble in troubles:
            log.warning("window %s: %s", self.name, trouble)
        return _noted(measured, troubles)

    def _carbon(self, start_us: int, end_us: int) -> Carbon:
        reasons: list[str] = []
        intensity, grade, origin = self._intensity(start_us, end_us, reasons)
        pue = self.pue if self.pue is not None else _from_environment(PUE, 1.0, LARGEST_PUE, reasons)
        if pue is None and not any(PUE in reason for reason in reasons):
            reasons.append(f"no PUE: give pue= or {PUE} (1.0 for a laptop or a workstation)")
        return Carbon(
            intensity_mg_per_kwh=intensity, grade=grade, origin=origin,
            pue_ppm=None if pue is None else round(pue * 1_000_000), reason="; ".join(reasons) or None,
        )  # fmt: skip

    def _intensity(self, start_us: int, end_us: int, reasons: list[str]) -> tuple[int | None, str | None, str | None]:
        """Given by argument, by environment, or the zone's yearly average; mg/kWh, grade, origin."""
        if self.intensity is not None:
            return round(self.intensity * 1000), "given", "argument"
        value = _from_environment(INTENSITY, 0.0, LARGEST_INTENSITY, reasons)
        if value is not None:
            return round(value * 1000), "environment", INTENSITY
        zone = self.zone or os.environ.get(ZONE)
        if not zone:
            reasons.append(f"no grid intensity: give intensity= (g/kWh), zone=, {INTENSITY} or {ZONE}")
        elif self.averages is None:
            reasons.append("yearly averages by zone need the package carbon_sched: give intensity= (g/kWh) here")
        elif end_us > start_us:
            try:
                return self.averages(zone, start_us, end_us)
            except (LookupError, ValueError, OSError) as error:
                reasons.append(f"no yearly average for {zone}: {error}")
        return None, None, None


def window(
    name: str,
    *,
    intensity: float | None = None,
    pue: float | None = None,
    zone: str | None = None,
    codecarbon_csv: str | os.PathLike[str] | None = None,
    averages: Averages | None = None,
    **units: float,
) -> Window:
    """A window over what happens in its `with` block; `units` are amounts of work done in it (`tokens=4096`).

    `intensity` is in gCO2e/kWh, `pue` a ratio; without them CARBON_SCHED_INTENSITY and CARBON_SCHED_PUE are used, else
    the yearly average of `zone` (CARBON_SCHED_ZONE) where carbon_sched is installed. `codecarbon_csv` names a file that
    gets a row as CodeCarbon 3.3.2 would write it. Raises ValueError for arguments that make no sense.
    """
    if not name or len(name) > NAME_LIMIT or not name.isprintable():
        raise ValueError(f"a window's name has 1 to {NAME_LIMIT} printable characters")
    _require("intensity", intensity, 0.0, LARGEST_INTENSITY)
    _require("pue", pue, 1.0, LARGEST_PUE)
    return Window(
        name=name, units=_checked_units(units), intensity=intensity, pue=pue, zone=zone, averages=averages,
        codecarbon_csv=codecarbon_csv,
    )  # fmt: skip


def report(**metrics: float) -> None:
    """Tell what came out of the job: `report(accuracy=0.83, loss=1.2)`, for `carbon-sched compare`.

    The newest word on a metric holds. Kept as a window named `quality`, in millionths. ValueError for a name that is
    none and for what does not lie between 0 and 9e12.
    """
    Window(QUALITY, _checked_units(metrics)).start().stop()


# this process ----------------------------------------------------------------------------------------------------


@dataclass
class _Process:
    meter: WindowMeter | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: threading.local = field(default_factory=threading.local)


_process = _Process()


def _forget() -> None:
    """A forked child has neither the sampling thread nor a usable driver: it begins anew."""
    global _process  # noqa: PLW0603 - one meter per process is the point
    _process = _Process()


os.register_at_fork(after_in_child=_forget)


def _meter() -> WindowMeter:
    """This process's meter, made at its first window: the driver's library is loaded then, not at import."""
    from carbon_sched_runtime.sources import Sources  # noqa: PLC0415 - needs Linux; importing this module does not
    from carbon_sched_runtime.window_meter import WindowMeter  # noqa: PLC0415

    with _process.lock:
        if _process.meter is None:
            _process.meter = WindowMeter(Sources())
        return _process.meter


def _open_windows() -> list[str]:
    """Ids of the windows open in this thread, outermost first."""
    local = _process.threads
    if not hasattr(local, "stack"):
        local.stack = []
    stack: list[str] = local.stack
    return stack


def _write_for_attempt(window: Window, measured: Measurement, tally: Tally) -> None:
    """Put the window into its attempt's file, where this process belongs to one."""
    attempt = os.environ.get("CARBON_SCHED_ATTEMPT", "")
    if not OWNER.fullmatch(attempt):
        return
    from carbon_sched_runtime.machine import boot_id, machine_id  # noqa: PLC0415
    from carbon_sched_runtime.run import journal_folder  # noqa: PLC0415
    from carbon_sched_runtime.window_file import UNITS, WindowRecord, append_window  # noqa: PLC0415

    carbon, units = measured.carbon, list(measured.units.items())[:UNITS]
    record = WindowRecord(
        id=window.id, attempt=attempt, name=measured.name, start_us=measured.start_us, end_us=measured.end_us,
        start_mono_ns=tally.start_ns, end_mono_ns=tally.end_ns, machine=machine_id(), boot=boot_id(), pid=os.getpid(),
        parent=window._parent, energy_uj=measured.energy_uj, co2e_ug=measured.co2e_ug,  # noqa: SLF001 - its own module
        intensity_mg_per_kwh=carbon.intensity_mg_per_kwh, grade=carbon.grade, pue_ppm=carbon.pue_ppm,
        parts=measured.parts, units=tuple((unit, round(amount * 1_000_000)) for unit, amount in units),
    )  # fmt: skip
    append_window(journal_folder(), record)


def _noted(measured: Measurement, troubles: list[str]) -> Measurement:
    return Measurement(**{**measured.__dict__, "notes": (*measured.notes, *troubles)}) if troubles else measured


def _ratio(total: float | None, amount: float) -> float | None:
    return None if total is None or not amount else total / amount


def _checked_units(units: dict[str, float]) -> dict[str, float]:
    for name, amount in units.items():
        if not WORD.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a unit: lower-case letters, digits, - and _")
        _require(name, amount, 0.0, 9e12)
    return {name: float(amount) for name, amount in units.items()}


def _require(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:  # refuses "nan" too
        raise ValueError(f"{name} is {value!r}; it must lie between {low:g} and {high:g}")


def _from_environment(name: str, low: float, high: float, reasons: list[str]) -> float | None:
    """A number from the environment; what is none is a reason, not an error: the user's code did not write it."""
    text = os.environ.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if low <= value <= high:
        return value
    reasons.append(f"{name} is not a number between {low:g} and {high:g}")
    return None
