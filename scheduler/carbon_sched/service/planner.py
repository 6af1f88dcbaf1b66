"""Where plans are made: in a process of its own, so that a long plan never delays an answer of the API.

The child keeps the plan before, and tells in outline what the new one changed; what explains a decision it tells when
asked for the decisions that will be written down. Snapshots and decisions travel in pieces, since pickling holds the
interpreter's lock. A child that dies fails one plan; the next one starts another child,
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
from carbon_sched.ledger.uncollected import collected_seldom
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
NICENESS = 10
"""Planning yields to the API where both want the last core."""
END_S = 5.0
NEVER = datetime.min.replace(tzinfo=timezone.utc)
SAME_START_S = 1.0
SAME_GRAMS = 0.05
"""Who waits is told again when the CO2e has moved by more than this share."""
FOR_GOOD = (Verdict.PLACE, Verdict.REFUSE)
"""A job that a plan takes out of the queue is told again should it still be there at the next plan."""


@dataclass(frozen=True)
class News:
    """What a plan decided otherwise than was told, or for good, in outline, and when to look again at the latest.

    `state` is what it leaves to the next plan, as JSON; None while the world stands, so that little was planned anew.
    """

    decisions: tuple[Decision, ...]
    next_look: datetime
    state: Json | None = None


def is_news(before: Decision | None, now: Decision) -> bool:
    """Whether a decision says something else of its job than the one before, or knows more of what was asked.

    When it was made is nothing else. Who waits for the same start on the same cluster is told again when the grams have
    moved.
    """
    if before is None or _which(before) != _which(now):
        return True
    if now.verdict is not Verdict.DELAY or before.start is None or now.start is None:
        return (before.start, before.reason) != (now.start, now.reason)
    moved = abs((before.start - now.start).total_seconds()) > SAME_START_S
    return moved or _moved(before.expected_co2e_g, now.expected_co2e_g)


def _which(decision: Decision) -> tuple[object, ...]:
    return decision.verdict, decision.cluster, decision.amendments


def _moved(was: float | None, grams: float | None) -> bool:
    if was is None or grams is None:
        return was is not grams
    return abs(grams - was) > SAME_GRAMS * abs(was)


class Planner(Protocol):
    """Makes plans, one after another."""

    def remember(self, state: Json) -> None:
        """Go on from what an earlier planner left."""

    def plan(self, snapshot: Snapshot, *, whole: bool) -> News:
        """Plan, going on from the plan before; with `whole`, tell every decision and not what changed alone."""

    def explain(self, job_ids: Sequence[str]) -> Sequence[Decision]:
        """The whole decisions of the last plan about these jobs, in this order."""

    def preview(self, snapshot: Snapshot, job_id: str) -> Decision:
        """The whole decision about one job, of a plan that starts from nothing and is not gone on from."""

    def close(self) -> None:
        """Make no more plans."""


class OwnPlanner:
    """Plans in the caller's process; `brief` ones neither explain a decision nor say what they leave to the next."""

    def __init__(self, *, brief: bool = False) -> None:
        self._brief = brief
        self._previous: Plan | None = None
        self._told: Mapping[str, Decision] = {}

    def remember(self, state: Json) -> None:
        """Its decisions were told by the planner that made them."""
        self._previous = Plan((), NEVER, from_json(state))

    def plan(self, snapshot: Snapshot, *, whole: bool) -> News:
        """Plan, going on from the plan before."""
        before = {} if whole else self._told
        world = self._previous.state.world if self._previous is not None else None
        self._previous = made = plan(snapshot, self._previous)
        state = to_json(made.state) if made.state.world != world and not self._brief else None
        news = {now.job_id: now for now in made.outlines if is_news(before.get(now.job_id), now)}
        told = (news.get(now.job_id) or before[now.job_id] for now in made.outlines)
        self._told = {one.job_id: one for one in told if one.verdict not in FOR_GOOD}
        return News(tuple(news.values()), made.next_look, state)

    def explain(self, job_ids: Sequence[str]) -> Sequence[Decision]:
        """A brief one tells the outlines again; KeyError for jobs that no plan was made for yet."""
        made = self._previous or Plan((), NEVER)
        if self._brief:
            outlines = {outline.job_id: outline for outline in made.outlines}
            return [outlines[job_id] for job_id in job_ids]
        return made.explained(job_ids)

    def preview(self, snapshot: Snapshot, job_id: str) -> Decision:
        """From nothing."""
        return plan(snapshot).explained([job_id])[0]

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
            news = self._ask("whole plan" if whole else "plan", snapshot=snapshot)
            self._state = news.state or self._state
        return news

    def explain(self, job_ids: Sequence[str]) -> Sequence[Decision]:
        """Raises Internal when the child failed or died; so it does after a child died that made the plan."""
        with self._turn:
            return self._ask("explain", job_ids).decisions

    def preview(self, snapshot: Snapshot, job_id: str) -> Decision:
        """Raises Internal when the child failed or died."""
        with self._turn:
            return self._ask("preview", [job_id], snapshot).decisions[0]

    def close(self) -> None:
        """End the child, also amid a plan."""
        child = self._child
        if child is not None and child.pid is not None:
            child.terminate()
            child.join(END_S)

    def _ask(self, what: str, about: Sequence[str] = (), snapshot: Snapshot | None = None) -> News:
        return self._converse(self._connected(), what, about, snapshot)

    def _converse(self, line: Connection, what: str, about: Sequence[str], snapshot: Snapshot | None) -> News:
        try:
            line.send((what, tuple(about), replace(snapshot, jobs=()) if snapshot is not None else None))
            _send_all(line, snapshot.jobs if snapshot is not None else ())
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
    collected_seldom()
    planner = OwnPlanner()
    if state is not None:
        planner.remember(state)
    while True:
        try:
            what, about, empty = line.recv()
            jobs = tuple(_receive_all(line))
            _answer(line, planner, what, about, replace(empty, jobs=jobs) if empty is not None else None)
        except (EOFError, OSError):
            return


def _answer(line: Connection, planner: OwnPlanner, what: str, about: Sequence[str], snapshot: Snapshot | None) -> None:
    try:
        if snapshot is None:
            made = News(tuple(planner.explain(about)), NEVER)
        elif what == "preview":
            made = News((planner.preview(snapshot, about[0]),), NEVER)
        else:
            made = planner.plan(snapshot, whole=what == "whole plan")
    except Exception as error:
        log.exception("a plan failed jobs=%d", len(snapshot.jobs if snapshot is not None else about))
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
