"""Parquet and Arrow files. A piece is a record batch, as for the tables of DuckDB and PostgreSQL."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfruns._table.columns import COLUMNS, LIMITS, Kind
from tfruns.export.files import fresh_file
from tfruns.export.writer import Writer, needed
from tfruns.models import RawPage

ARROW_MODULES = ("pyarrow", "pyarrow.compute", "pyarrow.parquet", "tfruns._table.arrow")
_ROWS_A_GROUP = 64_000
_BYTES_A_GROUP = 8 * 2**20  # how many rows are written together: enough to be read fast, and few enough for memory


def arrow_module() -> Any:
    needed("pyarrow", "arrow")
    from tfruns._table import arrow

    return arrow


def arrow_piece(job_id: str, page: RawPage) -> Any:
    return arrow_batch(job_id, page).serialize()


def arrow_batch(job_id: str, page: RawPage) -> Any:
    batch = arrow_module().plain_batch([job_id] * len(page.data), page.data)  # which refuses numbers beyond 64 bits
    least, most = LIMITS[Kind.INSTANT]
    for column in COLUMNS:
        if column.kind is Kind.INSTANT:
            found = needed("pyarrow.compute", "arrow").min_max(batch.column(column.name).view("int64")).as_py()
            if found["min"] is not None and not least * 1000 <= found["min"] <= found["max"] <= most * 1000:
                raise ValueError(f"{column.name} is beyond the years 1 to 9999")
    return batch


def read_piece(piece: bytes) -> Any:
    arrow = arrow_module()
    return arrow.pa.ipc.read_record_batch(arrow.pa.py_buffer(piece), arrow.PLAIN_SCHEMA)


class ArrowFile(Writer):
    """Gathers the record batches of pieces, and gives many rows at a time to a writer of pyarrow's, which is made by
    `open_`."""

    def __init__(self, path: Path, schema: Any, open_: Callable[..., Any], **options: Any) -> None:
        os.close(fresh_file(path))
        self._writer = open_(str(path), schema, **options)
        self._schema = schema
        self._batches: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, piece: bytes) -> None:
        batch = read_piece(piece)
        if self._bytes + batch.nbytes > _BYTES_A_GROUP:
            self._flush()
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= _ROWS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._batches:
            table = arrow_module().pa.Table.from_batches(self._batches).combine_chunks()
            self._batches, self._rows, self._bytes = [], 0, 0
            self._writer.write_table(table if table.schema == self._schema else table.cast(self._schema))

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()
        arrow_module().pa.default_memory_pool().release_unused()  # which DuckDB may need now


def parquet_file(path: Path) -> Writer:
    return ArrowFile(path, arrow_module().SCHEMA, needed("pyarrow.parquet", "arrow").ParquetWriter, compression="zstd")


def staged_file(path: Path) -> Writer:
    """A Parquet file that DuckDB reads, compressed fast."""
    schema = arrow_module().PLAIN_SCHEMA
    return ArrowFile(path, schema, needed("pyarrow.parquet", "arrow").ParquetWriter, compression="lz4")


def arrow_file(path: Path) -> Writer:
    """An Arrow IPC file, which PostgreSQL's driver is given, too. Its strings are written out: the format has one
    dictionary for all."""
    ipc = arrow_module().pa.ipc
    # Its threads would take twice the time, as they compress each column of a few rows.
    options = ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    return ArrowFile(path, arrow_module().PLAIN_SCHEMA, ipc.new_file, options=options)
