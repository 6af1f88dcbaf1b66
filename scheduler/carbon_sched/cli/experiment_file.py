"""What an experiment is: variants of one job, run several times in an order drawn from a seed. Read from YAML; pure.

    apiVersion: carbon-sched/v1
    name: int8
    script: infer.py
    per: token
    repeats: 3
    cool_down: 5s
    prepare:
      - {name: train, args: [train, "{folder}/model.npz"]}
    variants:
      - {name: baseline, args: ["{folder}/model.npz"]}
      - {name: int8, args: ["{folder}/model.npz", --bits, "8"]}

In `args`, {folder} is a folder that all runs share, and {repeat} counts the repeats from 1.
"""

from __future__ import annotations

import random  # noqa: TID251 - seeded by the file, so that the order can be drawn again
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from carbon_sched.domain.errors import InvalidFile, Problem
from carbon_sched.options.request import known_options
from carbon_sched.policy.document import read_document
from carbon_sched.policy.problems import validated
from carbon_sched.policy.schema import Duration, Form, Line, Name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from carbon_sched.policy.document import Document

FOLDER, REPEAT = "{folder}", "{repeat}"
OURS = ("name", "metadata")
"""Options of a job that the experiment itself sets."""

Args = Annotated[list[str], Field(max_length=200)]


class LiteratureForm(Form):
    """What others found."""

    energy: Literal["less", "more", "same"] = Field(
        description="Against the first variant: less, more, or same (no gain)."
    )
    source: Line = Field(description="Who found it, in a line.")


class StepForm(Form):
    """A run that makes what variants need; its energy is told apart."""

    name: Name = Field(description="A name of letters, digits and -: train.")
    args: Args = Field([], description="Arguments of the script, as a list of text.")


class VariantForm(Form):
    """One way to do the work."""

    name: Name = Field(description="A name of letters, digits and -: int8.")
    args: Args = Field([], description="Arguments of the script, as a list of text.")
    made_by: list[Name] = Field([], description="Steps of `prepare` that only this variant needs, as a list of names.")
    literature: LiteratureForm | None = Field(None, description="What others found: {energy: less, source: TEXT}.")


class ExperimentForm(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    api_version: Literal["carbon-sched/v1"] = Field(alias="apiVersion", description="Write carbon-sched/v1.")
    name: Name = Field(description="A name of letters, digits and -: int8-against-fp32.")
    script: Line = Field(description="The script that every run executes, as seen from this file.")
    args: Args = Field([], description="Arguments before those of each variant, as a list of text.")
    job: dict[str, Any] = Field({}, description="Options of every run, with the keys of a job.yaml: {duration: 30s}.")
    per: Line = Field("job", description="The unit of work that is compared, such as token, or job.")
    repeats: int = Field(3, ge=1, le=100, description="How often each variant runs: a number; 3 or more tell chance.")
    seed: int = Field(0, ge=0, description="From which the order of runs is drawn: a whole number.")
    cool_down: Duration = Field(0.0, description="Rest between two runs: 0, or a duration like 10s.")
    folder: Line | None = Field(None, description="A folder for {folder}, as every cluster reaches it.")
    prepare: list[StepForm] = Field([], max_length=100, description="Steps that run once before, as a list.")
    variants: list[VariantForm] = Field(
        min_length=2, max_length=100, description="Two or more, as a list; the first is what others are compared with."
    )

    @property
    def shares_folder(self) -> bool:
        """Whether any run asks for the folder."""
        every: list[Args] = [self.args, *(step.args for step in self.prepare), *(one.args for one in self.variants)]
        return any(FOLDER in word for args in every for word in args)


@dataclass(frozen=True)
class Run:
    """One run: its place in the order, whose it is, and its arguments; `repeat` is 0 for a step of `prepare`."""

    number: int
    name: str
    repeat: int
    args: tuple[str, ...]


def read_experiment(path: Path) -> ExperimentForm:
    """Read a file; raises InvalidFile with every problem found, each with its line."""
    document = read_document(path)
    form = validated(document, ExperimentForm)
    if problems := [*_twice(form, document), *_unmade(form, document), *_options(form, document)]:
        raise InvalidFile(tuple(problems))
    return form


def runs_of(form: ExperimentForm, folder: str) -> Iterator[Run]:
    """The steps of `prepare` in their order; then complete blocks, each with every variant once in an order by lot.

    Blocks keep a machine that warms up, or is busier at noon, from favouring a variant (randomised complete block
    design; Fisher, The Design of Experiments, 1935).
    """
    steps = [(one, 0) for one in form.prepare]
    lot = random.Random(form.seed)  # noqa: S311 - an order, not a secret
    drawn: list[tuple[StepForm | VariantForm, int]] = [*steps]
    for repeat in range(1, form.repeats + 1):
        drawn += [(variant, repeat) for variant in lot.sample(form.variants, len(form.variants))]
    for number, (one, repeat) in enumerate(drawn, 1):
        words = (word.replace(FOLDER, folder).replace(REPEAT, str(repeat)) for word in (*form.args, *one.args))
        yield Run(number, one.name, repeat, tuple(words))


def _twice(form: ExperimentForm, document: Document) -> Iterator[Problem]:
    seen: set[str] = set()
    named = [(("prepare", number, "name"), step.name) for number, step in enumerate(form.prepare)]
    named += [(("variants", number, "name"), one.name) for number, one in enumerate(form.variants)]
    for location, name in named:
        if name in seen:
            yield _problem(document, location, f"names '{name}' twice", "Give each its own name")
        seen.add(name)


def _unmade(form: ExperimentForm, document: Document) -> Iterator[Problem]:
    steps = {step.name for step in form.prepare}
    for number, variant in enumerate(form.variants):
        for name in variant.made_by:
            if name not in steps:
                at = ("variants", number, "made_by")
                known = ", ".join(sorted(steps)) or "none: write them under `prepare`"
                yield _problem(document, at, f"names '{name}', which is no step of `prepare`", f"Steps are {known}")


def _options(form: ExperimentForm, document: Document) -> Iterator[Problem]:
    known = (known_options() | {"working-dir", "runtime-env"}) - set(OURS)
    for key in form.job:
        if key not in known:
            remedy = f"Known are: {', '.join(sorted(known))}"
            place = document.place(("job", key), key=True)
            yield Problem(document.file, place.line, place.column, f"job.{key}", "is not an option of a run", remedy)


def _problem(document: Document, location: tuple[str | int, ...], problem: str, remedy: str) -> Problem:
    place = document.place(location)
    return Problem(document.file, place.line, place.column, ".".join(map(str, location)), problem, remedy)
