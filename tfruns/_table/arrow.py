"""Runs as Arrow record batches."""

from collections.abc import Sequence
from typing import Any

from tfruns._extras import install
from tfruns._table.columns import COLUMNS, JOB_ID, Kind, values_of
from tfruns.models import JobRun

try:
    import pyarrow as pa
except ImportError as error:
    raise ImportError(f"Arrow tables need pyarrow: {install('arrow')}") from error

_WORD = pa.dictionary(pa.int32(), pa.string())
_TYPES = {
    Kind.TEXT: pa.string(),
    Kind.WORD: _WORD,
    Kind.COUNT: pa.int64(),
    Kind.INSTANT: pa.timestamp("us", tz="UTC"),
}

SCHEMA = pa.schema(
    [
        pa.field(JOB_ID, _WORD, nullable=False),
        *(pa.field(column.name, _TYPES[column.kind], nullable=column.is_nullable) for column in COLUMNS),
    ]
)
"""The columns of the table: moments as UTC timestamps in microseconds, and repeated strings dictionary-encoded."""

PLAIN_SCHEMA = pa.schema(
    [pa.field(field.name, pa.string() if field.type == _WORD else field.type, field.nullable) for field in SCHEMA]
)
"""The same, with every string written out."""


def record_batch(job_id: str, runs: Sequence[JobRun]) -> pa.RecordBatch:
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
    """
    return mixed_batch([job_id] * len(runs), runs)


def table(batches: Sequence[pa.RecordBatch]) -> pa.Table:
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
    """
    return pa.Table.from_batches(batches, SCHEMA).unify_dictionaries()


def mixed_batch(job_ids: Sequence[str], runs: Sequence[JobRun]) -> pa.RecordBatch:
    """Some runs, each with the id of its job, as a record batch with `SCHEMA`."""
    return _batch(SCHEMA, runs, pa.array(job_ids, _WORD))


def plain_batch(job_ids: Sequence[str], runs: Sequence[JobRun]) -> pa.RecordBatch:
    """Some runs, each with the id of its job, as a record batch with `PLAIN_SCHEMA`."""
    return _batch(PLAIN_SCHEMA, runs, pa.array(job_ids, pa.string()))


def _batch(schema: pa.Schema, runs: Sequence[JobRun], job_ids: Any) -> pa.RecordBatch:
    made = [job_ids]
    for column, type_, values in zip(COLUMNS, schema.types[1:], values_of(runs), strict=True):
        try:
            made.append(_moments(values) if column.kind is Kind.INSTANT else pa.array(values, type_))
        except (OverflowError, pa.ArrowInvalid) as error:
            raise ValueError(f"{column.name} holds a number that 64 bits can't: {error}") from None
    return pa.RecordBatch.from_arrays(made, schema=schema)


def _moments(values: Sequence[Any]) -> Any:
    type_ = _TYPES[Kind.INSTANT]
    if float in set(map(type, values)):
        return pa.array([None if value is None else round(value * 1000) for value in values], type_)
    return pa.array(values, pa.int64()).cast(pa.timestamp("ms", tz="UTC")).cast(type_)
