"""Runs as Arrow tables (extra `arrow`): for pandas, Polars, DuckDB and Parquet."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfruns._table import arrow as _arrow
from tfruns._table.arrow import SCHEMA
from tfruns.models import JobRun

if TYPE_CHECKING:
    import pyarrow

__all__ = ["SCHEMA", "record_batch", "table"]


def record_batch(job_id: str, runs: Sequence[JobRun]) -> "pyarrow.RecordBatch":
    """Some runs of a job as an Arrow record batch with `SCHEMA`.

    Args:
        job_id: id of the job.
        runs: the runs.

    Returns:
        A row for each run, in their order.

    Raises:
        ValueError: a number is beyond what 64 bits hold.

    Example:
        >>> from tfruns.arrow import record_batch
        >>> page = await client.list_runs("my-job-id", limit=10)
        >>> record_batch("my-job-id", page.data).num_rows
        10

    .. versionadded:: 0.1.0
    """
    return _arrow.record_batch(job_id, runs)


def table(batches: "Sequence[pyarrow.RecordBatch]") -> "pyarrow.Table":
    """Record batches with `SCHEMA` as one table, with one dictionary for each column that has them.

    Args:
        batches: the batches.

    Returns:
        Their rows, in their order.

    Raises:
        ValueError: a batch has another schema.

    Example:
        >>> from tfruns.arrow import table
        >>> runs = client.iter_runs("my-job-id", page_size=100)
        >>> table([batch async for batch in runs.arrow_batches()]).num_rows
        250

    .. versionadded:: 0.1.0
    """
    return _arrow.table(batches)
