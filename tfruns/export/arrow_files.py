"""Parquet and Arrow files. A piece is a record batch, as DuckDB's tables have it too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfruns.export.compress import pack, unpack
from tfruns.export.writer import File, Writer, needed
from tfruns.models import JobRun

_ROWS_A_GROUP = 64_000
_BYTES_A_GROUP = 16 * 2**20
"""Rows that are written together: enough to be read fast, and few enough to be held."""


def arrow_piece(job_id: str, runs: Sequence[JobRun], texts: Sequence[bytes]) -> bytes:
    """A piece of `parquet`, `arrow` and DuckDB."""
    batch = arrow_module().plain_batch([job_id] * len(runs), runs)
    return pack(batch.serialize())


def arrow_module() -> Any:
    """`tfruns.arrow`."""
    needed("pyarrow", "arrow")
    from tfruns import arrow

    return arrow


class Groups:
    """Gathers record batches out of pieces, and writes many rows at a time."""

    def __init__(self, write: Any) -> None:
        self._arrow = arrow_module()
        self._write = write
        self._batches: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, piece: bytes) -> None:
        """Add a piece."""
        pa = self._arrow.pa
        try:
            batch = pa.ipc.read_record_batch(pa.py_buffer(unpack(piece)), self._arrow.PLAIN_SCHEMA)
        except pa.ArrowException as error:
            raise ValueError(f"a damaged piece: {error}") from None
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= _ROWS_A_GROUP or self._bytes >= _BYTES_A_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what is left."""
        if self._batches:
            table = self._arrow.pa.Table.from_batches(self._batches)
            self._batches, self._rows, self._bytes = [], 0, 0
            self._write(table)


class _ArrowFile(File):
    def __init__(self, writer: Any, schema: Any) -> None:
        self._writer = writer
        self._schema = schema
        self._groups = Groups(self._write)

    def _write(self, table: Any) -> None:
        self._writer.write_table(table if table.schema == self._schema else table.cast(self._schema))

    def write(self, piece: bytes) -> None:
        self._groups.add(piece)

    def close(self) -> None:
        self._groups.flush()
        self._writer.close()

    def abandon(self) -> None:
        self._writer.close()


def parquet(path: Path) -> Writer:
    """A Parquet file, compressed with zstd."""
    schema = arrow_module().SCHEMA
    return _ArrowFile(needed("pyarrow.parquet", "arrow").ParquetWriter(path, schema, compression="zstd"), schema)


def arrow(path: Path) -> Writer:
    """An Arrow IPC file, compressed with zstd. Its strings are written out: the format has one dictionary for all."""
    ipc = needed("pyarrow", "arrow").ipc
    schema = arrow_module().PLAIN_SCHEMA
    return _ArrowFile(ipc.new_file(str(path), schema, options=ipc.IpcWriteOptions(compression="zstd")), schema)
