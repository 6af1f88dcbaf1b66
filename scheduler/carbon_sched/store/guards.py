"""What the database refuses by trigger, whoever writes: illegal moves of a job, and any change of the ledger's past.

The SQL is generated, for both dialects, from the one table of moves in `domain/job.py`; a migration keeps the text that
was generated when it was written. A refusal arrives as an integrity error with the trigger's message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.job import TRANSITIONS, JobState
from carbon_sched.ledger.chain import GENESIS
from carbon_sched.store.tables import ACCEPTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.domain.job import JobEvent

GUARDS_VERSION = 3
"""Part of the functions' names on PostgreSQL: old and new code can run on one database while replicas are replaced."""


def guards(dialect: str, moves: Mapping[tuple[JobState, JobEvent], JobState] = TRANSITIONS) -> list[str]:
    """The statements that make all guards in an empty schema of `dialect` (`sqlite` or `postgresql`)."""
    rules = [*_job_rules(moves), *_LEDGER_RULES]
    make = {"sqlite": _sqlite, "postgresql": _postgresql}[dialect]
    statements = [statement for rule in rules for statement in make(*rule)]
    if dialect == "postgresql":
        # no row trigger fires for TRUNCATE, and SQLite has none
        function = f"ledger_refuses_delete_v{GUARDS_VERSION}"
        trigger = "CREATE TRIGGER ledger_refuses_truncate BEFORE TRUNCATE ON ledger FOR EACH STATEMENT"
        statements.append(f"{trigger} EXECUTE FUNCTION {function}()")
    return statements


_Rule = tuple[str, str, str, str, str]
"""Name, table, moment, the condition under which the row is refused, and the message."""


def _job_rules(moves: Mapping[tuple[JobState, JobEvent], JobState]) -> list[_Rule]:
    rows = sorted((old.value, event.value, new.value) for (old, event), new in moves.items())
    allowed = ",\n    ".join(str(row) for row in rows)
    start = f"NEW.state <> '{JobState.QUEUED.value}' OR NEW.event <> '{ACCEPTED}' OR NEW.version <> 0"
    move = f"(OLD.state, NEW.event, NEW.state) NOT IN (VALUES\n    {allowed})\n  OR NEW.version <> OLD.version + 1"
    return [
        ("jobs_begin", "jobs", "BEFORE INSERT", start, "a job begins as queued"),
        # it fires whenever the statement names one of the two columns, also when their values stay the same
        ("jobs_move", "jobs", "BEFORE UPDATE OF state, event", move, "the job cannot take this event in its state"),
    ]


_NOT_NEXT = f"""NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM ledger)
  OR NEW.prev <> COALESCE((SELECT hash FROM ledger WHERE seq = NEW.seq - 1), '{GENESIS}')"""  # noqa: S608 - a constant
_LEDGER_RULES: list[_Rule] = [
    ("ledger_grows", "ledger", "BEFORE INSERT", _NOT_NEXT, "the ledger grows at its end only"),
    ("ledger_refuses_update", "ledger", "BEFORE UPDATE", "", "entries of the ledger are never changed"),
    ("ledger_refuses_delete", "ledger", "BEFORE DELETE", "", "entries of the ledger are never removed"),
]


def _sqlite(name: str, table: str, moment: str, condition: str, message: str) -> list[str]:
    when = f"\nWHEN {condition}" if condition else ""
    return [f"CREATE TRIGGER {name} {moment} ON {table}{when}\nBEGIN\n  SELECT RAISE(ABORT, '{message}');\nEND"]


def _postgresql(name: str, table: str, moment: str, condition: str, message: str) -> list[str]:
    refuse = f"RAISE EXCEPTION '{message}' USING ERRCODE = 'check_violation';"
    body = f"  IF {condition} THEN\n    {refuse}\n  END IF;\n  RETURN NEW;" if condition else f"  {refuse}"
    function = f"{name}_v{GUARDS_VERSION}"
    return [
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$\nBEGIN\n{body}\nEND $$",
        f"CREATE TRIGGER {name} {moment} ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()",
    ]
