"""Runs as record batches for Spark. A run that can't be a row becomes a corrupt record, as in Spark's own sources."""

import json
import logging
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from tfruns._decode.body import decode_runs
from tfruns._payload import wire_name
from tfruns._table.arrow import PLAIN_SCHEMA, plain_batch
from tfruns._table.columns import COLUMNS, LIMITS
from tfruns.models import JobRun, RawPage

logger = logging.getLogger("tfruns")

_NUMBERS = [(column.name, *LIMITS[column.kind]) for column in COLUMNS if column.kind in LIMITS]
_REQUIRED = {
    wire_name(field.name): "" if field.type == pa.string() else 0 for field in PLAIN_SCHEMA if not field.nullable
}
"""Values for the fields that a corrupt record lacks, which are null in its row."""


def schema(corrupt_column: str | None) -> StructType:
    """The columns. A corrupt record may lack any of them but the job's id."""
    return from_arrow_schema(PLAIN_SCHEMA if corrupt_column is None else _with_text(corrupt_column))


def batches(pages: Sequence[tuple[str, RawPage]], mode: str, corrupt_column: str | None) -> Iterator[pa.RecordBatch]:
    """The runs of some pages, each with the id of its job."""
    rows: list[tuple[str, JobRun]] = []
    bad: list[tuple[str, bytes, set[str]]] = []
    for job_id, page in pages:
        unfit = _unfit(page.data)
        rows += [(job_id, run) for at, run in enumerate(page.data) if at not in unfit]
        bad += [(job_id, run.text, {each.field for each in run.problems}) for run in page.bad]
        texts = page.texts if unfit else ()
        for at, names in unfit.items():
            if mode == "failfast":
                what = f"job {job_id!r}, run {page.data[at].id!r}: Spark can't hold its {', '.join(names)}"
                raise ValueError(f"{what}; mode=PERMISSIVE makes such a run a corrupt record")
            bad.append((job_id, texts[at], set(map(wire_name, names))))
    batch = plain_batch([job_id for job_id, _ in rows], [run for _, run in rows])
    if corrupt_column is not None:
        columns = _with_text(corrupt_column)
        batch = pa.RecordBatch.from_arrays([*batch.columns, pa.nulls(batch.num_rows, pa.string())], schema=columns)
        yield batch
        yield from (_corrupt(*each, columns) for each in bad)
    else:
        yield batch
        if bad:
            logger.warning("dropped: %d runs that can't be understood, the first of job %r", len(bad), bad[0][0])


def _with_text(corrupt_column: str) -> pa.Schema:
    job_id, *fields = PLAIN_SCHEMA
    return pa.schema([job_id, *(field.with_nullable(True) for field in fields), pa.field(corrupt_column, pa.string())])


def _unfit(runs: Sequence[JobRun]) -> dict[int, list[str]]:
    """The places of the runs with numbers that Spark can't hold, and the names of those."""
    unfit: dict[int, list[str]] = {}
    for name, least, most in _NUMBERS:
        for at, run in enumerate(runs):
            value = getattr(run, name)
            if value is not None and not least <= value <= most:
                unfit.setdefault(at, []).append(name)
    return unfit


def _corrupt(job_id: str, text: bytes, wrong: Collection[str], columns: pa.Schema) -> pa.RecordBatch:
    """A row with the text of a run and those of its fields that can be understood; the others are null."""
    content = json.loads(text)
    roots = {field.partition(".")[0] for field in wrong}
    fields = {name: value for name, value in content.items() if name not in roots} if isinstance(content, dict) else {}
    runs = decode_runs(json.dumps([_REQUIRED | fields]).encode(), job_id=job_id)
    row = plain_batch([job_id], runs).to_pylist()[0]
    row |= {column.name: None for column in COLUMNS if wire_name(column.name) in _REQUIRED.keys() - fields.keys()}
    return pa.RecordBatch.from_pylist([{**row, columns.names[-1]: text.decode("utf-8", "replace")}], columns)
