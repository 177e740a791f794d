"""The data source, in the form of Spark's Python API: which jobs a task reads, and its batches of their runs.

A run that can't be a row becomes a corrupt record, as in Spark's own sources.
"""

import asyncio
import contextlib
import heapq
import json
import logging
import math
from collections.abc import AsyncGenerator, Collection, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from tfruns._decode.body import decode_runs
from tfruns._loop_thread import LoopThread
from tfruns._payload import wire_name
from tfruns._table.arrow import PLAIN_SCHEMA, plain_batch
from tfruns._table.columns import COLUMNS, beyond_limits
from tfruns.client import Client
from tfruns.errors import NotFoundError, PermissionDeniedError, TfRunsError
from tfruns.models import JobRun, RawPage
from tfruns.query import RunFilter
from tfruns.spark.options import OF_SERVER, Options, of_table, parse
from tfruns.types import OnError

logger = logging.getLogger("tfruns")

_NAMED = 10
_ROWS = 2_000
"""A batch has so many rows, or up to a page more."""
_OPTIONS = "tfruns.options"
"""Where the options of a table are: Spark keeps the metadata of columns, and hands a query nothing else of a table."""
_REQUIRED = {
    wire_name(field.name): "" if field.type == pa.string() else 0 for field in PLAIN_SCHEMA if not field.nullable
}
"""Values for the fields that a corrupt record lacks, which are null in its row."""


