"""What a policy can set, for one job: frozen values with their units, and what tightening each of them means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.intensity import Basis, Grade, Signal
from carbon_sched.domain.variant import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from carbon_sched.domain.intensity import Reading


class Declared(str, Enum):
    """What becomes of flexibility that a job declares itself (a deadline, a longest delay)."""

    HONOUR = "honour"
    IGNORE = "ignore"


class OnMissing(str, Enum):
    """What to do about time when there is no live signal and no forecast for a zone."""

    FALLBACK = "fallback"
    RUN_NOW = "run-now"


class Priority(str, Enum):
    """Classes of the queue; a higher one is placed first."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"

    @property
    def rank(self) -> int:
        """0 for `normal`; higher goes first."""
        return list(Priority).index(self) - 1


@dataclass(frozen=True)
class QuietHours:
    """Hours of the day in which no job starts: minutes after midnight, half open, on days (Monday is 0) of a zone.

    Hours that end before they begin run over midnight and belong to the day they begin on.
    """

    begin_min: int
    end_min: int
    zone: ZoneInfo
    days: frozenset[int] = frozenset(range(7))

    def end(self, at: datetime) -> datetime | None:
        """When the hours that cover an instant end, in its zone; None where it lies outside them."""
        if not self.covers(at):
            return None
        local = at.astimezone(self.zone)
        over = self.begin_min > self.end_min and local.hour * 60 + local.minute >= self.begin_min
        day = local + timedelta(days=1) if over else local
        hour, minute = divmod(self.end_min, 60)
        return day.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0).astimezone(at.tzinfo)

    def covers(self, at: datetime) -> bool:
        """Whether an instant lies within them."""
        local = at.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        if self.begin_min < self.end_min:
            return local.weekday() in self.days and self.begin_min <= minute < self.end_min
        yesterday = (local - timedelta(days=1)).weekday()
        return (local.weekday() in self.days and minute >= self.begin_min) or (
            yesterday in self.days and minute < self.end_min
        )


def after_quiet(hours: tuple[QuietHours, ...], at: datetime) -> datetime:
    """The first instant from `at` on that lies outside all of them; `at` itself where there is none within a week."""
    found = at
    for _ in range(7 * len(hours)):
        ends = [end for one in hours if (end := one.end(found)) is not None]
        if not ends:
            return found
        found = max(ends)
    return at


@dataclass(frozen=True)
class Settings:
    """The rules for one job.

    Attributes:
        max_delay_s: longest delay of a job that declares nothing itself; 0 places it at once.
        max_delay_of_duration: the same as a share of its expected run time; the longer of the two holds.
        declared: whether a job's own deadline or longest delay is used instead.
        deadline_confidence: probability in (0, 1) with which a delayed job must still meet its deadline.
        interruptible: whether jobs that say that they may be suspended are.
        max_pauses, pause_gain, pause_confidence, run_between_pauses: how often a job is suspended at most; the share
            that a pause must save of what running on would emit; with what probability it must save more than it costs;
            and for how many times that cost a job runs between two of them.
        retries: attempts after the first, for faults of the infrastructure and preemption only.
        start_now: whether a submitter may skip the wait (`submit --now`).
        variants: which of the variants that a job names serves.
        carbon_weight, cost_weight, waiting_weight: what a gram of CO2e, a unit of currency and an hour of waiting weigh
            in the comparison of candidates; in grams while carbon weighs 1.
        minimum_gain: share of the expected CO2e (0.03 = 3 %) that waiting or moving must promise to save.
        on_missing: what to do about time without live signal or forecast.
        ranked_signal, ranked_basis: what clusters and hours are ranked by, for all jobs alike (`domain.Ranking`).
        max_age_s: a signal issued longer ago than this counts as missing; None for any age.
        allowed, denied, preferred: clusters by name; None allows all. Leaving a preferred one must pay `minimum_gain`.
        home: the cluster that savings are told against; None for the one that is registered as home.
        max_price_per_gpu_hour: dearer clusters are out; None for any price.
        residency: the job may only run on clusters that carry one of these tags; empty for anywhere.
        data_classes: likewise by the job's label `data-class`, on top of `residency`.
        priority, share: class in the queue, and the team's weight among others of the same class.
        quiet_hours: when no job starts.
        runtime_env: keys of Ray's runtime environment that a job may use; None for all.
    """

    max_delay_s: float = 0.0
    max_delay_of_duration: float = 0.0
    declared: Declared = Declared.HONOUR
    deadline_confidence: float = 0.95
    interruptible: bool = True
    max_pauses: int = 24
    pause_gain: float = 0.02
    pause_confidence: float = 0.9
    run_between_pauses: float = 3.0
    retries: int = 2
    start_now: bool = True
    variants: Choice = Choice.LEANEST
    carbon_weight: float = 1.0
    cost_weight: float = 0.0
    waiting_weight: float = 0.0
    minimum_gain: float = 0.0
    on_missing: OnMissing = OnMissing.FALLBACK
    max_age_s: float | None = None
    ranked_signal: Signal = Signal.AVERAGE
    ranked_basis: Basis | None = None
    allowed: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()
    preferred: frozenset[str] = frozenset()
    home: str | None = None
    max_price_per_gpu_hour: float | None = None
    residency: frozenset[str] = frozenset()
    data_classes: Mapping[str, frozenset[str]] | None = None
    priority: Priority = Priority.NORMAL
    share: float = 1.0
    quiet_hours: tuple[QuietHours, ...] = ()
    runtime_env: frozenset[str] | None = None

    def delay_s(self, declared_s: float | None, duration_s: float) -> float:
        """Longest delay, in seconds, of a job that declared `declared_s` (None: nothing) and runs for `duration_s`."""
        if declared_s is None or self.declared is Declared.IGNORE:
            return max(self.max_delay_s, self.max_delay_of_duration * duration_s)
        return max(0.0, declared_s)

    def may_wait_on(self, signal: Reading, now: datetime) -> bool:
        """Whether a delay may be decided on what is said of now; where nothing is, only if the policy falls back."""
        forecast = signal.grade.rank <= Grade.OWN_FORECAST.rank
        fresh = self.max_age_s is None or (now - signal.issued_at).total_seconds() <= self.max_age_s
        return self.on_missing is OnMissing.FALLBACK or (forecast and fresh)

    def tags(self, data_class: str | None) -> dict[str, frozenset[str]]:
        """By key, the tags of which a cluster must carry one for a job whose data is of this class; each must hold.

        So a label never widens where data may go; a class that the policy does not know changes nothing.
        """
        asked = {
            "data.residency": self.residency,
            "data.classes": (self.data_classes or {}).get(data_class or "", frozenset()),
        }
        return {key: tags for key, tags in asked.items() if tags}


