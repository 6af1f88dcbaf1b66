"""The form of a policy file, `apiVersion: carbon-sched/v1`: what may stand in it and what each key means.

Every description here is what a wrong value's error message tells the author, so it says what to write. The JSON Schema
made from these forms (`carbon-sched policy schema`, `policies/policy.schema.json`) is what editors complete and check.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from carbon_sched.domain.job import Phase

API_VERSION = "carbon-sched/v1"
LONGEST_DELAY_S = 30 * 86_400
"""No forecast and no climatology is worth more patience than a month."""
MOST_RULES = 500

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SECONDS = (86_400, 3_600, 60, 1)
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def duration_s(value: Any) -> float:
    """Seconds of a duration such as `90s`, `45m`, `6h`, `1d12h`, or plain 0; raises ValueError for anything else."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str):
        raise ValueError("a duration needs a unit")  # noqa: TRY004 - pydantic reports ValueError, not TypeError
    match = _DURATION.fullmatch(value)
    if not match or not value:
        raise ValueError("not a duration")
    return float(sum(int(part) * unit for part, unit in zip(match.groups(), _SECONDS, strict=True) if part))


def _bounded(seconds: float) -> float:
    if seconds > LONGEST_DELAY_S:
        raise ValueError(f"longer than {LONGEST_DELAY_S // 86_400} days")
    return seconds


Duration = Annotated[
    float,
    BeforeValidator(duration_s),
    AfterValidator(_bounded),
    WithJsonSchema(
        {"anyOf": [{"const": 0}, {"type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"}]}
    ),
]


def _one_line(text: str) -> str:
    if any(not character.isprintable() for character in text):
        raise ValueError("holds a line break or a control character")
    return text


def minutes(value: str) -> int:
    """Minutes after midnight of `HH:MM`; raises ValueError for anything else."""
    match = _CLOCK.fullmatch(value)
    if not match:
        raise ValueError("not a time of day")
    return 60 * int(match[1]) + int(match[2])


def _time_of_day(value: str) -> str:
    minutes(value)
    return value


def _iana_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not a zone of the IANA time zone database") from None
    return value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Line = Annotated[str, AfterValidator(_one_line), Field(min_length=1, max_length=200)]