class _plain_errors(contextlib.ContextDecorator):  # noqa: N801
    """Our own errors reach the driver with their message alone, without the frames that lead there.

    (A generator as a context manager would put these back.)
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (TfRunsError, ValueError, TypeError)):
            raise error.with_traceback(None) from None


class TfRunsDataSource(DataSource):
    """Job runs as a Spark data source: `spark.read.format("tfruns").option("jobs", "a,b,c").load()`.

    Register it first: `spark.dataSource.register(TfRunsDataSource)`. The columns are those of the Parquet export:
    `job_id` and the fields of `JobRun`, where the fields of the subject replace it; moments are timestamps. Another
    column, `_corrupt_record`, is null but for runs that can't be understood.
    `tfruns[spark]` must be installed on the driver and on the executors.

    Each job is walked whole by one task, as `Client.iter_runs` walks it: every run that exists throughout is there
    once. Tasks that are retried, or run twice by speculation, repeat no row, because Spark keeps the rows of one of
    them. A `load()` is planned once, by a request for each job, which counts its runs; each query of it reads the runs
    again.

    Options, by names in any case, with underscores or without:

    - `jobs`: ids of the jobs, with commas between; or `jobsPath`: a text file on the driver, with an id on each line.
      Empty lines, and those that begin with `#`, are left out. An id that comes twice is read once.
    - `baseUrl`, `allowHttp` (`true`), `timeout`, `maxConcurrency` (for each task), `pageSize`: as the arguments of
      `Client` and `iter_runs`.
      Without `baseUrl`, the driver's `TFY_HOST` or credentials file; the executors get it from there.
    - `apiToken`: the key. It is better to leave it out: then the driver and each executor take it from their own
      environment (`TFY_API_KEY`). Spark hides the option in its UI and its logs, because of the name; it does not hide
      `spark.executorEnv.TFY_API_KEY`. On Kubernetes, use `spark.kubernetes.executor.secretKeyRef.TFY_API_KEY`.
    - `maxRate`: requests a second, by all tasks together: every partition has a share of it, as large as its share of
      the requests. The share of a task that waits for its slot isn't used; a speculative copy has the same share again.
    - `searchPrefix`, `triggeredBy`, `status`, `versionNumbers`: only runs that match, as in `iter_runs`, the last three
      with commas between several, or given as a list.
    - `createdAfter`, `createdBefore`: only runs created within this time, as in `iter_runs`: a time with its zone
      (`2026-11-23T08:30Z`), a time ago (`7 days`, or a timedelta), or milliseconds since 1970. With `createdAfter`, a
      task ends each walk at the first older run; all jobs count alike when they are divided.
    - `numPartitions`: the most groups that the jobs are divided into, each of about as many requests; 8 if left out.
      The number of slots for tasks is best.
    - `onError`: `raise` (the default), or `skip` to leave out jobs with a 403 or a 404, with a warning of the logger
      `tfruns` for each. If that happens in the middle of a walk, the rows read before stay.
    - `mode`: what becomes of a run that can't be understood, or has a number that Spark can't hold, as in Spark's JSON
      source. `PERMISSIVE` (the default) makes a row with its JSON in the column `_corrupt_record`
      (`columnNameOfCorruptRecord` gives it another name), its job, and those of its fields that can be understood; all
      columns but `job_id` may be null then. `DROPMALFORMED` leaves it out, with a warning, and `FAILFAST` fails. Both
      have no such column.

    Spark applies the filters of a query, after all runs were read; the control plane applies those of the options.

    Errors of options, the key or a job are raised on the driver: by `load()`, or, if it takes a request to find them,
    when the first query is planned.

    There is no stream (`spark.readStream`). Spark must be able to read a micro-batch again, between two offsets that
    the driver knows before; but the API has no order by change, and no history of a run's states. An offset would have
    to hold every open run of every job, and the driver would have to read all that the executors then read again. Load
    again, or use `Client.watch_runs` to fill a queue that Spark streams from.

    The data source writes nothing: see its README for ways to keep the rows. `CREATE TABLE … USING tfruns OPTIONS (…)`
    makes a table that is read from the control plane by each query. The key can't be one of its options.

    Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.

    Example:
        >>> runs = spark.read.format("tfruns").option("jobs", "job-a,job-b").option("status", "FAILED").load()
        >>> runs.groupBy("job_id").count().show()  # doctest: +ELLIPSIS
        +------+-----+
        ...
    """

    @classmethod
    def name(cls) -> str:
        """The name of the format: `tfruns`."""
        return "tfruns"

    @_plain_errors()
    def schema(self) -> StructType:
        """The columns. The options are checked here, so that `load()` fails if they are wrong."""
        of_this_table = of_table(self.options)
        options = parse(self.options if of_this_table is None else of_this_table)
        options.job_ids()
        options.client()
        columns = columns_of(options.corrupt_column)
        if of_this_table is not None:
            columns[0].metadata = {_OPTIONS: of_this_table}
        return columns

    @_plain_errors()
    def reader(self, schema: StructType) -> DataSourceReader:
        """The object that plans and reads; Spark calls this method.

        Args:
            schema: the schema that Spark has, which must be the data source's own.

        Raises:
            ValueError, TypeError: it is another schema, or an option is wrong.
        """
        given = {**schema[0].metadata.get(_OPTIONS, {}), **self.options}
        if not given:
            raise ValueError("a table of job runs has no options if its columns were given: leave them out")
        options = parse(given)
        if schema.simpleString() != columns_of(options.corrupt_column).simpleString():
            raise ValueError("the columns of job runs are fixed: leave out `.schema(...)`, and select the columns")
        return _Reader(options)


@attrs.frozen(slots=False)
class RunsPartition(InputPartition):
    """The jobs that one task reads. It holds no key."""

    job_ids: Sequence[str]
    filter: RunFilter
    base_url: str
    max_rate: float | None


async def _planned(options: Options) -> list[RunsPartition]:
    async with options.client() as client:
        counts = await _counted(client, options)
        # How many runs are in a window isn't known before they are read: most jobs have few that are new.
        has_start = options.filter.created_after is not None
        requests = {
            job_id: 1 if has_start else math.ceil(runs / options.page_size) + 1 for job_id, runs in counts.items()
        }
        max_rate = options.client_arguments.get("max_rate")
        whole = sum(requests.values())
        return [
            RunsPartition(
                group,
                options.filter,
                client.base_url,
                max_rate and max_rate * sum(requests[job_id] for job_id in group) / whole,
            )
            for group in balanced(requests, options.num_partitions)
        ]


async def _counted(client: Client, options: Options) -> dict[str, int]:
    job_ids = options.job_ids()
    # The server doesn't count by time of creation.
    filters: Any = {name: getattr(options.filter, name) for name in OF_SERVER}
    walk = client.iter_runs_for(job_ids, max_runs=1, on_error=_skip_if_refused, **filters)
    pages = walk.raw_pages(keep_bad=True)  # the newest run may be one that can't be understood
    counts = {job_id: page.pagination.total async for job_id, page in pages if page is not None}
    if walk.skipped and options.on_error == "raise":
        first, *others = walk.skipped.values()
        if others:
            named = "; ".join(map(str, others[:_NAMED]))
            more = f"; and {len(others) - _NAMED:,} more jobs" if len(others) > _NAMED else ""
            first.add_note(f"Other jobs failed in the same way: {named}{more}")
        first.add_note("The option onError=skip leaves out jobs with a 403 or a 404.")
        raise first
    for error in walk.skipped.values():
        logger.warning("skipped: %s", error)
    return {job_id: counts.get(job_id, 0) for job_id in job_ids if job_id not in walk.skipped}


def _skip_if_refused(_: str, error: TfRunsError) -> None:
    if not isinstance(error, (NotFoundError, PermissionDeniedError)):
        raise error


def balanced(requests: Mapping[str, int], groups: int) -> list[list[str]]:
    """At most so many groups of jobs, none empty, with requests shared out evenly: the largest jobs first, each to the
    group that has the fewest requests so far."""
    even: list[list[str]] = [[] for _ in range(min(groups, len(requests)))]
    least = [(0, number) for number in range(len(even))]
    for job_id in sorted(requests, key=lambda job_id: -requests[job_id]):
        load, number = heapq.heappop(least)
        even[number].append(job_id)
        heapq.heappush(least, (load + requests[job_id], number))
    return even


class _Reader(DataSourceReader):
    def __init__(self, options: Options) -> None:
        self._options = options

    @_plain_errors()
    def partitions(self) -> Sequence[InputPartition]:
        return asyncio.run(_planned(self._options))

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        if isinstance(partition, RunsPartition):  # Spark makes its own partition if there are none
            options = self._options
            with _plain_errors(), contextlib.closing(in_background(self._pages(partition))) as groups:
                for pages in groups:
                    yield from batches(pages, options.mode, options.corrupt_column)

    async def _pages(self, partition: RunsPartition) -> AsyncGenerator[list[tuple[str, RawPage]]]:
        options = self._options
        pages: list[tuple[str, RawPage]] = []
        async with options.client(base_url=partition.base_url, max_rate=partition.max_rate) as client:
            on_error: OnError = "raise" if options.on_error == "raise" else _skip_if_refused
            walk = client.iter_runs_for(
                partition.job_ids, filter=partition.filter, page_size=options.page_size, on_error=on_error
            )
            async with contextlib.aclosing(walk.raw_pages(keep_bad=options.mode != "failfast")) as found:
                async for job_id, page in found:
                    if page is not None:
                        pages.append((job_id, page))
                    if sum(len(page.data) + len(page.bad) for _, page in pages) >= _ROWS:
                        yield pages
                        pages = []
        for error in walk.skipped.values():
            logger.warning("the rest is skipped: %s", error)
        if pages:
            yield pages


def columns_of(corrupt_column: str | None) -> StructType:
    """The columns. A corrupt record may lack any of them but the job's id."""
    return from_arrow_schema(PLAIN_SCHEMA if corrupt_column is None else _with_text(corrupt_column))


