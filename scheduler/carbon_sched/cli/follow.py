"""Stay with a job: its decision, a countdown while it waits, its output as it is written, its receipt at the end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from carbon_sched.cli import figures
from carbon_sched.cli.clock import local_zone, now
from carbon_sched.cli.output import fail, say, warn
from carbon_sched.cli.progress import Progress
from carbon_sched.domain.errors import (
    ClusterError,
    Conflict,
    InvalidInput,
    NotFound,
    ServerUnavailable,
)
from carbon_sched.domain.time import from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO, TypeVar

    from carbon_sched.cli.connection import Connection
    from carbon_sched.client import Client
    from carbon_sched.wire import DecisionView, JobView, Receipt

    T = TypeVar("T")

FINAL = frozenset({"succeeded", "failed", "stopped", "refused", "lost"})
LOG_WAIT_S = 20.0
PLAN_WAIT_S = 2.0
RECEIPT_S = 60.0
RECEIPT_POLL_S = 0.5
INTERRUPTED = 130
NO_PLAN = "planning-failed"
STATES = {
    "dispatching": "going to {where}",
    "starting": "starting on {where}",
    "running": "running on {where}",
    "stopping": "stopping on {where}",
}


def attach(connection: Connection, job: JobView) -> int:
    """Follow a job that was just submitted to its end; the exit code."""
    say(f"submitted {job['name']} as {job['job_id']}")
    try:
        return Follower(connection, job).run()
    except KeyboardInterrupt:
        return detached(job["job_id"])


def detached(job_id: str) -> int:
    """Say that a job goes on without us, and how to come back; the exit code."""
    say(f"\ndetached; job {job_id} goes on")
    say(f"  carbon-sched wait --logs {job_id}   attach again")
    say(f"  carbon-sched stop {job_id}          stop it")
    return INTERRUPTED


class Follower:
    """Follows one job over every hiccup of the server."""

    def __init__(self, connection: Connection, job: JobView, *, out: BinaryIO | None = None) -> None:
        self._connection, self._job = connection, job
        self._id = job["job_id"]
        self._out = out or sys.stdout.buffer
        self._told: set[str] = set()
        self._deciding = False
        self._shown: DecisionView | None = None

    def run(self, *, decision: bool = True) -> int:
        """Decision, output, receipt; the exit code."""
        self._deciding = decision
        if decision:
            self._show_decision()
        self.stream()
        self._await_end()
        self._show_receipt()
        return self.outcome()

    def outcome(self) -> int:
        """Wait for the end, say how it ended; the exit code."""
        self._await_end()
        code, words = exit_code_of(self._job)
        if words:
            fail(words)
        return code

    @property
    def job(self) -> JobView:
        """The job as it was last seen."""
        return self._job

    def stream(self) -> None:
        """Write the job's output as it comes, from the first byte of its newest attempt to the last one of its last."""
        attempt, offset = None, 0
        while True:
            if self._job["state"] == "queued":
                self._await_start()
                continue
            where = {"attempt": attempt, "offset": offset, "wait_s": LOG_WAIT_S}
            with self._progress(self._state_line, self._job["state"], delay_s=1.0 if offset == 0 else 3600.0):
                chunk = self._ask(lambda client, where=where: client.logs(self._id, **where))  # type: ignore[misc]
            if attempt and chunk["attempt"] != attempt:
                say(f"attempt {chunk['attempt']} begins")
            if chunk["text"]:
                self._out.write(chunk["text"].encode("utf-8"))
                self._out.flush()
            attempt, offset = chunk["attempt"], chunk["next_offset"]
            if chunk["final"]:
                return
            if not chunk["text"]:
                self._refresh()

    # waiting -------------------------------------------------------------------------------------

    def _await_start(self) -> None:
        """Wait until something about the queued job changes; a countdown where its start is known.

        A plan that changed meanwhile is shown anew.
        """
        known = self._job
        with self._progress(self._waiting_line, f"queued {known['planned_start']}"):
            self._refresh(LOG_WAIT_S)
        if self._deciding and self._job["version"] != known["version"] and self._job["state"] not in FINAL:
            self._show_decision()

    def _await_end(self) -> None:
        while self._job["state"] not in FINAL:
            with self._progress(self._state_line, self._job["state"]):
                self._refresh(LOG_WAIT_S)

    def _progress(self, text: Callable[[float], str], what: str, *, delay_s: float = 1.0) -> Progress:
        """Progress of a wait for `what`, which is told only once where it cannot be repainted."""
        plain = what not in self._told
        self._told.add(what)
        return Progress(text, delay_s=delay_s, plain=plain)

    def _waiting_line(self, seconds: float) -> str:
        planned = self._job["planned_start"]
        if planned is None:
            why = "waiting" if self._shown else self._job["reason"] or "waiting"
            return f"({figures.duration(int(seconds))}) {why}; Ctrl-C detaches"
        at = now()
        left = max(0, int((from_rfc3339(planned) - at).total_seconds()))
        return f"starts at {figures.clock(planned, local_zone(), at)}, in {figures.duration(left)}; Ctrl-C detaches"

    def _state_line(self, seconds: float) -> str:
        words = STATES.get(self._job["state"], self._job["state"]).format(where=self._job["cluster"] or "a cluster")
        return f"{words} ({figures.duration(int(seconds))})"

    # what is shown -------------------------------------------------------------------------------

    def _show_decision(self) -> None:
        """Show the decision unless the same one was shown; by its reason alone where the table would say no more."""
        decision = self._decision()
        if decision is None or _same(decision, self._shown):
            return
        last, self._shown = self._shown, decision
        known = last is not None and last["verdict"] != "hold" and last["cluster"] == decision["cluster"]
        if decision["verdict"] == "hold" or known:
            say(decision["reason"])
            return
        from carbon_sched.cli import render

        render.show(render.decision(decision), stderr=True)
        self._remarks(decision)
        say("")

    def _decision(self) -> DecisionView | None:
        """The newest decision, once there is one; None for a job that ended before.

        Why no plan can be made is told, once, while it is waited for.
        """
        while True:
            with self._progress(lambda _seconds: "planning", "planning"):
                decision = self._newest_decision()
            if decision is not None or self._job["state"] in FINAL:
                return decision
            self._told.add(self._job["reason"])
            warn(self._job["reason"])

    def _newest_decision(self) -> DecisionView | None:
        """The same; None also when no plan can be made for a reason that was not told."""
        while True:
            if self._shown is None:
                self._refresh(PLAN_WAIT_S)
            try:
                return self._ask(lambda client: client.decision(self._id))
            except NotFound:
                if self._job["state"] in FINAL:
                    return None
            if self._job["cause"] == NO_PLAN and self._job["reason"] not in self._told:
                return None

    def _remarks(self, decision: DecisionView) -> None:
        chosen = next((c for c in decision["candidates"] if c["cluster"] == decision["cluster"]), None)
        if chosen is not None and (chosen["grade"] or "").startswith("F"):
            warn(
                f"no grid zone is known for cluster {chosen['cluster']}, so its energy is booked with the world "
                "average, the lowest grade. Tell its zone (such as DE or US-CAL-CISO): "
                f"carbon-sched clusters add {chosen['cluster']} --replace --local --home --zone ZONE"
            )
        if decision["verdict"] == "delay":
            if self._connection.local is not None:
                warn(
                    "this machine must stay awake until the job has started (and, if it runs here, ended); "
                    "to switch it off, use a shared server (CARBON_SCHED_URL)"
                )
            else:
                say("the shared server keeps it; this machine may be switched off")

    def _show_receipt(self) -> None:
        if not self._job["attempts"]:
            return
        from carbon_sched.cli import render

        receipt = self.receipt()
        say("")
        render.show(render.receipt(receipt), stderr=True)
        if not receipt["final"]:
            say(f"the last figures are still to come: carbon-sched receipt {self._id}")

    def receipt(self) -> Receipt:
        """The receipt once it is final, or as it is after a minute."""
        until = time.monotonic() + RECEIPT_S
        with Progress(lambda seconds: f"collecting the energy records ({figures.duration(int(seconds))})"):
            while True:
                receipt = self._ask(lambda client: client.receipt(self._id))
                if receipt["final"] or time.monotonic() > until:
                    return receipt
                time.sleep(RECEIPT_POLL_S)

    # transport -----------------------------------------------------------------------------------

    def _refresh(self, wait_s: float = 0.0) -> None:
        """Read the job anew; with `wait_s`, as soon as it has changed."""
        version = self._job["version"] if wait_s else None
        self._job = self._ask(lambda client: client.job(self._id, wait_version=version, timeout_s=wait_s))

    def _ask(self, question: Callable[[Client], T]) -> T:
        """Ask the server, over its crashes."""
        try:
            return self._connection.ask(question)
        except ServerUnavailable as error:
            raise ServerUnavailable(f"{error}\njob {self._id} is kept: carbon-sched wait --logs {self._id}") from None


