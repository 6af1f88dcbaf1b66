"""What the program `carbon-sched` calls first: Ctrl-C ends it without a word even while its modules are loaded."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line; an ignored SIGINT (as under nohup) stays ignored."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from carbon_sched.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    run()
