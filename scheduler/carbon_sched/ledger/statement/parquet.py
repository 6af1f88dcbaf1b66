"""A statement's lines as Parquet (extra `reports`), with integers as decimals that hold them whole."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.ledger.statement.model import Line

if TYPE_CHECKING:
    from carbon_sched.ledger.statement.model import Statement


def parquet(statement: Statement) -> bytes:
    """One row per line, under the names of `model.Line`; the ledger's head and size are in the file's metadata.

    Sums are int64, which hold 2.5 TWh in microjoules. Raises InvalidInput where pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - of an extra
        from pyarrow import parquet as files  # noqa: PLC0415
    except ImportError:
        remedy = "Run: pip install 'carbon-sched[reports]'; or take csv"
        raise InvalidInput("format", "parquet", "needs pyarrow, which is not installed here", remedy) from None
    columns: dict[str, Any] = {
        field.name: pa.array(
            [getattr(line, field.name) for line in statement.lines],
            type=pa.int64() if field.type == "int" else pa.string(),
        )
        for field in fields(Line)
    }
    table = pa.table(columns)
    said = {"ledger_head": statement.ledger_head, "ledger_size": str(statement.ledger_size)}
    out = io.BytesIO()
    files.write_table(table.replace_schema_metadata(said), out)
    return out.getvalue()
