"""The whole schema as SQL text, generated from `tables.py` and `guards.py`.

Migrations keep the text they were written with; `python -m carbon_sched.store.ddl sqlite` (or `postgresql`) prints the
present one.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from carbon_sched.store.guards import guards
from carbon_sched.store.tables import metadata

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

DIALECTS: dict[str, Dialect] = {"sqlite": sqlite.dialect(), "postgresql": postgresql.dialect()}  # type: ignore[no-untyped-call]


def statements(dialect: str) -> list[str]:
    """Every statement that makes the schema in an empty database, tables before what refers to them. No empty lines."""
    compiler, made = DIALECTS[dialect], []
    for table in metadata.sorted_tables:
        made.append(CreateTable(table).compile(dialect=compiler))
        made += [CreateIndex(i).compile(dialect=compiler) for i in sorted(table.indexes, key=lambda i: str(i.name))]
    return [re.sub(r"\s*\n", "\n", str(ddl).strip().replace("\t", "  ")) for ddl in made] + guards(dialect)


def main() -> None:
    """Print the schema, one empty line between statements."""
    sys.stdout.write("\n\n".join(statements(sys.argv[1])) + "\n")


if __name__ == "__main__":
    main()
