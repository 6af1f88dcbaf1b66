"""The form of a policy file, `apiVersion: carbon-sched/v1`: what may stand in it and what each key means.

Every description here is what a wrong value's error message tells the author, so it says what to write.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from carbon_sched.domain.job import Phase
from carbon_sched.policy.model import Declared, OnMissing, Patience, Policy

API_VERSION = "carbon-sched/v1"
LONGEST_DELAY_S = 30 * 86_400
"""No forecast and no climatology is worth more patience than a month."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SECONDS = (86_400, 3_600, 60, 1)


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


Duration = Annotated[float, BeforeValidator(duration_s), AfterValidator(_bounded)]


def _one_line(text: str) -> str:
    if any(not character.isprintable() for character in text):
        raise ValueError("holds a line break or a control character")
    return text


class _Form(BaseModel):
    """Unknown keys are refused, and values are taken as they are written, never converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class PatienceForm(_Form):
    """How long jobs may wait for a cleaner hour; what is left out is as in the default."""

    max_delay: Duration | None = Field(
        None, description="Longest wait of a job that declares nothing itself: 0, or a duration like 30m, 6h, 1d12h."
    )
    declared: Literal["honour", "ignore"] | None = Field(
        None, description="What becomes of a job's own deadline or longest delay: honour or ignore."
    )

    def patience(self, default: Patience) -> Patience:
        """The frozen value, completed from `default`."""
        return Patience(
            max_delay_s=default.max_delay_s if self.max_delay is None else self.max_delay,
            declared=default.declared if self.declared is None else Declared(self.declared),
        )


class PhasesForm(_Form):
    """Rules of single life-cycle phases; each replaces the default key by key."""

    pretraining: PatienceForm | None = Field(None, description="Rules of pre-training, as a mapping.")
    finetuning: PatienceForm | None = Field(None, description="Rules of fine-tuning, as a mapping.")
    inference_batch: PatienceForm | None = Field(
        None, alias="inference-batch", description="Rules of offline inference, as a mapping."
    )
    inference_online: PatienceForm | None = Field(
        None, alias="inference-online", description="Rules of serving, as a mapping."
    )
    evaluation: PatienceForm | None = Field(None, description="Rules of evaluation, as a mapping.")
    other: PatienceForm | None = Field(None, description="Rules of jobs without a phase, as a mapping.")


class FlexibilityForm(PatienceForm):
    """The default for every phase, and the phases that differ from it."""

    phases: PhasesForm = Field(PhasesForm(), description="Phases with rules of their own, as a mapping.")


class SignalForm(_Form):
    """Which grid signal decides, and what to do without it."""

    on_missing: Literal["fallback", "run-now"] = Field(
        "fallback",
        description="Without live signal or forecast: fallback (yearly averages, graded lower) or run-now (no wait).",
    )


class PolicyForm(_Form):
    """One policy file."""

    api_version: Literal["carbon-sched/v1"] = Field(alias="apiVersion", description=f"Write {API_VERSION}.")
    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Lowercase letters, digits and hyphens, at most 63, as the name in --policy.",
    )
    description: Annotated[str, AfterValidator(_one_line)] = Field(
        "", max_length=200, description="One line of at most 200 characters that says what the policy is for."
    )
    flexibility: FlexibilityForm = Field(
        FlexibilityForm(), description="Who may be delayed and how long, as a mapping."
    )
    minimum_gain: float = Field(
        0.0, ge=0, lt=1, description="Share of CO2e that waiting or moving must promise to save: 0.03 is 3 %."
    )
    signal: SignalForm = Field(SignalForm(), description="Which grid signal decides, as a mapping.")

    def policy(self, *, digest: str, source: str) -> Policy:
        """The frozen value that the rest of the system uses."""
        default = self.flexibility.patience(Patience())
        forms = {phase: getattr(self.flexibility.phases, phase.name.lower()) for phase in Phase}
        return Policy(
            name=self.name,
            description=self.description,
            default=default,
            phases={phase: form.patience(default) for phase, form in forms.items() if form},
            minimum_gain=self.minimum_gain,
            on_missing=OnMissing(self.signal.on_missing),
            digest=digest,
            source=source,
        )
