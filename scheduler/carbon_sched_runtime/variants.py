"""Runs one of a job's variants: the one that policy and measurements speak for, tried on a small slice before.

    python -m carbon_sched_runtime.variants 'python infer.py'

What there is to choose from stands in CARBON_SCHED_VARIANTS (JSON): the arguments of each variant, the baseline first,
the floor of quality, and what the ledger knows of them. Whichever was never measured is tried: the entrypoint runs
with its arguments and CARBON_SCHED_SLICE, the number of items it is to do; it tells its work in windows
(`window("w", images=n)`) and its quality by `report`. The variant that is chosen for what is known of it is tried as
well, so that a missing file or a crash is met before the work begins. What fails or lies below the floor is named on
standard error and in the receipt, and does not serve; in the end the baseline does. The chosen one takes this process's
place.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

from carbon_sched_runtime import windows
from carbon_sched_runtime.run import journal_folder
from carbon_sched_runtime.window_file import LIMIT, WindowRecord, parse_windows, windows_name

MARK = "variant:"
VARIANTS, SLICE, ATTEMPT = "CARBON_SCHED_VARIANTS", "CARBON_SCHED_SLICE", "CARBON_SCHED_ATTEMPT"
TRIAL_S = 900
MICRO = 1_000_000
TRIED, SERVED, FAILED, BELOW_FLOOR = "variant-tried", "variant-served", "variant-failed", "variant-below-floor"


@dataclass(frozen=True)
class Found:
    """What is known of a variant: joules for one item and quality; None for what was not measured."""

    joules: float | None
    quality: float | None


@dataclass(frozen=True)
class Offer:
    """What there is to choose from. `least_gain` is the share of energy that a variant must save, 0.03 for 3 %."""

    arguments: dict[str, str]
    metric: str
    floor: float
    at_least: bool
    item: str
    slice: int
    choose: str
    least_gain: float
    known: dict[str, Found] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """The first."""
        return next(iter(self.arguments))

    def keeps_floor(self, found: Found) -> bool:
        """Whether a variant's quality is known and good enough."""
        if found.quality is None:
            return False
        return found.quality >= self.floor if self.at_least else found.quality <= self.floor


def parse_offer(text: str) -> Offer:
    """From JSON as the server wrote it."""
    told = json.loads(text)
    known = {name: Found(one["joules"], one["quality"]) for name, one in told.pop("known").items()}
    return Offer(**told, known=known)


def chosen(offer: Offer, found: dict[str, Found]) -> str:
    """The variant that is to serve, by what is known; the baseline where nothing speaks for another.

    `best`: of the highest quality. `leanest`: of the least energy per item among those that keep the floor, if that is
    less than the baseline's by more than `least_gain`; energy that was not measured speaks for nothing.
    """
    keeping = {name: one for name, one in found.items() if name in offer.arguments and offer.keeps_floor(one)}
    order = [name for name in offer.arguments if name in keeping]
    if offer.choose == "best":
        sign = 1 if offer.at_least else -1
        return max(order, key=lambda name: sign * (keeping[name].quality or 0.0), default=offer.baseline)
    lean = {name: keeping[name].joules or 0.0 for name in order if keeping[name].joules}
    leanest = min(lean, key=lambda name: lean[name], default=offer.baseline)
    if offer.baseline in keeping or offer.baseline not in found:
        base = lean.get(offer.baseline)
        return leanest if base is not None and lean[leanest] < base * (1 - offer.least_gain) else offer.baseline
    return leanest