Lines = Annotated[list[Line], Field(max_length=1000)]
PhaseName = Literal["pretraining", "finetuning", "inference-batch", "inference-online", "evaluation", "other"]
_ONE_OR_MORE: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
Several = Annotated[Lines, BeforeValidator(_several), WithJsonSchema(_ONE_OR_MORE)]
SeveralPhases = Annotated[list[PhaseName], BeforeValidator(_several)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Weight = Annotated[float, Field(ge=0, le=1e6)]


class Form(BaseModel):
    """Unknown keys are refused, and values are taken as they are written, never converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class FlexibilityForm(Form):
    """Who may be delayed, how long, and with what certainty a deadline is kept."""

    max_delay: Duration = Field(
        0.0, description="Longest wait of a job that declares nothing itself: 0, or a duration like 30m, 6h, 1d12h."
    )
    max_delay_of_duration: float = Field(
        0.0,
        ge=0,
        le=100,
        description="The same as a share of the expected run time: 0.25 is a quarter; the longer holds.",
    )
    declared: Literal["honour", "ignore"] = Field(
        "honour", description="What becomes of a job's own deadline or longest delay: honour or ignore."
    )
    deadline_confidence: float = Field(
        0.95, ge=0.5, le=0.999, description="Certainty with which a delayed job still meets its deadline, 0.5 to 0.999."
    )
    interruptible: bool = Field(
        default=True, description="Whether jobs that say that they may be suspended are: true or false."
    )
    max_pauses: int = Field(24, ge=0, le=1000, description="How often one job is suspended at most: 0 to 1000.")
    pause_gain: float = Field(
        0.02, ge=0, lt=1, description="Share that a pause must save of what running on would emit meanwhile, 0 to 1."
    )
    pause_confidence: float = Field(
        0.9,
        ge=0.5,
        le=0.999,
        description="Certainty with which a pause saves more than its restart and repeated work cost, 0.5 to 0.999.",
    )
    run_between_pauses: float = Field(
        3.0, ge=0, le=1000, description="A job runs for so many times the cost of a pause before the next one."
    )
    retries: int = Field(
        2,
        ge=0,
        le=100,
        description="Attempts after the first, for faults of the infrastructure: a whole number to 100.",
    )
    start_now: bool = Field(default=True, description="Whether a submitter may skip the wait: true or false.")
    variants: Literal["leanest", "best"] = Field(
        "leanest",
        description="Which of the variants that a job names serves: leanest (that keeps its floor of quality) or best.",
    )


class WeightsForm(Form):
    """What weighs how much when candidates are compared; in grams while carbon weighs 1."""

    carbon: Weight = Field(1.0, description="Weight of one gram of CO2e: a number, 1 unless others are given in grams.")
    cost: Weight = Field(
        0.0, description="Grams of CO2e that one unit of currency is worth: a number, 0 to ignore cost."
    )
    waiting: Weight = Field(
        0.0, description="Grams of CO2e that one hour of waiting is worth: a number, 0 to ignore it."
    )


class SignalForm(Form):
    """Which grid signal decides, and what to do without one, or with an old one."""

    kind: Literal["average", "marginal"] = Field(
        "average",
        description="What all clusters and hours are ranked by: average or marginal intensity. Booked is the average.",
    )
    basis: Literal["lifecycle", "direct"] | None = Field(
        None, description="Its basis: lifecycle or direct; without one, lifecycle for average, any for marginal."
    )
    on_missing: Literal["fallback", "run-now"] = Field(
        "fallback",
        description="Without live signal or forecast: fallback (yearly averages, graded lower) or run-now (no wait).",
    )
    max_age: Duration | None = Field(
        None, description="A signal that was issued longer ago counts as missing: a duration like 3h."
    )


class ClustersForm(Form):
    """Where jobs may run, by the names of clusters."""

    allowed: Lines | None = Field(None, description="The only clusters that may be used, as a list of names.")
    denied: Lines = Field([], description="Clusters that may not be used, as a list of names.")
    preferred: Lines = Field(
        [], description="Clusters that a job leaves only for minimum_gain or more, as a list of names."
    )
    home: Line | None = Field(
        None, description="Where jobs would run without a scheduler, which savings are told against: a cluster's name."
    )
    max_price_per_gpu_hour: float | None = Field(
        None, gt=0, description="Dearer clusters are out: a price in the currency of the clusters' own prices."
    )


class DataForm(Form):
    """Where data may go."""

    residency: Lines = Field([], description="Jobs run only on clusters with one of these tags, as a list: [EU].")
    classes: dict[Line, Lines] = Field(
        {}, description="Tags by the job's label `data-class`, as a mapping: {personal: [EU]}."
    )


class QueueForm(Form):
    """Who goes first."""

    priority: Literal["low", "normal", "high", "urgent"] = Field(
        "normal", description="Class in the queue: low, normal, high or urgent."
    )
    share: float = Field(1.0, gt=0, le=1000, description="Weight among teams of the same class: a number above 0.")


class QuietHoursForm(Form):
    """Hours in which no job starts."""

    begin: Annotated[str, AfterValidator(_time_of_day)] = Field(
        alias="from", description="First minute, local time: 'HH:MM'."
    )
    end: Annotated[str, AfterValidator(_time_of_day)] = Field(
        alias="to", description="First minute after them, local time: 'HH:MM'; earlier than `from` runs over midnight."
    )
    zone: Annotated[str, AfterValidator(_iana_zone)] = Field(description="An IANA time zone, like Europe/Berlin.")
    days: list[Day] = Field(
        list(DAYS), min_length=1, description="Days they begin on, as a list of mon, tue, wed, thu, fri, sat, sun."
    )

    @model_validator(mode="after")
    def _some_hours(self) -> QuietHoursForm:
        if self.begin == self.end:
            raise ValueError(
                "from and to are the same: that is no time or all day; use clusters.denied to shut a place"
            )
        return self


class RuntimeEnvForm(Form):
    """What jobs may ask of Ray's runtime environment."""

    allowed: Lines | None = Field(
        None, description="The only keys of runtime_env that jobs may use, as a list: [pip, env_vars]."
    )


class SettingsForm(Form):
    """Everything that can be set for all jobs, for a phase or by a rule."""

    flexibility: FlexibilityForm = Field(
        FlexibilityForm(), description="Who may be delayed and how long, as a mapping."
    )
    weights: WeightsForm = Field(WeightsForm(), description="What weighs how much, as a mapping.")
    minimum_gain: float = Field(
        0.0, ge=0, lt=1, description="Share of CO2e that waiting or moving must promise to save: 0.03 is 3 %."
    )
    signal: SignalForm = Field(SignalForm(), description="Which grid signal decides, as a mapping.")
    clusters: ClustersForm = Field(ClustersForm(), description="Where jobs may run, as a mapping.")
    data: DataForm = Field(DataForm(), description="Where data may go, as a mapping.")
    queue: QueueForm = Field(QueueForm(), description="Who goes first, as a mapping.")
    quiet_hours: list[QuietHoursForm] = Field(
        [], max_length=50, description="When no job starts, as a list of {from, to, zone, days}."
    )
    runtime_env: RuntimeEnvForm = Field(RuntimeEnvForm(), description="What jobs may ask of Ray, as a mapping.")


class PhasesForm(Form):
    """Settings of single life-cycle phases; each replaces the file's own, key by key."""

    pretraining: SettingsForm | None = Field(None, description="Settings of pre-training, as a mapping.")
    finetuning: SettingsForm | None = Field(None, description="Settings of fine-tuning, as a mapping.")
    inference_batch: SettingsForm | None = Field(
        None, alias="inference-batch", description="Settings of offline inference, as a mapping."
    )
    inference_online: SettingsForm | None = Field(
        None, alias="inference-online", description="Settings of serving, as a mapping."
    )
    evaluation: SettingsForm | None = Field(None, description="Settings of evaluation, as a mapping.")
    other: SettingsForm | None = Field(None, description="Settings of jobs without a phase, as a mapping.")


class WhenForm(Form):
    """Which jobs a rule is for: every key that is given must hold."""

    team: Several = Field([], description="One team, or a list of which any may be meant.")
    project: Several = Field([], description="One project, or a list.")
    submitter: Several = Field([], description="One submitter, or a list.")
    model: Several = Field([], description="One model, or a list.")
    stage: Several = Field([], description="One stage of fine-tuning, like rlhf, or a list.")
    phase: SeveralPhases = Field([], description=f"One phase, or a list: {', '.join(phase.value for phase in Phase)}.")
    labels: dict[Line, Line] = Field({}, description="Metadata of the job that must be just so, as a mapping.")
    gpus_at_least: float = Field(0.0, ge=0, description="Fewest GPUs of the whole job: a number.")
    gpus_at_most: float | None = Field(None, ge=0, description="Most GPUs of the whole job: a number.")


class RuleForm(Form):
    """Settings for the jobs that are meant; later rules win."""

    when: WhenForm = Field(description="Which jobs, as a mapping: {team: vision, gpus_at_least: 8}.")
    settings: SettingsForm = Field(alias="set", description="What holds for them, as a mapping.")


class BudgetOfForm(Form):
    """Whose emissions a budget counts: every key that is given must hold; {} counts all jobs."""

    team: Several = Field([], description="One team, or a list.")
    project: Several = Field([], description="One project, or a list.")
    model: Several = Field([], description="One model, or a list.")


class BudgetForm(Form):
    """A quota of emissions or IT energy for a period."""

    name: Name = Field(description="Lowercase letters, digits and hyphens, at most 63.")
    of: BudgetOfForm = Field(description="Whose, as a mapping: {team: vision}; {} for everybody.")
    every: Literal["week", "month", "quarter", "year"] = Field(
        description="When it begins anew: every week, month, quarter or year."
    )
    zone: Annotated[str, AfterValidator(_iana_zone)] = Field(
        "UTC", description="Where that is midnight: an IANA time zone, like Europe/Berlin."
    )
    co2e_kg: float | None = Field(None, gt=0, le=1e9, description="Kilograms of CO2e: a number above 0.")
    energy_kwh: float | None = Field(None, gt=0, le=1e9, description="Kilowatt-hours of IT energy: a number above 0.")
    over: Literal["warn", "hold", "approve", "deny"] = Field(
        "warn", description="What becomes of a job that has no room: warn, hold, approve or deny."
    )

    @model_validator(mode="after")
    def _limited(self) -> BudgetForm:
        if self.co2e_kg is None and self.energy_kwh is None:
            raise ValueError("limits nothing; give co2e_kg, energy_kwh or both")
        return self


class PolicyForm(SettingsForm):
    """One policy file."""

    api_version: Literal["carbon-sched/v1"] = Field(alias="apiVersion", description=f"Write {API_VERSION}.")
    name: Name = Field(description="Lowercase letters, digits and hyphens, at most 63, as the name in --policy.")
    description: Annotated[str, AfterValidator(_one_line)] = Field(
        "", max_length=200, description="One line of at most 200 characters that says what the policy is for."
    )
    extends: Name | None = Field(None, description="The policy whose values hold where this one is silent: its name.")
    team: Line | None = Field(
        None,
        description="The team whose jobs follow this policy unless they name another; '*' for every team without one.",
    )
    phases: PhasesForm = Field(PhasesForm(), description="Phases with settings of their own, as a mapping.")
    rules: list[RuleForm] = Field(
        [], max_length=MOST_RULES, description="Settings for some jobs, as a list of {when, set}."
    )
    budgets: list[BudgetForm] = Field(
        [], max_length=MOST_RULES, description="Quotas, as a list of {name, of, every, co2e_kg, energy_kwh, over}."
    )
    locked: Lines = Field([], description="Keys that policies which extend this one may only tighten, as a list.")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a policy file, for editors; what it cannot say, loading checks on top."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "carbon-sched policy"}
    return PolicyForm.model_json_schema(by_alias=True) | dialect
