"""Where plans are made: in a process of its own, so that a long plan never delays an answer of the API.

The child keeps the plan before, and tells only what the new one changed. Snapshots and decisions travel in pieces,
since pickling holds the interpreter's lock. A child that dies fails one plan; the next one starts another child,
which goes on from the state that the last one left, as a new server does from the state that was stored.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from carbon_sched.domain.decision import Verdict
from carbon_sched.domain.errors import Internal
from carbon_sched.planning.memory import from_json, to_json
from carbon_sched.planning.plan import Plan, plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from carbon_sched.domain.decision import Decision
    from carbon_sched.planning.snapshot import Snapshot

    Json = Mapping[str, Any]

log = logging.getLogger(__name__)

PIECE = 100
"""Jobs or decisions per message."""
NICENESS = 5
"""Planning yields to the API where both want the last core."""
END_S = 5.0
NEVER = datetime.min.replace(tzinfo=timezone.utc)
FOR_GOOD = (Verdict.PLACE, Verdict.REFUSE)
"""A job that a plan takes out of the queue is told again should it still be there at the next plan."""


@dataclass(frozen=True)
class News:
    """What a plan decided otherwise than the plan before, or for good, and when to look again at the latest.

    `state` is what it leaves to the next plan, as JSON; None while the world stands, so that little was planned anew.
    """

    decisions: tuple[Decision, ...]
    next_look: datetime
    state: Json | None = None


def is_news(before: Decision | None, now: Decision) -> bool:
    """Whether a decision says something else of its job than the one before, or knows more of what was asked.

    When it was made is nothing else.
    """
    return before is None or _said(before) != _said(now)


def _said(decision: Decision) -> tuple[object, ...]:
    return decision.verdict, decision.cluster, decision.start, decision.reason, decision.amendments


class Planner(Protocol):
    """Makes plans, one after another."""

    def remember(self, state: Json) -> None:
        """Go on from what an earlier planner left."""

    def plan(self, snapshot: Snapshot, *, whole: bool) -> News:
        """Plan, going on from the plan before; with `whole`, tell every decision and not what changed alone."""

    def preview(self, snapshot: Snapshot) -> Sequence[Decision]:
        """Every decision of a plan that starts from nothing and is not gone on from."""

    def close(self) -> None:
        """Make no more plans."""


class OwnPlanner:
    """Plans in the caller's process; `brief` ones neither explain a decision nor say what they leave to the next."""

    def __init__(self, *, brief: bool = False) -> None:
        self._brief = brief
        self._previous: Plan | None = None

    def remember(self, state: Json) -> None:
        """Its decisions were told by the planner that made them."""
        self._previous = Plan((), NEVER, from_json(state))

    def plan(self, snapshot: Snapshot, *, whole: bool) -> News:
        """Plan, going on from the plan before."""
        told = self._previous.decisions if self._previous is not None and not whole else ()
        before = {decision.job_id: decision for decision in told if decision.verdict not in FOR_GOOD}
        world = self._previous.state.world if self._previous is not None else None
        self._previous = made = plan(snapshot, self._previous, brief=self._brief)
        state = to_json(made.state) if made.state.world != world and not self._brief else None
        return News(tuple(d for d in made.decisions if is_news(before.get(d.job_id), d)), made.next_look, state)

    def preview(self, snapshot: Snapshot) -> Sequence[Decision]:
        """From nothing."""
        return plan(snapshot, None).decisions

    def close(self) -> None:
        """Nothing to end."""


class ChildPlanner:
    """Plans in a child process, started at the first plan; one caller at a time, others wait."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._child: SpawnProcess | None = None
        self._line: Connection | None = None
        self._state: Json | None = None

    def remember(self, state: Json) -> None:
        """Told to the child when it starts, and to the next one should it die."""
        self._state = state

    def plan(self, snapshot: Snapshot, *, whole: bool) -> News:
        """Raises Internal when the child failed or died."""
        with self._turn:
            news = self._ask("whole plan" if whole else "plan", snapshot)
            self._state = news.state or self._state
        return news

    def preview(self, snapshot: Snapshot) -> Sequence[Decision]:
        """Raises Internal when the child failed or died."""
        with self._turn:
            return self._ask("preview", snapshot).decisions

    def close(self) -> None:
        """End the child, also amid a plan."""
        child = self._child
        if child is not None and child.pid is not None:
            child.terminate()
            child.join(END_S)

    def _ask(self, what: str, snapshot: Snapshot) -> News:
        return self._converse(self._connected(), what, snapshot)

    def _converse(self, line: Connection, what: str, snapshot: Snapshot) -> News:
        try:
            line.send((what, replace(snapshot, jobs=())))
            _send_all(line, snapshot.jobs)
            failure, next_look, state = line.recv()
            decisions = tuple(_receive_all(line)) if not failure else ()
        except (EOFError, OSError) as error:
            self._hang_up()
            raise Internal("the planning process ended amid a plan; the next plan starts it again") from error
        if failure:
            raise Internal(f"the plan failed in the planning process; its log says where: {failure}")
        return News(decisions, next_look, state)

    def _connected(self) -> Connection:
        if self._line is None or self._child is None or not self._child.is_alive():
            self._hang_up()
            context = multiprocessing.get_context("spawn")
            self._line, theirs = context.Pipe()
            self._child = context.Process(target=serve, args=(theirs, self._state), name="planner", daemon=True)
            self._child.start()
            theirs.close()
        return self._line

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._child is not None:
            self._child.terminate()
            self._child.join(END_S)
        self._line = self._child = None


def serve(line: Connection, state: Json | None) -> None:
    """Make plans until the server hangs up, going on from `state`; the main function of the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the server's to act on
    os.nice(NICENESS)
    planner = OwnPlanner()
    if state is not None:
        planner.remember(state)
    while True:
        try:
            what, empty = line.recv()
            snapshot = replace(empty, jobs=tuple(_receive_all(line)))
            _answer(line, planner, what, snapshot)
        except (EOFError, OSError):
            return


def _answer(line: Connection, planner: OwnPlanner, what: str, snapshot: Snapshot) -> None:
    try:
        if what == "preview":
            made = News(tuple(planner.preview(snapshot)), snapshot.now)
        else:
            made = planner.plan(snapshot, whole=what == "whole plan")
    except Exception as error:
        log.exception("a plan failed jobs=%d", len(snapshot.jobs))
        line.send((f"{type(error).__name__}: {error}", None, None))
        return
    line.send(("", made.next_look, made.state))
    _send_all(line, made.decisions)


def _send_all(line: Connection, items: Sequence[Any]) -> None:
    for first in range(0, len(items), PIECE):
        line.send(items[first : first + PIECE])
    line.send(())


def _receive_all(line: Connection) -> Iterator[Any]:
    while piece := line.recv():
        yield from piece
