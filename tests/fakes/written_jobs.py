"""Jobs that only the database and the ledger know: nothing ran, everything is said to have been."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.job import Job, JobEvent, JobSpec, JobState
from carbon_sched.domain.time import UTC
from carbon_sched.ledger.encoding import decode_fact
from tests.fakes.ledger import KWH, WrittenLedger, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fakes.world import World

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


def append(world: World, written: WrittenLedger) -> None:
    """To the ledger of a server."""
    with world.store.transaction() as tx:
        tx.append_facts([decode_fact(entry.payload) for entry in written.entries])


def stored(world: World, texts: Sequence[str]) -> list[str]:
    """One job for each text, which is its name, every label of it, its command and its metadata; half of them ended."""
    ids, written = [], WrittenLedger()
    with world.store.transaction() as tx:
        for number, text in enumerate(texts):
            labels = {"team": text, "project": text, "model": text, "stage": text, "submitter": text}
            spec = JobSpec(text, text, metadata={text: text}, **labels)
            job = Job(f"text{number:06d}", spec, JobState.QUEUED, world.clock.now(), reason=text)
            job = tx.add_job(job, idempotency_key=None, request_sha256="0" * 64)
            if number % 2:
                tx.move_job(job, JobEvent.STOPPED, at=world.clock.now(), reason=text)
            ids.append(job.job_id)
            written.job(job.job_id, name=text, team=text, project=text, model=text)
            written.energy(written.opened(job.job_id), span(BEGIN, BEGIN + timedelta(hours=1), KWH, f"gpu-{number}"))
    append(world, written)
    return ids
