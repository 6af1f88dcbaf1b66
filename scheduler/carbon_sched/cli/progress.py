"""One line that says what is being waited for: shown after a second, kept up to date on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING

from carbon_sched.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

DELAY_S = 1.0
CLEAR_LINE = "\r\x1b[2K"


class Progress:
    """Shows `text(seconds waited)` on stderr while inside; where that is no terminal, once, and only if `plain`.

    Quick waits show nothing, nor does a wait inside of another one, which is shown already. For the main thread.
    """

    _outermost: Progress | None = None

    def __init__(self, text: Callable[[float], str] | str, *, delay_s: float = DELAY_S, plain: bool = True) -> None:
        self._text = text if callable(text) else lambda _seconds: str(text)
        self._delay_s, self._plain = delay_s, plain
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._since = time.monotonic()
        if Progress._outermost is None:
            Progress._outermost = self
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        if Progress._outermost is self:
            self._done.set()
            self._thread.join()
            Progress._outermost = None

    def _show(self) -> None:
        if self._done.wait(self._delay_s):
            return
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._repaint(sys.stderr)
        elif self._plain:
            say(self._line())

    def _repaint(self, stream: TextIO) -> None:
        while True:
            width = shutil.get_terminal_size().columns - 1
            stream.write(CLEAR_LINE + self._line()[:width])
            stream.flush()
            if self._done.wait(1.0):
                break
        stream.write(CLEAR_LINE)
        stream.flush()

    def _line(self) -> str:
        return self._text(time.monotonic() - self._since)