@dataclass(frozen=True)
class Key:
    """One key of a policy file: the attribute it sets, and the tighter of two of its values."""

    attribute: str
    tighter: Callable[[Any, Any], Any]


def _same(bound: Any, _value: Any) -> Any:
    """A choice has no order: what is locked stays."""
    return bound


def _within(bound: frozenset[str] | None, value: frozenset[str] | None) -> frozenset[str] | None:
    """Fewer are tighter; None stands for all."""
    if bound is None or value is None:
        return value if bound is None else bound
    return bound & value


def _one_of(bound: frozenset[str], value: frozenset[str]) -> frozenset[str]:
    """Fewer are tighter, and the empty set stands for anywhere; tags that share nothing leave the bound."""
    return (bound & value or bound) if bound and value else bound or value


def _with(bound: Any, value: Any) -> Any:
    """More are tighter."""
    return bound | value


def _both(bound: tuple[QuietHours, ...], value: tuple[QuietHours, ...]) -> tuple[QuietHours, ...]:
    return (*bound, *(hours for hours in value if hours not in bound))


def _classes(bound: Mapping[str, frozenset[str]] | None, value: Mapping[str, frozenset[str]] | None) -> Any:
    bound, value = bound or {}, value or {}
    return {name: _one_of(bound.get(name, frozenset()), value.get(name, frozenset())) for name in {**bound, **value}}


def _least(bound: float | None, value: float | None) -> float | None:
    """None stands for any."""
    return min((one for one in (bound, value) if one is not None), default=None)


def _lower(bound: Priority, value: Priority) -> Priority:
    return min(bound, value, key=lambda priority: priority.rank)


def _best(bound: Choice, value: Choice) -> Choice:
    return Choice.BEST if Choice.BEST in (bound, value) else Choice.LEANEST


def _ignore(bound: Declared, value: Declared) -> Declared:
    return Declared.IGNORE if Declared.IGNORE in (bound, value) else Declared.HONOUR


SHARED = frozenset({"signal.kind", "signal.basis"})
"""Keys that hold for all jobs alike, since the jobs of one plan are ranked by one signal."""
KEYS: Mapping[str, Key] = {
    "flexibility.max_delay": Key("max_delay_s", min),
    "flexibility.max_delay_of_duration": Key("max_delay_of_duration", min),
    "flexibility.declared": Key("declared", _ignore),
    "flexibility.deadline_confidence": Key("deadline_confidence", max),
    "flexibility.interruptible": Key("interruptible", min),
    "flexibility.max_pauses": Key("max_pauses", min),
    "flexibility.pause_gain": Key("pause_gain", max),
    "flexibility.pause_confidence": Key("pause_confidence", max),
    "flexibility.run_between_pauses": Key("run_between_pauses", max),
    "flexibility.retries": Key("retries", min),
    "flexibility.start_now": Key("start_now", min),
    "flexibility.variants": Key("variants", _best),
    "weights.carbon": Key("carbon_weight", _same),
    "weights.cost": Key("cost_weight", _same),
    "weights.waiting": Key("waiting_weight", _same),
    "minimum_gain": Key("minimum_gain", max),
    "signal.on_missing": Key("on_missing", _same),
    "signal.max_age": Key("max_age_s", _least),
    "signal.kind": Key("ranked_signal", _same),
    "signal.basis": Key("ranked_basis", _same),
    "clusters.allowed": Key("allowed", _within),
    "clusters.denied": Key("denied", _with),
    "clusters.preferred": Key("preferred", _same),
    "clusters.home": Key("home", _same),
    "clusters.max_price_per_gpu_hour": Key("max_price_per_gpu_hour", _least),
    "data.residency": Key("residency", _one_of),
    "data.classes": Key("data_classes", _classes),
    "queue.priority": Key("priority", _lower),
    "queue.share": Key("share", min),
    "quiet_hours": Key("quiet_hours", _both),
    "runtime_env.allowed": Key("runtime_env", _within),
}
