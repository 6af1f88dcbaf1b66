"""The `Transaction` port over one session: the repositories put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.store.access import AccessRows
from carbon_sched.store.attempts import AttemptRows
from carbon_sched.store.batches import BatchRows
from carbon_sched.store.budgets import BudgetRows
from carbon_sched.store.clusters import ClusterRows
from carbon_sched.store.energy import EnergyRows
from carbon_sched.store.jobs import JobRows
from carbon_sched.store.leases import LeaseRows
from carbon_sched.store.ledger import LedgerRows
from carbon_sched.store.outbox import OutboxRows
from carbon_sched.store.people import PeopleRows
from carbon_sched.store.plans import PlanRows
from carbon_sched.store.policies import PolicyRows
from carbon_sched.store.ray import RayRows
from carbon_sched.store.runs import RunRows
from carbon_sched.store.schedules import ScheduleRows
from carbon_sched.store.serve_apps import ServeAppRows
from carbon_sched.store.usage import UsageRows

if TYPE_CHECKING:
    from carbon_sched.store.session import Session


class SqlTransaction(
    JobRows,
    AttemptRows,
    OutboxRows,
    LeaseRows,
    UsageRows,
    ClusterRows,
    EnergyRows,
    RunRows,
    BatchRows,
    LedgerRows,
    PeopleRows,
    AccessRows,
    RayRows,
    PlanRows,
    PolicyRows,
    BudgetRows,
    ScheduleRows,
    ServeAppRows,
):
    """One atomic step; obligations are stated in `ports.Transaction`."""

    def __init__(self, session: Session) -> None:
        self._db = session
