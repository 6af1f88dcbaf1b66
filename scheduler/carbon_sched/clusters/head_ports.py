"""Blocks of ports for local Ray heads: free now, and kept from our other heads until this one has ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import ClusterUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

# Below the range that the kernel takes ports for outgoing connections from, above what servers commonly use.
FIRST_PORT, LAST_PORT = 21_000, 31_980
BLOCK = 20
# What a head listens on, by offset in its block.
GCS, DASHBOARD, RAY_CLIENT, AGENT_HTTP, AGENT_GRPC, RUNTIME_ENV, METRICS = range(7)
NODE_MANAGER, OBJECT_MANAGER, AUTOSCALER_METRICS, DASHBOARD_METRICS = range(7, 11)
USED = 11


@dataclass(frozen=True)
class PortBlock:
    """Ports from `base` on; whoever inherits the descriptor `lock` holds the claim until it ends."""

    base: int
    lock: int

    def close(self) -> None:
        """Give our own handle back; the claim stays with a process that inherited it."""
        os.close(self.lock)


def claim(preferred: int) -> PortBlock:
    """Claim the block at `preferred`, or the next free one.

    Ray binds its ports seconds after its start, so that finding them free is not enough: a lock file per block keeps
    our own heads apart meanwhile, and falls with the process that holds it. ClusterUnreachable when none is free.
    """
    folder = Path(tempfile.gettempdir(), f"carbon-sched-ports-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    for base in _candidates(preferred):
        block = _try_claim(folder, base)
        if block is not None:
            return block
    raise ClusterUnreachable(f"no {BLOCK} free ports between {FIRST_PORT} and {LAST_PORT} for a local Ray head")


def preferred_base(seed: int) -> int:
    """A block to try first, different for different seeds, so that neighbours rarely meet."""
    return FIRST_PORT + seed % ((LAST_PORT - FIRST_PORT) // BLOCK) * BLOCK


def _candidates(preferred: int) -> Iterator[int]:
    blocks = (LAST_PORT - FIRST_PORT) // BLOCK
    first = (preferred - FIRST_PORT) // BLOCK
    for step in range(blocks):
        yield FIRST_PORT + (first + step) % blocks * BLOCK


def _try_claim(folder: Path, base: int) -> PortBlock | None:
    lock = os.open(folder / str(base), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if free(base):
            return PortBlock(base, lock)
    except BlockingIOError:
        pass
    os.close(lock)
    return None


def free(base: int) -> bool:
    """Whether nobody listens on any port of a block."""
    with contextlib.ExitStack() as stack:
        for port in range(base, base + USED):
            one = stack.enter_context(socket.socket())
            # As servers do: a connection of the last head that still times out is no server.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("0.0.0.0", port))  # noqa: S104 - bound and closed, never listened on
            except OSError:
                return False
    return True