class Trials:
    """Tries variants until it is clear which one is to serve."""

    def __init__(self, offer: Offer, entrypoint: str) -> None:
        self.offer, self.entrypoint = offer, entrypoint
        self.found = dict(offer.known)
        self.tried: set[str] = set()

    def choose(self) -> str:
        """The variant that is to serve; it worked a moment ago, or is the baseline."""
        for name in self.offer.arguments:
            if name not in self.found:
                self.attempt(name)
        while True:
            name = chosen(self.offer, self.found)
            if name in self.tried or name == self.offer.baseline:
                return name
            self.attempt(name)

    def attempt(self, name: str) -> None:
        """Run a variant on the slice; what is known of it afterwards, nothing where it failed."""
        self.tried.add(name)
        before = len(_records())
        self.mark(name, TRIED)
        problem = self._run(name)
        records = _records()[before:]
        seen = measured(records, self.offer)
        if not problem and seen.quality is None:
            problem = f"it did not report {self.offer.metric}"
        if problem:
            self.found.pop(name, None)
            _say(f"variant {name} failed when it was tried and does not serve: {problem}")
            self.mark(name, FAILED)
            return
        known = self.offer.known.get(name)
        # What the ledger measured over real work, of the attempt alone, is not outdone by a busy neighbour of a slice.
        self.found[name] = Found(known.joules, seen.quality) if known and known.joules else seen
        told = "unknown energy" if seen.joules is None else f"{seen.joules:.4g} J per {self.offer.item}"
        _say(f"variant {name}, tried: {told}, {self.offer.metric} {seen.quality:.4g}")
        if not self.offer.keeps_floor(seen):
            _say(f"variant {name} lies below the floor of quality and does not serve")
            self.mark(name, BELOW_FLOOR)

    def mark(self, name: str, outcome: str) -> None:
        """Tell, as a window of no length, what became of a variant."""
        run = command(self.entrypoint, self.offer.arguments[name])
        windows.Window(mark_name(name, run), {outcome: 1.0}).start().stop()

    def _run(self, name: str) -> str:
        """What went wrong; empty when nothing did."""
        try:
            done = subprocess.run(  # noqa: S602 - the job's own command, run as Ray would
                command(self.entrypoint, self.offer.arguments[name]),
                shell=True, env={**os.environ, SLICE: str(self.offer.slice)}, timeout=TRIAL_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"it did not end within {TRIAL_S} s"
        return f"it ended with exit code {done.returncode}" if done.returncode else ""


def measured(records: list[WindowRecord], offer: Offer) -> Found:
    """What the windows of one trial come to: joules of those that count items, and the newest word on quality."""
    names = {offer.item, f"{offer.item}s"}
    work = [(record, sum(micro for unit, micro in record.units if unit in names)) for record in records]
    counted = [(record.energy_uj, micro) for record, micro in work if micro]
    told = [micro / MICRO for record in records if record.name == windows.QUALITY for metric, micro in record.units
            if metric == offer.metric]  # fmt: skip
    energies = [energy for energy, _ in counted if energy is not None]
    whole = sum(micro for _, micro in counted)
    joules = (
        sum(energies) / whole if whole and len(energies) == len(counted) else None
    )  # uJ per millionth is J per item
    return Found(joules, told[-1] if told else None)


def command(entrypoint: str, arguments: str) -> str:
    """The shell's command of a variant."""
    return f"{entrypoint} {arguments}".rstrip()


def mark_name(name: str, run: str) -> str:
    """How the ledger knows a variant: by its name and the command it runs, so that another command is another one."""
    return f"{MARK}{name}:{hashlib.sha256(run.encode()).hexdigest()[:12]}"


def _records() -> list[WindowRecord]:
    """The windows of this attempt so far."""
    attempt = os.environ.get(ATTEMPT, "")
    try:
        with open(os.path.join(journal_folder(), windows_name(attempt)), "rb") as file:
            return list(parse_windows(file.read(LIMIT), attempt).windows)
    except FileNotFoundError:
        return []


def _say(text: str) -> None:
    print(f"carbon-sched: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Choose, tell, and become the chosen variant."""
    offer = parse_offer(os.environ[VARIANTS])
    trials = Trials(offer, sys.argv[1])
    name = trials.choose()
    _say(f"variant {name} serves")
    trials.mark(name, SERVED)
    os.execv("/bin/sh", ["/bin/sh", "-c", command(sys.argv[1], offer.arguments[name])])  # noqa: S606 - as the wrapper does


if __name__ == "__main__":
    main()
