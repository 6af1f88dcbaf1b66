"""What a caller may ask a job to be: in a team of theirs, with secrets of that team only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.errors import Forbidden

if TYPE_CHECKING:
    from pathlib import Path

    from carbon_sched.domain.access import Principal
    from carbon_sched.wire import JobRequest


class Boundaries:
    """Narrows requests. `secrets_dir` holds one folder per team with files that its jobs may name as secrets."""

    def __init__(self, secrets_dir: Path | None = None) -> None:
        self._secrets_dir = secrets_dir

    def request(self, request: JobRequest, caller: Principal) -> JobRequest:
        """The request in the caller's team, its secrets as paths the server may read for that team.

        Raises Forbidden for another team, and for secrets that are not the team's. The server's own user is bound by
        neither: what the server can read is theirs anyway.
        """
        if caller.owner:
            return request
        team = caller.team_of(request.get("team"))
        narrowed: JobRequest = {**request, "team": team or ""}
        if "secrets" in request:
            narrowed["secrets"] = {name: self._secret(ref, team or "") for name, ref in request["secrets"].items()}
        return narrowed

    def _secret(self, reference: str, team: str) -> str:
        kind, _, where = reference.partition(":")
        if self._secrets_dir is None or kind != "file" or not team:
            raise Forbidden(
                "secrets of jobs are files in the team's folder on the server; write file:NAME, have an operator put "
                "the file there (`secrets_dir` in the server's settings), and submit with a team"
            )
        folder = (self._secrets_dir / team).resolve()
        path = (folder / where).resolve()
        if folder.parent != self._secrets_dir.resolve() or not path.is_relative_to(folder) or path == folder:
            raise Forbidden(f"secret file:{where} is not in the folder of team {team!r}")
        return f"file:{path}"


def key_of(caller: Principal, idempotency_key: str | None) -> str | None:
    """An idempotency key as it is stored: everybody has their own. No header holds a line break, so none collide."""
    return idempotency_key if idempotency_key is None or caller.owner else f"{caller.name}\n{idempotency_key}"
