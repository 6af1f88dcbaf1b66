"""One open transaction on one connection: runs statements and turns the database's errors into ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from carbon_sched.domain.errors import Conflict, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Executable, Row

REMEDIES = {
    "disk is full": "Free some space where it lies",
    "No space left": "Free some space where it lies",
    "readonly database": "Make the disk and the folder that it lies in writable",
}
"""What to do, by what SQLite or PostgreSQL says."""
_OUR_BUGS = (exc.ProgrammingError, exc.DataError, exc.NotSupportedError)


class Session:
    """What the repositories write with. After a failed statement nothing of the transaction can be committed."""

    def __init__(self, connection: Connection, *, write: bool, now: Callable[[], datetime]) -> None:
        """`now` gives database time; a session that is not for `write` refuses to."""
        self._connection, self._write, self.now = connection, write, now
        self.failure: Exception | None = None

    def rows(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Sequence[Row[Any]]:
        """All rows of a query."""
        with self._guarded():
            return self._connection.execute(statement, parameters).all()

    def first(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Row[Any] | None:
        """The first row of a query, or None."""
        with self._guarded():
            return self._connection.execute(statement, parameters).first()

    def write(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> int:
        """Run an INSERT, UPDATE or DELETE; returns the number of rows it touched.

        Raises Conflict when a constraint or trigger refuses.
        """
        with self._writing():
            return self._connection.execute(statement, parameters).rowcount

    def write_many(self, statement: Executable, parameters: Sequence[Mapping[str, Any]]) -> int:
        """Run one statement for each of the parameter sets; returns the rows touched in all. No sets, no statement."""
        with self._writing():
            return self._connection.execute(statement, parameters).rowcount if parameters else 0

    def insert_one(self, statement: Executable, parameters: Mapping[str, Any]) -> Any:
        """Run an INSERT into a table with a counted key and return that key."""
        with self._writing():
            key = self._connection.execute(statement, parameters).inserted_primary_key
            return key[0] if key else None

    def require_sound(self) -> None:
        """Raise the error of the statement that failed, if one did and somebody caught it."""
        if self.failure is not None:
            raise self.failure

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if not self._write:
            raise RuntimeError("this transaction was begun with write=False")
        with self._guarded():
            yield

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with translated():
                yield
        except Exception as error:
            # PostgreSQL would refuse the rest of the transaction, SQLite would go on: make both refuse
            self.failure = error
            raise


@contextmanager
def translated() -> Iterator[None]:
    """Conflict for what a constraint or trigger refused, StoreError for a database that cannot be used now."""
    try:
        yield
    except exc.IntegrityError as error:
        raise Conflict(f"the database refused the change: {_first_line(error)}. Load the state again") from error
    except _OUR_BUGS:
        raise
    except (exc.DBAPIError, exc.TimeoutError) as error:
        said = _first_line(error)
        remedy = next((words for sign, words in REMEDIES.items() if sign in said), "Try again")
        raise StoreError(f"the database cannot be used right now: {said}. {remedy}") from error


def _first_line(error: exc.SQLAlchemyError) -> str:
    """What the driver said, without SQLAlchemy's copy of statement and values."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
