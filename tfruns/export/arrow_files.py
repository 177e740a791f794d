"""Parquet and Arrow files. A piece is a record batch, as for DuckDB's tables."""

import os
from pathlib import Path
from typing import Any

from tfruns._table.columns import LIMITS, Kind
from tfruns.export.compress import pack, unpack
from tfruns.export.files import fresh_file
from tfruns.export.rows import INSTANTS
from tfruns.export.writer import Writer, needed
from tfruns.models import RawPage

_ROWS_A_GROUP = 64_000
_BYTES_A_GROUP = 8 * 2**20
"""How many rows are written together: enough to be read fast, and few enough for memory."""


def arrow_piece(job_id: str, page: RawPage) -> bytes:
    """A piece of `parquet`, `arrow` and DuckDB."""
    return pack(arrow_batch(job_id, page).serialize())


def arrow_batch(job_id: str, page: RawPage) -> Any:
    """Some runs as a record batch."""
    batch = arrow_module().plain_batch([job_id] * len(page.data), page.data)  # which refuses numbers beyond 64 bits
    least, most = LIMITS[Kind.INSTANT]
    for name in INSTANTS:
        found = needed("pyarrow.compute", "arrow").min_max(batch.column(name).view("int64"))
        if found["min"].is_valid and not least * 1000 <= found["min"].as_py() <= found["max"].as_py() <= most * 1000:
            raise ValueError(f"{name} is beyond the years 1 to 9999")
    return batch


def read_piece(piece: bytes) -> Any:
    """The record batch of a piece."""
    arrow = arrow_module()
    try:
        return arrow.pa.ipc.read_record_batch(arrow.pa.py_buffer(unpack(piece)), arrow.PLAIN_SCHEMA)
    except arrow.pa.ArrowException as error:
        raise ValueError(f"a damaged piece: {error}") from None


def arrow_module() -> Any:
    """`tfruns._table.arrow`."""
    needed("pyarrow", "arrow")
    from tfruns._table import arrow

    return arrow


class ArrowFile:
    """Gathers the record batches of pieces, and writes many rows at a time.

    Args:
        writer: pyarrow's writer.
        schema: what it writes.

    Attributes:
        rows: how many were added.
        bytes: what they take in memory.
    """

    def __init__(self, writer: Any, schema: Any) -> None:
        self.rows = self.bytes = 0
        self._arrow = arrow_module()
        self._writer = writer
        self._schema = schema
        self._batches: list[Any] = []
        self._rows = self._bytes = 0

    def write(self, piece: bytes) -> None:
        batch = read_piece(piece)
        if self._rows and self._bytes + batch.nbytes > _BYTES_A_GROUP:
            self._flush()
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= _ROWS_A_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._arrow.pa.default_memory_pool().release_unused()  # which DuckDB may need now

    def abandon(self) -> None:
        self._writer.close()

    def _flush(self) -> None:
        if self._batches:
            self.rows += self._rows
            self.bytes += self._bytes
            table = self._arrow.pa.Table.from_batches(self._batches)
            self._batches, self._rows, self._bytes = [], 0, 0
            self._writer.write_table(table if table.schema == self._schema else table.cast(self._schema))


def parquet(path: Path, scratch: Path) -> Writer:
    """A Parquet file, compressed with zstd."""
    os.close(fresh_file(path))
    schema = arrow_module().SCHEMA
    return ArrowFile(needed("pyarrow.parquet", "arrow").ParquetWriter(path, schema, compression="zstd"), schema)


def arrow(path: Path, scratch: Path) -> Writer:
    """An Arrow IPC file, compressed with zstd. Its strings are written out: the format has one dictionary for all."""
    os.close(fresh_file(path))
    ipc = needed("pyarrow", "arrow").ipc
    schema = arrow_module().PLAIN_SCHEMA
    return ArrowFile(ipc.new_file(str(path), schema, options=ipc.IpcWriteOptions(compression="zstd")), schema)