def batches(pages: Sequence[tuple[str, RawPage]], mode: str, corrupt_column: str | None) -> Iterator[pa.RecordBatch]:
    """The runs of some pages, each with the id of its job."""
    rows: list[tuple[str, JobRun]] = []
    bad: list[tuple[str, bytes, set[str]]] = []
    for job_id, page in pages:
        bad += [(job_id, run.text, {each.field for each in run.problems}) for run in page.bad]
        beyond = [[column.name for column in beyond_limits(run)] for run in page.data]
        rows += [(job_id, run) for run, names in zip(page.data, beyond, strict=True) if not names]
        texts = page.texts if any(beyond) else ()  # which splits the page
        for run, names, text in zip(page.data, beyond, texts, strict=False):
            if names and mode == "failfast":
                what = f"job {job_id!r}, run {run.id!r}: Spark can't hold its {', '.join(names)}"
                raise ValueError(f"{what}; mode=PERMISSIVE makes such a run a corrupt record")
            if names:
                bad.append((job_id, text, set(map(wire_name, names))))
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


def _corrupt(job_id: str, text: bytes, wrong: Collection[str], columns: pa.Schema) -> pa.RecordBatch:
    """A row with the text of a run and those of its fields that can be understood; the others are null."""
    content = json.loads(text)
    roots = {field.partition(".")[0] for field in wrong}
    fields = {name: value for name, value in content.items() if name not in roots} if isinstance(content, dict) else {}
    runs = decode_runs(json.dumps([_REQUIRED | fields]).encode(), job_id=job_id)
    row = plain_batch([job_id], runs).to_pylist()[0]
    row |= {column.name: None for column in COLUMNS if wire_name(column.name) in _REQUIRED.keys() - fields.keys()}
    return pa.RecordBatch.from_pylist([{**row, columns.names[-1]: text.decode("utf-8", "replace")}], columns)


_Item = TypeVar("_Item")


def in_background(items: AsyncGenerator[_Item]) -> Generator[_Item]:
    """The items of the generator, each made in another thread while the one before it is used. Close it to stop the
    thread.

    If the loop ran only while an item is waited for, requests would time out while Spark is busy.
    """

    async def following() -> _Item | None:
        return await anext(items, None)

    with contextlib.closing(LoopThread("tfruns")) as thread:
        ahead = thread.start(following())
        while (item := ahead.result()) is not None:
            ahead = thread.start(following())
            yield item
