"""Work for several clusters side by side: one that hangs holds up itself and nobody else."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

log = logging.getLogger(__name__)

PATIENCE_S = 2.0


class Lanes:
    """One thread at a time per lane; a lane is named by its cluster."""

    def __init__(self, name: str, patience_s: float = PATIENCE_S) -> None:
        """`name` is for messages; `patience_s` is how long `run` waits for what it began."""
        self._name, self._patience_s = name, patience_s
        self._changed = threading.Condition()
        self._busy: set[str] = set()
        self._errors: list[BaseException] = []

    def run(self, work: Mapping[str, Callable[[], object]]) -> list[str]:
        """Begin each lane's work; returns once all is done or the patience is over, with the lanes passed over.

        A lane that is still at earlier work is passed over. What a lane raised is raised here, at the latest by the
        next call; of several errors the first one, the others are logged.
        """
        with self._changed:
            begun = [lane for lane in work if lane not in self._busy]
            self._busy.update(begun)
        for lane in begun:
            thread = threading.Thread(target=self._do, args=(lane, work[lane]), name=f"{self._name} {lane}")
            thread.daemon = True  # the process may end while a cluster hangs: nothing here needs an end in order
            thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._busy.isdisjoint(begun), self._patience_s)
            errors, self._errors = self._errors, []
        for error in errors[1:]:
            log.error("lanes of %s: one more error", self._name, exc_info=error)
        if errors:
            raise errors[0]
        return [lane for lane in work if lane not in begun]

    def drain(self, timeout_s: float, lanes: Collection[str] | None = None) -> list[str]:
        """Wait for what is under way, in all lanes or in these; returns the lanes that are not done in time."""

        def busy() -> set[str]:
            return self._busy if lanes is None else self._busy.intersection(lanes)

        with self._changed:
            self._changed.wait_for(lambda: not busy(), timeout_s)
            return sorted(busy())

    def _do(self, lane: str, work: Callable[[], object]) -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as raised:  # noqa: BLE001 - raised again in `run`
            error = raised
        with self._changed:
            self._busy.discard(lane)
            if error is not None:
                self._errors.append(error)
            self._changed.notify_all()