def _same(one: DecisionView, other: DecisionView | None) -> bool:
    """Whether two decisions send the job to the same place at the same time, or wait for the same reason."""
    if other is None or one["verdict"] != other["verdict"]:
        return False
    if one["verdict"] == "hold":
        return one["reason"] == other["reason"]
    return (one["cluster"], one["start"]) == (other["cluster"], other["start"])


def exit_code_of(job: JobView) -> tuple[int, str]:
    """The job's own exit code, or ours where it has none, with words to say for everything but success."""
    state, code, job_id = job["state"], job["exit_code"], job["job_id"]
    reason = f": {job['reason']}" if job["reason"] else ""
    if state == "succeeded":
        return 0, ""
    if state == "refused":
        return InvalidInput.exit_code, f"job {job_id} was refused{reason}"
    if state == "lost":
        return ClusterError.exit_code, f"job {job_id} was lost{reason}"
    if code is not None and code != 0:
        more = "" if str(code) in reason else reason
        return _shell_code(code), f"job {job_id} {state} with exit code {code}{more}"
    if state == "stopped":
        return Conflict.exit_code, f"job {job_id} was stopped{reason}"
    return ClusterError.exit_code, f"job {job_id} {state} without an exit code{reason}"


def _shell_code(code: int) -> int:
    """As shells tell it: 128 + the signal's number for a process that a signal ended."""
    return 128 - code if code < 0 else code & 0xFF or 1
