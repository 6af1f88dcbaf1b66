"""Take energy segments that nodes push, for clusters whose nodes do not outlive their jobs."""

from __future__ import annotations

import hmac
import threading
from collections import deque
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput, NotAllowed, NotFound, TooLarge, TooMany
from carbon_sched.meter_keys import parse_meter_key
from carbon_sched.service.journal import BadJournal, checked
from carbon_sched.service.pull import CLOCK_SKEW
from carbon_sched.service.shelf import FILES_A_MINUTE, MINUTE_S
from carbon_sched_runtime.wire import SEGMENT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import Clock, Store, Vault
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.journal import Segment
    from carbon_sched.service.keep import Keep


def push_token(vault: Vault, attempt_id: str) -> str:
    """What lets an attempt deliver its segments, and nothing else; nobody without the vault's key can make one."""
    return vault.fingerprint(f"push {attempt_id}")


class Receive:
    """`arrived(attempt, segment)` hears of each that was taken, for what the receipt is to say of it."""

    def __init__(
        self, store: Store, fleet: Fleet, vault: Vault, keep: Keep, clock: Clock,
        arrived: Callable[[Attempt, Segment], None],
    ) -> None:  # fmt: skip
        self._store, self._fleet, self._vault, self._keep = store, fleet, vault, keep
        self._clock, self._arrived = clock, arrived
        self._mutex = threading.Lock()
        self._taken_at: dict[str, deque[float]] = {}

    def attempt(self, attempt_id: str, token: str) -> Attempt:
        """Who pushes; NotAllowed for another's token, and for attempts that do not exist."""
        if not hmac.compare_digest(token.encode(), push_token(self._vault, attempt_id).encode()):
            message = "the token is not that of this attempt"
            raise NotAllowed(message)
        with self._store.transaction(write=False) as tx:
            return tx.attempt(attempt_id)

    def segment(self, attempt: Attempt, name: str, chunks: Iterator[bytes]) -> None:
        """Store it once. InvalidInput for what is none of ours, Conflict for other content, TooMany in a flood."""
        self._require_turn(attempt.attempt_id)
        data = _whole(name, chunks)
        try:
            keys = tuple(map(parse_meter_key, self._fleet.get(attempt.cluster).meter_keys))
        except NotFound:
            keys = ()
        try:
            segment = checked(data, name, attempt.cluster, keys)
        except BadJournal as error:
            raise InvalidInput(
                "segment", name, f"is refused: {error}", "Push what the meter wrote, as it is"
            ) from error
        if segment.end > self._clock.now() + CLOCK_SKEW:
            raise InvalidInput("segment", name, "speaks of a time that has not come", "Set the node's clock (NTP)")
        self._keep.segment(attempt, segment)
        self._arrived(attempt, segment)

    def _require_turn(self, attempt_id: str) -> None:
        now = self._clock.monotonic()
        with self._mutex:
            self._taken_at = {who: taken for who, taken in self._taken_at.items() if taken[-1] > now - MINUTE_S}
            taken = self._taken_at.setdefault(attempt_id, deque(maxlen=FILES_A_MINUTE))
            if len(taken) == FILES_A_MINUTE and taken[0] > now - MINUTE_S:
                raise TooMany(f"{attempt_id} pushes more than {FILES_A_MINUTE} segments a minute. Try again later")
            taken.append(now)


def _whole(name: str, chunks: Iterator[bytes]) -> bytes:
    data = b""
    for chunk in chunks:
        data += chunk
        if len(data) > SEGMENT_LIMIT:
            raise TooLarge("segment", name, f"is over {SEGMENT_LIMIT} bytes", "Push what the meter wrote, as it is")
    return data
