"""Completion as it is typed: a real bash and a real zsh on a terminal of ours, with the tab key."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ""),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; "),
}


class Terminal:
    """An interactive shell at the other end of a pseudo-terminal."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.screen = ""
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "dumb"}
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(127)

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def wait_for(self, text: str, timeout_s: float = 60.0) -> None:
        until = time.monotonic() + timeout_s
        while text not in self.screen:
            left = until - time.monotonic()
            assert left > 0, f"no {text!r} in {self.screen!r}"
            if select.select([self.descriptor], [], [], left)[0]:
                self.screen += os.read(self.descriptor, 65_536).decode("utf-8", "replace")
        self.screen = self.screen.partition(text)[2]

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.descriptor)


@pytest.fixture(params=SHELLS)
def terminal(request, tmp_path, done):
    command, before = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    terminal = Terminal(command, tmp_path)
    terminal.type(f'{before}eval "$(carbon-sched completion {request.param})"; echo rea""dy\n')
    terminal.wait_for("ready")
    yield terminal
    terminal.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_the_tab_key_completes_commands_options_and_jobs(terminal):
    terminal.type("carbon-sched recei\t")
    terminal.wait_for("receipt")
    terminal.type("las\t")
    terminal.wait_for("last")
    terminal.type("\x15carbon-sched submit --max-d\t")
    terminal.wait_for("--max-delay")
    terminal.type("\x15carbon-sched clusters check wes\t")
    terminal.wait_for("west")
