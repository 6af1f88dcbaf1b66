"""The options of `carbon-sched submit`, in the sections its help shows, and how its words are told apart."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from carbon_sched.cli.completion import complete_clusters
from carbon_sched.domain.errors import InvalidInput

PHASES = ("pretraining", "finetuning", "inference-batch", "inference-online", "evaluation", "other")
PLACEMENTS = ("pack", "spread", "strict-pack")
POLICIES = ("balanced", "cost-aware", "deadline-first", "eu-residency", "lowest-carbon", "run-now")

TEXT: dict[str, tuple[tuple[str, str, str], ...]] = {
    "What it is": (
        ("name", "TEXT", "Name of the job; the same name every time teaches what to expect of it."),
        ("phase", "PHASE", f"Part of a model's life: {', '.join(PHASES)}."),
        ("stage", "TEXT", "Stage within the phase, such as sft or rlhf."),
        ("model", "TEXT", "Model it belongs to."),
        ("project", "TEXT", "Project it belongs to."),
        ("team", "TEXT", "Team it belongs to."),
    ),
    "When it may run": (
        ("deadline", "TIME", "Must have ended by then: 18:00, +6h or RFC 3339."),
        ("max-delay", "DURATION", "May wait this long for a cleaner hour: 6h, 2d."),
        ("earliest", "TIME", "Must not start before."),
        ("duration", "DURATION", "How long it is expected to run: 90s, 1h30m, 2d."),
        ("power", "WATTS", "What it is expected to draw on average: 300, 1.2kW."),
        ("restart-cost", "DURATION", "With --interruptible: what a suspension costs in running time (default 2m)."),
        ("storage", "PLACE", "With --interruptible: its checkpoints, as every cluster it may use reaches them."),
    ),
    "Who goes first": (
        ("priority", "CLASS", "Class in the queue: low, or what the policy gives (normal, high, urgent)."),
        ("after", "JOB[:ok]", "Start only after this job has ended; with :ok, after its success only. Repeatable."),
        ("every", "CRON", 'Submit it again and again: "30 2 * * 1-5" is 02:30 on weekdays.'),
        ("tz", "ZONE", "Time zone of --every, such as Europe/Berlin; default: yours."),
        ("array", "FILE", "One job for each line of the file, whose words go behind the command's own."),
    ),
    "Which variant of it serves": (
        ("variant", "NAME=ARGS", "A way to do the work; the first is the baseline. Repeatable."),
        ("quality-floor", "FLOOR", "What a variant must keep: accuracy>=0.8, loss<=2.5."),
        ("item", "UNIT", "What its windows count, such as token: the leanest has the least energy for one."),
        ("slice", "N", "How many items a variant that was never measured is tried with (default 100)."),
    ),
    "Where it may run": (
        ("cluster", "NAME", "Only on this cluster. Repeatable."),
        ("policy", "NAME", f"Rules to follow: {', '.join(POLICIES)}, or one that was applied."),
        ("data", "URI=SIZE@ZONE", "Input that must reach the cluster: s3://b/c=50GB@DE. Repeatable."),
    ),
    "What its Ray tasks need": (
        ("workers", "N", "Number of workers, one bundle each."),
        ("gpus-per-worker", "N", "GPUs of each worker."),
        ("gpus", "N", "GPUs on one node, for a job without workers."),
        ("gpu-type", "TYPE", "Kind of GPU, such as H100."),
        ("gpu-memory", "SIZE", "Memory that each GPU must have: 40GB."),
        ("placement", "HOW", f"How workers lie on nodes: {', '.join(PLACEMENTS)}."),
    ),
    "What it must not tell": (
        ("secret", "NAME=file:PATH|env:VAR", "Variable that the server reads when it starts the job. Repeatable."),
    ),
    "As `ray job submit` takes it": (
        ("working-dir", "DIR|URI", "Folder (or remote zip) the job runs in; default: the script's project folder."),
        ("runtime-env", "FILE", "YAML file with a runtime_env."),
        ("runtime-env-json", "JSON", "runtime_env as JSON."),
        ("entrypoint-num-cpus", "N", "CPUs of the entrypoint itself."),
        ("entrypoint-num-gpus", "N", "GPUs of the entrypoint itself."),
        ("entrypoint-memory", "BYTES", "Memory of the entrypoint itself: bytes, or 16GiB."),
        ("entrypoint-resources", "JSON", "Custom resources of the entrypoint itself."),
        ("entrypoint-label-selector", "JSON", "Labels of the node the entrypoint runs on."),
        ("metadata-json", "JSON", "Metadata for the job, text to text."),
    ),
}
REPEATABLE = ("after", "cluster", "data", "secret", "variant")
FROM_RAY = {
    "address": "Clusters are registered once: carbon-sched clusters add NAME --address URL --zone ZONE; "
    "then --cluster NAME sends a job there",
    "submission-id": "Submissions are named cs-JOB-aN, one per attempt; give the job a --name",
    "job-id": "Submissions are named cs-JOB-aN, one per attempt; give the job a --name",
    "headers": "Headers belong to a cluster: carbon-sched clusters add NAME --header 'KEY=file:PATH' ...",
    "verify": "Certificates belong to a cluster: carbon-sched clusters add NAME --ca-file PATH ...",
}
"""What `ray job submit` takes and we refuse, with what to do instead."""
FROM_RAY_IGNORED = ("log-style", "log-color")
ONLY_OURS = ("--deadline", "--max-delay", "--earliest", "--no-wait", "--working-dir", "--runtime-env", "--cluster")
"""Flags that hardly any script has: behind the script they are probably misplaced."""


class SubmitCommand(click.Command):
    """A command whose words behind the options are a script with its arguments, or, behind `--`, a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, noting whether the words stood behind `--`."""
        given = list(args)
        result = super().parse_args(ctx, args)
        words = ctx.params.get("words") or ()
        before = given[: len(given) - len(words)] if words else given
        ctx.params["is_command"] = bool(words) and before[-1:] == ["--"]
        return result

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options in their sections."""
        by_name = {parameter.name: parameter for parameter in self.get_params(ctx)}
        titles = {**{title: [name for name, *_ in rows] for title, rows in TEXT.items()}, "How it is submitted": []}
        titles["When it may run"].insert(-2, "interruptible")
        titles["Who goes first"].append("now")
        placed = {name.replace("-", "_") for names in titles.values() for name in names}
        rest = [p.name for p in by_name.values() if isinstance(p, click.Option) and p.name not in placed]
        titles["How it is submitted"] = [str(name) for name in rest]
        for title, names in titles.items():
            rows = [by_name[name.replace("-", "_")].get_help_record(ctx) for name in names]
            with formatter.section(title):
                formatter.write_dl([row for row in rows if row is not None])


