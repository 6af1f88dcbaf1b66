"""Routes for the auditor: entries, verification, reports."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from carbon_sched.api.access import Admin, Auditor, Reader, Submitter
from carbon_sched.api.context import Ctx
from carbon_sched.api.instants import aware
from carbon_sched.domain.job import Phase
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.account import Period
from carbon_sched.ledger.copy import line_of
from carbon_sched.ledger.declaration import Declaration
from carbon_sched.ledger.export import MEDIA_TYPES, render
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import formats
from carbon_sched.ledger.statement import statement as compute
from carbon_sched.service.declare import Declarations
from carbon_sched.service.imports import Imports
from carbon_sched.wire import Imported, ImportRequest, SealView, VerifyView

router = APIRouter(prefix="/v1")

PAGE = 1000
LAST = 2**63 - 1
"""The highest number under which a database can keep an entry."""


@router.get("/ledger/entries")
def entries(
    context: Ctx,
    _caller: Auditor,
    after: Annotated[int, Query(ge=0, le=LAST)] = 0,
    limit: Annotated[int | None, Query(ge=1, le=LAST)] = None,
) -> StreamingResponse:
    """The ledger as JSON lines, exactly the bytes that were hashed."""

    def pages() -> Iterator[bytes]:
        seq, left = after, limit
        while left is None or left > 0:
            with context.store.transaction(write=False) as tx:
                page = tx.entries(after_seq=seq, limit=min(PAGE, left or PAGE))
            if not page:
                return
            yield b"".join(map(line_of, page))
            seq, left = page[-1].seq, None if left is None else left - len(page)

    return StreamingResponse(pages(), media_type="application/x-ndjson")


@router.get("/ledger/verify")
def verify(context: Ctx, _caller: Auditor) -> VerifyView:
    """Walk the whole chain."""
    found = context.statements.verify()
    return {
        "ok": found.ok,
        "size": found.size,
        "head": found.head,
        "first_bad_seq": found.first_bad_seq,
        "problem": found.problem,
    }


@router.get("/ledger/seal")
def newest_seal(context: Ctx, _caller: Auditor) -> SealView:
    """The newest seal that this server made, by which key, and which places could not be written."""
    made = context.sealing.last
    return {
        "key": str(context.sealing.key),
        "line": made.line() if made else None,
        "sealed_at": to_rfc3339(made.at) if made else None,
        "size": made.checkpoint.size if made else None,
        "places": context.sealing.places,
        "problems": context.sealing.problems,
    }


@router.get("/report")
def report(
    context: Ctx,
    caller: Reader,
    job: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    team: str | None = None,
    project: str | None = None,
    phase: Phase | None = None,
    form: Annotated[str, Query(alias="format", pattern="^(json|csv|md|text)$")] = "json",
) -> Response:
    """A report over the jobs that match; energy counts by when it was used."""
    period = Period(aware("since", since), aware("until", until))
    selection = Selection(
        jobs=(job,) if job else (),
        team=caller.team_of(team),
        project=project,
        phase=phase and phase.value,
        period=period,
    )
    return Response(render(context.statements.report(selection), form), media_type=MEDIA_TYPES[form])


@router.get("/statement")
def statement(
    context: Ctx,
    caller: Reader,
    job: Annotated[list[str] | None, Query(max_length=1000)] = None,
    since: datetime | None = None,
    until: datetime | None = None,
    team: str | None = None,
    project: str | None = None,
    model: str | None = None,
    phase: Phase | None = None,
    cluster: str | None = None,
    form: Annotated[str, Query(alias="format", pattern=f"^({'|'.join(formats.MEDIA_TYPES)})$")] = "json",
) -> Response:
    """The statement over the jobs that match, as a file; energy counts by when it was used."""
    period = Period(aware("since", since), aware("until", until))
    of_phase = phase and phase.value
    selection = Selection(tuple(job or ()), caller.team_of(team), project, model, of_phase, cluster, period)
    made = formats.render(context.statements.over(period, lambda book: compute(book, selection)), form)
    return Response(made, media_type=formats.MEDIA_TYPES[form])


@router.post("/ledger/imports", status_code=201)
def import_emissions(request: ImportRequest, context: Ctx, caller: Submitter) -> Imported:
    """Take CodeCarbon's emissions.csv as what it said; shown apart from what was metered."""
    imports = Imports(context.store, context.statements, context.clock)
    team = caller.team_of(request.get("team")) or ""
    return {"runs": imports.codecarbon(request, team=team, person=caller.name)}


@router.post("/ledger/declaration", status_code=204)
def declare(context: Ctx, caller: Admin, declaration: Declaration) -> None:
    """Declare what statements need to be told; the newest declaration holds."""
    Declarations(context.store, context.clock).declare(declaration, caller.name)
