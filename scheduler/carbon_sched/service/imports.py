"""What other tools measured, put into the ledger as what they said: once, and under who brought it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from carbon_sched.domain.errors import Conflict, InvalidInput
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import Phase
from carbon_sched.ledger.imported import read_codecarbon
from carbon_sched.service.spec import one_of

if TYPE_CHECKING:
    from carbon_sched.ports import Clock, Store
    from carbon_sched.service.statements import Statements
    from carbon_sched.wire import ImportRequest


class Imports:
    """Puts files of other tools into the ledger."""

    def __init__(self, store: Store, statements: Statements, clock: Clock) -> None:
        self._store, self._statements, self._clock = store, statements, clock

    def codecarbon(self, request: ImportRequest, *, team: str, person: str) -> int:
        """Append every run of an `emissions.csv`, as one fact; how many runs.

        Raises InvalidInput for what is no such file, Conflict for runs that the ledger holds already: then nothing is
        appended.
        """
        content = request["content"]
        runs = [run.body() for run in read_codecarbon(content, _zone(request["timezone"]))]
        labels = {name: request.get(name, "") for name in ("project", "model", "stage")}
        phase: Phase = one_of("phase", request.get("phase", Phase.OTHER.value), Phase)
        with self._store.transaction() as tx:
            self._refuse_known({run["run"] for run in runs})
            body = {
                **labels, "team": team, "phase": phase.value, "by": tx.pseudonym(person), "tool": "codecarbon",
                "runs": runs, "file_sha256": hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest(),
            }  # fmt: skip
            tx.append_fact(Fact(FactKind.EMISSIONS_IMPORTED, self._clock.now(), body))
        return len(runs)

    def _refuse_known(self, runs: set[str]) -> None:
        known = self._statements.of((), lambda book: book.imported_runs & runs, others=True)
        if known:
            held = ", ".join(sorted(known)[:10])
            raise Conflict(f"{len(known)} of these runs were imported already ({held}). Leave their rows out")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        remedy = "Give a name of the IANA database, such as Europe/Berlin"
        raise InvalidInput("timezone", name, "is not a time zone", remedy) from None
