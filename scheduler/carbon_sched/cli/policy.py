"""Commands about policies: what is in force, what it means for a job, checking and applying files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carbon_sched.cli.backtest import backtest
from carbon_sched.cli.output import fail, json_option, print_json, say
from carbon_sched.domain.errors import InvalidFile, InvalidInput
from carbon_sched.domain.units import PPM

if TYPE_CHECKING:
    from carbon_sched.domain.errors import Problem
    from carbon_sched.policy.model import Policy
    from carbon_sched.wire import EffectiveView, PolicyRequest, RollbackRequest

POLICY_FILE = click.Path(path_type=Path, dir_okay=False)
reason_option = click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the ledger.")


@click.group()
def policy() -> None:
    """See, check and apply the rules that jobs follow.

    \b
    Example:
      carbon-sched policy list
    """


@policy.command("list")
@json_option
def list_policies(as_json: bool) -> None:
    """Show every policy that a job can follow.

    \b
    Example:
      carbon-sched policy list
    """
    from carbon_sched.cli.connection import connect

    views = connect().client.policies()
    if as_json:
        print_json(views)
    else:
        from carbon_sched.cli import render, render_policy

        render.show(render_policy.policies(views))


@policy.command()
@click.argument("name")
@click.option("--versions", is_flag=True, help="Every version of it, newest first.")
@json_option
def show(name: str, versions: bool, as_json: bool) -> None:
    """Show a policy: its text, who applied it and when.

    \b
    Example:
      carbon-sched policy show balanced
    """
    from carbon_sched.cli.connection import connect

    client = connect().client
    views = client.policy_versions(name) if versions else [client.policy(name)]
    if as_json:
        print_json(views if versions else views[0])
        return
    from carbon_sched.cli import render, render_policy

    if versions:
        render.show(render_policy.versions(views))
    else:
        say(render_policy.applied(views[0]))
        click.echo(_text_of(name), nl=False)


@policy.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=POLICY_FILE)
@json_option
def validate(files: tuple[Path, ...], as_json: bool) -> int:
    """Check policy files, here, without a server.

    A file may extend a preset or another one of the files. Exits 120 if any of them cannot be used.

    \b
    Example:
      carbon-sched policy validate acme.yaml vision.yaml
    """
    rows = []
    for file in files:
        name, problems = _checked(file, files)
        rows.append({"file": str(file), "name": name, "problems": [vars(problem) for problem in problems]})
        if not as_json and problems:
            fail("\n".join(map(str, problems)))
        elif not as_json:
            click.echo(f"{file}: {name} is a valid policy")
    valid = not any(row["problems"] for row in rows)
    if as_json:
        print_json({"ok": valid, "files": rows})
    return 0 if valid else InvalidFile.exit_code


@policy.command()
@click.argument("what", metavar="JOB|SCRIPT|job.yaml")
@click.option("--team", metavar="NAME", help="Of a script or job.yaml: as if this were its team.")
@click.option("--policy", "name", metavar="NAME", help="Of a script or job.yaml: as if it named this policy.")
@click.option("--set-only", is_flag=True, help="Leave out what no file sets.")
@json_option
def explain(what: str, team: str | None, name: str | None, set_only: bool, as_json: bool) -> None:
    """Show what holds for a job, with the file and line of every value.

    \b
    Examples:
      carbon-sched policy explain nightly
      carbon-sched policy explain examples/quickstart/train.py --team vision
    """
    view = _effective(what, {"team": team, "policy": name})
    if set_only:
        view["settings"] = [row for row in view["settings"] if row["place"]]
    if as_json:
        print_json(view)
    else:
        from carbon_sched.cli import render, render_policy

        render.show(render_policy.effective(view))


@policy.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
def diff(before: str, after: str) -> int:
    """Show what differs between two policies: names, NAME@VERSION, or files.

    First their texts, then what holds for jobs. Exits 0 when nothing differs, else 1.

    \b
    Example:
      carbon-sched policy diff balanced my-policy.yaml
    """
    from difflib import unified_diff

    from carbon_sched.policy.differing import differing

    one, other = _text_of(before), _text_of(after)
    lines = list(unified_diff(one.splitlines(keepends=True), other.splitlines(keepends=True), before, after))
    if not lines:
        return 0
    click.echo("".join(lines))
    from carbon_sched.cli import render, render_policy

    render.show(render_policy.differences(differing(_parsed(one, before), _parsed(other, after))))
    return 1


@policy.command()
@click.argument("file", type=POLICY_FILE)
@reason_option
@click.option("--dry-run", is_flag=True, help="Only say whether the server would take it.")
@click.option(
    "--require-backtest",
    is_flag=True,
    help="Refuse what would have made CO2e or deadline misses of the last 28 days' jobs worse.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    metavar="SHARE",
    help="By how much they may be worse: a share of the CO2e, and of the jobs.",
)
@json_option
def apply(file: Path, reason: str, dry_run: bool, require_backtest: bool, margin: float, as_json: bool) -> None:
    """Put a policy file in force, for every decision from now on.

    It becomes a new version of the policy that it names; `policy rollback` brings the one before back.

    \b
    Examples:
      carbon-sched policy apply acme.yaml --reason "batch inference may wait"
      carbon-sched policy apply acme.yaml --require-backtest --margin 0.02
    """
    from carbon_sched.cli.connection import connect

    request: PolicyRequest = {"content": _read(file), "reason": reason}
    if require_backtest:
        request["backtest_margin_ppm"] = round(margin * PPM)
    view = connect().client.apply_policy(request, dry_run=dry_run)
    found = view["backtest"]
    if found is not None and not as_json:
        say(f"backtest: {found['told']}")
    if as_json:
        print_json(view)
    elif dry_run and found is not None and found["worse"]:
        say(f"{file} would be refused: that is worse than the margin allows")
    elif dry_run:
        say(f"{file} could be applied as {view['label']}; nothing was")
    else:
        say(f"{view['name']} is in force as version {view['version']} ({view['label']})")


@policy.command()
@click.argument("name")
@click.option("--to", type=int, metavar="VERSION", help="Which one; by default the one before.")
@reason_option
@json_option
def rollback(name: str, to: int | None, reason: str, as_json: bool) -> None:
    """Bring an earlier version of a policy back.

    \b
    Example:
      carbon-sched policy rollback acme --reason "jobs waited too long"
    """
    from carbon_sched.cli.connection import connect

    request: RollbackRequest = {"to": to, "reason": reason}
    view = connect().client.roll_back_policy(name, request)
    if as_json:
        print_json(view)
    else:
        say(f"{name} is in force as it was in version {view['restored']}, now as version {view['version']}")


@policy.command()
@click.argument("cases", type=POLICY_FILE)
@click.option("--policy", "files", multiple=True, type=POLICY_FILE, help="A policy as if it were applied. Repeatable.")
@json_option
def test(cases: Path, files: tuple[Path, ...], as_json: bool) -> int:
    """Decide a file of cases by policies, here, without a server.

    Each case states a job and what must become of it; clusters and grid stand in the file. The scheduler's own code
    decides. Exits 1 if any case comes out otherwise.

    \b
    Example:
      carbon-sched policy test cases.yaml --policy acme.yaml --policy vision.yaml
    """
    from carbon_sched.policy.presets import preset
    from carbon_sched.simulate.cases import of_files, run_cases, told

    outcomes = run_cases(cases, of_files([_load(file, files) for file in files], preset))
    failed = [outcome for outcome in outcomes if outcome.problems]
    if as_json:
        print_json([told(outcome) for outcome in outcomes])
    for outcome in [] if as_json else outcomes:
        click.echo(f"{'FAILED' if outcome.problems else 'passed'}  {outcome.name}")
        for problem in outcome.problems:
            click.echo(f"        {problem}: {outcome.decision.reason}")
    if not as_json:
        say(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


@policy.command()
def schema() -> None:
    """Print the JSON Schema of policy files, for editors.

    \b
    Example:
      carbon-sched policy schema > policy.schema.json
    """
    from carbon_sched.policy.schema import json_schema

    print_json(json_schema())


policy.add_command(backtest)


# reading -----------------------------------------------------------------------------------------


def _read(file: Path) -> str:
    from carbon_sched.policy.document import read_document

    return read_document(file).content.decode("utf-8-sig")


def _text_of(name: str) -> str:
    """The text of a file, of a preset, or of an applied policy."""
    from carbon_sched.cli.connection import connect
    from carbon_sched.policy.presets import preset_names, presets_folder

    if "/" in name or name.endswith((".yaml", ".yml")):
        return _read(Path(name))
    bare, _, version = name.partition("@")
    client = connect().client
    if not version and (text := client.policy(bare)["content"]) is not None:
        return text
    if not version and bare in preset_names():
        return (presets_folder() / f"{bare}.yaml").read_text(encoding="utf-8")
    for view in client.policy_versions(bare):
        if str(view["version"]) == version and view["content"] is not None:
            return view["content"]
    raise InvalidInput("policy", name, "is no version of it", f"See: carbon-sched policy show {bare} --versions")


def _parsed(text: str, name: str, above: tuple[str, ...] = ()) -> Policy:
    """A policy's text, with what it extends as it is in force."""
    from carbon_sched.policy.load import parse_policy

    def find(parent: str) -> Policy:
        if parent in above:
            raise InvalidInput("extends", parent, "extends itself through others", "Break the circle")
        return _parsed(_text_of(parent), parent, (*above, parent))

    return parse_policy(text.encode(), name, find)


