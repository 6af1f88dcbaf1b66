"""The client of a local head: what earlier lives of the head left on this machine's disk is read there.

A head that was killed answers no more for its session, and the next one does not know the old one's node. Its session
logs lie where they were, with the energy journals and records of the jobs that it took along.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from carbon_sched.clusters.ray_client import RayClient
from carbon_sched.domain.errors import ClusterError, ClusterRefused
from carbon_sched_runtime.machine import read_plain

if TYPE_CHECKING:
    from carbon_sched.clusters.local_head import LocalRayHead
    from carbon_sched.ports import Clock


class LocalClient(RayClient):
    """As `RayClient`; files that the head does not give are looked for in the folders of its sessions."""

    def __init__(self, head: LocalRayHead, clock: Clock) -> None:
        super().__init__(head.name, head.endpoint, clock)
        self._head = head

    def list_files(self, node_id: str, pattern: str) -> list[str]:
        """Names that match the glob, sorted: of the node's session, or where that is over, of all on this disk."""
        try:
            return super().list_files(node_id, pattern)
        except ClusterError:
            folders = self._head.log_folders()
            if not folders:
                raise
            return sorted(
                {path.name for folder in folders for path in folder.iterdir() if fnmatchcase(path.name, pattern)}
            )

    def read_file(self, node_id: str, name: str, *, limit: int) -> bytes:
        """One file, byte for byte; ClusterRefused when there is none, it is no plain file or larger than `limit`."""
        try:
            return super().read_file(node_id, name, limit=limit)
        except ClusterError as error:
            found = (read_plain(str(folder / name), limit) for folder in self._head.log_folders())
            data = next((one for one in found if one is not None), None)
            if data is None:
                message = f"{self._head.name}: file {name}: {error}"
                raise ClusterRefused(message) from error
            return data
