"""What holds for every command: bugs, pipes, help, completion, and which modules are loaded."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

from carbon_sched import wire
from carbon_sched.cli import main
from carbon_sched.cli.main import COMMANDS
from carbon_sched.cli.main import cli as commands
from carbon_sched.client import Client
from tests.fakes.api_views import (
    AT,
    attempt_view,
)

ID = "0123456789"
ENDED = {"cluster": "north", "finished_at": AT, "attempts": [attempt_view()]}


# the frame ------------------------------------------------------------------------------------------------------------


def test_a_bug_is_a_message_and_a_private_file(api, shell, monkeypatch, tmp_path):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret of nobody")

    monkeypatch.setattr(Client, "jobs", broken)
    code, out, err = shell("list")
    assert (code, out) == (127, "")
    log = tmp_path / "data" / "errors.log"
    assert str(log) in err
    assert "ZeroDivisionError" in log.read_text(encoding="utf-8")
    assert log.stat().st_mode & 0o077 == 0


def cli(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "carbon_sched.cli.main", *arguments],
        capture_output="stdout" not in options, text=True, check=False, **options,
    )  # fmt: skip


def test_a_reader_that_goes_away_is_no_error(done):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        ended = cli("receipt", ID, stdout=out, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_server_that_takes_its_time_is_said_to_be_waited_for(api, shell, monkeypatch):
    said, true_answer = threading.Event(), api.answer
    monkeypatch.setattr(api, "answer", lambda call: said.wait(60) and true_answer(call))
    monkeypatch.setattr("carbon_sched.cli.progress.say", lambda text: print(text, file=sys.stderr) or said.set())
    code, out, err = shell("clusters", "list", "--json")
    assert (code, out) == (0, "[]\n")
    assert err == "waiting for the server's answer\n"


WAITING = [
    ["list"], ["status", ID], ["logs", ID], ["logs", "-f", ID], ["wait", ID], ["stop", ID], ["explain", ID],
    ["receipt", ID], ["clusters", "list"], ["clusters", "check", "north"], ["clusters", "remove", "north"],
    ["grid", "now"], ["audit", "verify"], ["audit", "report"], ["audit", "export"], ["server", "status"], ["doctor"],
    ["submit", "--no-wait", "train.py"], ["submit", "--dry-run", "train.py"], ["submit", "train.py"],
]  # fmt: skip


@pytest.mark.parametrize("command", WAITING, ids=" ".join)
def test_ctrl_c_ends_whatever_waits_for_an_answer(done, shell, monkeypatch, command):
    ended, true_answer = threading.Event(), done.answer

    def answer(call):
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            ended.wait(60)
        return true_answer(call)

    monkeypatch.setattr(done, "answer", answer)
    code, out, err = shell(*command)
    ended.set()
    assert (code, out) == (130, "")
    assert not re.search("error|abort|traceback", err, re.IGNORECASE)  # progress is shown where an answer takes long


INTERRUPTED_WHILE_LOADING = """
import os, signal, sys
class CtrlC:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
from carbon_sched.cli.entry import main
main()
"""


def test_ctrl_c_while_modules_are_loaded_is_quiet():
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_LOADING], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


HEAVY = {"pydantic", "rich", "numpy", "ray", "sqlalchemy", "fastapi", "yaml", "cryptography", "pynvml", "pathspec"}
WHAT_LOADED = """
import sys
from carbon_sched.cli.main import run
code = run(sys.argv[1:])
print(sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def loaded(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", WHAT_LOADED, *arguments], capture_output=True, text=True, check=True)
    return set(re.findall(r"'(\w+)'", done.stderr.splitlines()[-1]))


def test_help_loads_click_and_next_to_nothing_else():
    modules = loaded("--help")
    assert (
        modules & (HEAVY | {"requests", "urllib3", "json", "subprocess", "asyncio", "dataclasses", "zipfile"}) == set()
    )
    assert "click" in modules


def test_submitting_loads_no_heavy_library(api):
    modules = loaded("submit", "--no-wait", "--max-delay", "6h", "train.py")
    assert modules & HEAVY == set()
    assert "requests" in modules
    assert len(api.jobs) == 1


def test_refusing_bad_input_loads_no_http(api):
    ended = cli("submit", "--duration", "x", "train.py")
    assert ended.returncode == 120
    code = WHAT_LOADED.replace("sys.exit(code)", "")
    done = subprocess.run(
        [sys.executable, "-c", code, "submit", "--duration", "x", "train.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'requests'" not in done.stderr


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_scripts(shell_name):
    script = cli("completion", shell_name).stdout
    assert "_CARBON_SCHED_COMPLETE" in script
    if shell_name == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def complete(*words: str) -> list[str]:
    environment = {**os.environ, "_CARBON_SCHED_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    return [line.split(",")[1] for line in cli(env=environment).stdout.splitlines()]


def test_completion_offers_commands_options_jobs_and_clusters(done):
    assert complete("carbon-sched", "cl") == ["clusters"]
    assert complete("carbon-sched", "submit", "--max") == ["--max-delay"]
    assert complete("carbon-sched", "submit", "--phase", "inf") == ["inference-batch", "inference-online"]
    assert complete("carbon-sched", "status", "") == ["last", ID]
    assert complete("carbon-sched", "status", "tr") == ["train.py"]
    assert complete("carbon-sched", "clusters", "check", "w") == ["west"]


def test_completion_never_waits_for_a_server(api, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_URL", "http://127.0.0.1:1")
    assert complete("carbon-sched", "status", "") == ["last"]


def test_usage_errors_are_ours(shell):
    assert shell("nonsense")[0] == shell("list", "--limit", "x")[0] == shell("status", "a", "b")[0] == 120
    assert "Did you mean 'submit'?" in shell("sumbit")[2]


def test_the_overview_fits_eighty_columns_and_has_an_example(shell):
    code, out, _ = shell("--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "carbon-sched submit" in out.partition("Example")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example_and_its_line_in_the_overview(shell, command):
    code, out, _ = shell(command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert f"carbon-sched {command}" in out.partition("Example")[2]
    assert COMMANDS[command][1] in " ".join(out.split())
    found = commands.get_command(click.Context(commands), command)
    for sub in getattr(found, "commands", ()):
        shown = shell(command, sub, "--help")[1]
        assert f"carbon-sched {command} {sub}" in shown.partition("Example")[2]
        assert max(map(len, shown.splitlines())) <= 80


def commands_with_json(group: click.Group, path: str = "") -> set[str]:
    found = set()
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            found |= commands_with_json(command, f"{path}{name} ")
        elif any("--json" in parameter.opts for parameter in command.params):
            found.add(path + name)
    return found


def test_the_shape_of_every_json_is_documented():
    page = (Path(main.__file__).parent / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    documented = {re.sub(r" --.*", "", name) for names, _ in rows for name in re.findall(r"`([^`]+)`", names)}
    assert documented == commands_with_json(commands)
    shapes = {name for _, shape in rows for name in re.findall(r"`([A-Z]\w+)`", shape)}
    assert shapes
    assert all(hasattr(wire, name) for name in shapes)