def _checked(file: Path, files: tuple[Path, ...]) -> tuple[str | None, tuple[Problem, ...]]:
    """The name of the policy in a file, or None and what is wrong with it."""
    try:
        return _load(file, files).name, ()
    except InvalidFile as error:
        return None, error.problems


def _load(file: Path, files: tuple[Path, ...], above: tuple[Path, ...] = ()) -> Policy:
    """A policy whose file may extend presets and the other files."""
    from carbon_sched.policy.load import load_policy
    from carbon_sched.policy.presets import preset

    def find(name: str) -> Policy:
        for other in files:
            if other not in (file, *above) and _name_in(other) == name:
                return _load(other, files, (*above, file))
        return preset(name)

    return load_policy(file, find)


def _name_in(file: Path) -> str | None:
    from carbon_sched.policy.document import read_document

    try:
        values = read_document(file).values
    except InvalidFile:  # told of by its own check
        return None
    return values.get("name") if isinstance(values, dict) else None


def _effective(what: str, changes: dict[str, str | None]) -> EffectiveView:
    """Of a submitted job, else of a script or job file as it would be submitted."""
    from carbon_sched.cli.connection import connect, find_job

    client = connect().client
    if not Path(what).is_file():
        return client.job_policy(find_job(client, what)["job_id"])
    from carbon_sched.cli.job_source import read_job
    from carbon_sched.cli.submit import request_of
    from carbon_sched.options.given import Given

    flags = {key: Given(value, f"--{key}") for key, value in changes.items() if value is not None}
    source = read_job([what], is_command=False, flags=flags, environment={}, file=None)
    return client.effective_policy(request_of(source).request)