def options() -> list[click.Parameter]:
    """Every option of `submit`, read as text: what it means is decided in one place for flags and files."""
    found: list[click.Parameter] = []
    for rows in TEXT.values():
        for name, metavar, text in rows:
            found.append(_option(name, metavar, text))
    found.append(
        click.Option(
            ["--interruptible"],
            is_flag=True,
            default=None,
            help="May be suspended for cleaner hours, and resumed from what it saved.",
        )
    )
    found.append(click.Option(["--now"], is_flag=True, default=None, help="Wait for no cleaner hour, where allowed."))
    found += [
        click.Option(["-f", "--file"], metavar="JOB.YAML", help="Read options from a file; flags win."),
        click.Option(["--no-wait"], is_flag=True, help="Print the job's id and return at once."),
        click.Option(["--dry-run"], is_flag=True, help="Show the decision; submit nothing."),
        click.Option(["--json", "as_json"], is_flag=True, help="With --no-wait or --dry-run: print JSON."),
    ]
    found += [click.Option([f"--{name}"], hidden=True, callback=_refuse, expose_value=False) for name in FROM_RAY]
    found += [click.Option([f"--{name}"], hidden=True, expose_value=False) for name in FROM_RAY_IGNORED]
    found.append(click.Option(["-v", "--verbose"], hidden=True, is_flag=True, expose_value=False))
    shape = "job.py [ARGS]... | -- COMMAND..."
    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar=shape, shell_complete=_complete_files)
    return [*found, words]


def _option(name: str, metavar: str, text: str) -> click.Option:
    completer: Any = {
        "cluster": complete_clusters,
        "phase": _complete(PHASES),
        "placement": _complete(PLACEMENTS),
        "policy": _complete(POLICIES),
    }.get(name)
    is_path = metavar in {"FILE", "DIR|URI"}
    kind: Any = click.Path() if is_path else None
    return click.Option(
        [f"--{name}"],
        metavar=metavar,
        help=text,
        multiple=name in REPEATABLE,
        default=None,
        type=kind,
        shell_complete=completer,
    )


def _complete(known: tuple[str, ...]) -> Any:
    def complete(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(value) for value in known if value.startswith(incomplete)]

    return complete


def _complete_files(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def _refuse(_ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None:
        name = parameter.opts[0].removeprefix("--")
        raise InvalidInput(f"--{name}", value, "is not used here", FROM_RAY[name])
