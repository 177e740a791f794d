"""Batch export: every run of many jobs in a file, an object or a table, which appears complete; it can be resumed.

Example:
    >>> from tfruns.export import export_runs
    >>> async with tfruns.Client() as client:
    ...     summary = await export_runs(client, ["job-a", "job-b"], "runs.parquet")

While it works, it keeps the jobs that it has read whole in the folder `<destination>.tfruns-partial` (for a URL, in a
folder in the user's folder for caches), which it removes in the end. After a kill, the same call reads the others.

How a run travels: it arrives with its page, as text and as a model. `pipeline.Export`, whose methods stand in the
order in which they happen, hands the page to its thread, where `watermark` says which runs earlier exports have
written, and the format turns the others into a piece, some bytes in its own form. `checkpoint` keeps the piece, packed,
and the lines of runs that can't be written (the quarantine). The format's writer takes the pieces, job after job, while
other pages are fetched. At the end a destination puts what the writer has made in its place: a `File` or the days of a
`dataset` through a `store`, rows through `tables`.

Imports point one way: results <- secrets, files <- store, formats, watermark <- checkpoint <- pipeline, which has what
all destinations share <- tables, dataset <- postgres <- destination, which chooses one of them.
"""

import os
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Literal, Unpack

import attrs

from tfruns._checks import argument_names, check_names, check_plain_function
from tfruns.client import Client
from tfruns.export.destination import find_destination
from tfruns.export.pipeline import Export
from tfruns.export.results import ExportError, ExportProgress, ExportSummary
from tfruns.export.secrets import Hidden
from tfruns.query import Filters, RunFilter, chosen_filter

__all__ = ["ExportError", "ExportProgress", "ExportSummary", "export_runs"]

for _public in (ExportError, ExportProgress, ExportSummary):
    _public.__module__ = __name__


async def export_runs(
    client: Client,
    job_ids: Iterable[str] | AsyncIterable[str],
    destination: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
    state: str | os.PathLike[str] | None = None,
    replace: bool = False,
    work_dir: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    table: str = "runs",
    on_bad_run: Literal["quarantine", "raise"] = "quarantine",
    on_progress: Callable[[ExportProgress], object] | None = None,
    page_size: int = 1000,
    filter: RunFilter | None = None,  # noqa: A002
    **filters: Unpack[Filters],
) -> ExportSummary:
    """Write the runs of many jobs to one place: job after job in the order of the ids, the runs in the server's order.

    The file appears when it is complete, and replaces one of that name: an error, a full disk or a kill leaves the old
    one unchanged. The runs read by then are kept beside it, and the same call with the same arguments goes on from
    there: jobs that were read whole are not read again, the others are read from their start, so that each run is there
    once. Memory doesn't grow with the number of runs; the disk holds them twice for a while.

    Formats:
        jsonl, jsonl.gz, jsonl.zst: one run per line, as the server sent it, with `jobId` before its other fields.
        csv, csv.gz: UTF-8, a header line first; moments as `2026-11-23T08:30:00.123Z`. Text is quoted; null is an
            empty cell without quotes, and the empty string is `""`. If a spreadsheet would take text for a formula, an
            apostrophe is put before it: at the start, and after a semicolon, a tab or a line break.
        parquet, arrow: a Parquet or an Arrow IPC file with `tfruns.arrow.SCHEMA` (extra `arrow`).
        sqlite: a database with the table `runs`; moments as text, as in csv.
        duckdb: the same; moments as TIMESTAMPTZ (extra `duckdb`).

        The columns are `job_id` and the fields of `JobRun`; the fields of the subject take its place.

    Destinations:
        A path: a file, as above. In a database of SQLite or DuckDB that is there, rows of the same runs are replaced in
            one transaction, as in PostgreSQL; every other row, table, view and index stays. The path of a DuckDB
            database has no `?`.
        `s3://bucket/runs.parquet`, `gs://…`, `abfs://…` and whatever else fsspec can write to (extra `fsspec`, and
            `s3fs` or another): the file is made in the working folder and uploaded last; the object appears when it is
            complete. An upload that fails or is cancelled is aborted. The uploaded parts of a killed process stay until
            a lifecycle rule of the bucket removes them (S3's AbortIncompleteMultipartUpload).
        `postgresql://user:password@host/database` (extra `postgres`): rows of a table with the primary key (job_id,
            id). They replace the rows of the same runs, in one transaction; other rows stay. The table is made if it
            isn't there; a column that an older version didn't have is added, in all three databases. Moments are
            TIMESTAMP WITH TIME ZONE. Runs that can't be written go to a second table, `runs_rejected`. You need the
            rights to SELECT, INSERT, UPDATE and DELETE, or to CREATE, and TEMP; only its owner can add a column.
        `runs/`, or a URL that ends with a slash, with the format parquet, jsonl, jsonl.gz or jsonl.zst: a folder of
            files by day of creation in UTC, `runs/created_date=2026-11-24/runs.parquet`, which Spark, DuckDB and Polars
            read as it is. When all files are made, each is replaced whole, one after the other, and a run is never in
            two; the file `_SUCCESS` is there while nothing is being replaced. Days that have no runs any more are
            removed last. With `created_after` or `created_before`, only the days in that window are replaced, each
            whole: it begins and ends with a day in UTC. A folder belongs to one control plane and one set of jobs and
            filters, which it records, and is refused to others.

    No password, and nothing in `storage_options`, ever gets into an error, a log, a file or its name.

    A run that can't be understood goes to a quarantine. In a format with columns, so does one with a number beyond 64
    bits or a moment beyond the years 1 to 9999. The quarantine is the file `<destination>.rejected.jsonl`, which is
    there only if it holds a run. Its lines have `jobId`, `runId`, `field`, `why` and the run's `text`. An older row of
    such a run is removed from a database.

    Files get the mode and, where that is allowed, the owner of those that they replace. Until then, and in the working
    folder, only you can read them.

    Args:
        client: the client that makes the requests; it stays open.
        job_ids: ids of the jobs, an iterable, sync or async; an id that comes twice counts once.
        destination: a path or a URL; see above.
        format: one of those above; None to go by the destination's suffix.
        state: a small file that keeps what earlier exports have written, for repeated exports: the first writes all
            runs, a later one only those that are new or have changed, and it reads little more. In SQLite, DuckDB,
            PostgreSQL and a folder these replace the old rows. In other formats each export writes its own file, with
            names that sort in the order of the exports (`runs.0000.jsonl`, `runs.0001.jsonl` for `runs.jsonl`): if a
            run has rows in several files, the one in the last file is right. The destination may change from export to
            export. Runs that show up in the list up to an hour late are not missed. The deletion of a run is not
            noticed, unless the run was open the last time and is in a database or a folder. A state can't be combined
            with `sort_by`, `order`, `status`, `created_after` or `created_before`.
        replace: whether to begin anew: what earlier exports, of whatever jobs and filters, have written there is thrown
            away once everything was read. A database's own table is emptied, a folder's files are removed, and the
            state, if one is given, begins anew. No other table goes, and no file that no export has written.
        work_dir: the folder in which the working folder is made. None for the folder of the destination (or of the
            state, if there is one and each export writes its own file); for a URL, the user's folder for caches.
        storage_options: options for fsspec's file system besides the URL, such as `{"profile": "reports"}`.
        table: the table of PostgreSQL, or its schema and name: "reports.runs".
        on_bad_run: what to do with a run that can't be written: set it aside in a "quarantine", or "raise" an error.
        on_progress: a function that is called with an `ExportProgress`, after each page and each job.
        page_size: how many runs to request at once, at most: 1 to 1,000.
        filter: all filters and the order as one value, in place of the single ones.
        **filters: the filters and the order of `Client.iter_runs`, explained there. A timedelta counts from this call;
            for jobs that an interrupted call has read whole, from that call.

    Returns:
        What was done. A job that fails by itself (404, 403, a response that can't be understood, a 500 while the server
        responds well to another) is skipped, and listed in `skipped`: the others are complete.

    Raises:
        TypeError, ValueError: an argument is wrong.
        ExportError: another export is at work on the destination, or one with other arguments was interrupted there;
            the destination can't be written to; the store or the database fails, or its table doesn't fit; an extra is
            missing; a run can't be written, with `on_bad_run="raise"`; or every job failed. The file that was there is
            unchanged.
        OSError: the file can't be written.
        APIConnectionError, APIStatusError: the server fails, after the last retry: see `RetryPolicy.patience`. The same
            call goes on from there.
        AuthenticationError, ClientClosedError, EventLoopError: see `Client.iter_runs`.

    Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.

    Example:
        >>> from tfruns.export import export_runs
        >>> summary = await export_runs(client, ["job-a", "job-b"], "runs.parquet", status="FAILED")
        >>> print(summary.runs, "runs,", summary.size, "bytes")
    """
    given, options = Hidden(destination), Hidden(storage_options)
    single = {name: filters.pop(name, None) for name in Filters.__annotations__}  # type: ignore[misc]
    others = [*filters]
    del destination, storage_options, filters  # the traceback of an error shows the variables of this frame
    check_names(others, argument_names(export_runs), "export_runs")
    check_plain_function(on_progress, "on_progress")
    export = Export(
        client=client,
        destination=find_destination(given, options, table, format),
        filters=single if filter is None else attrs.asdict(chosen_filter(filter, single)),
        state_path=state,
        replace=replace,
        work_dir=work_dir,
        on_bad_run=on_bad_run,
        on_progress=on_progress,
        page_size=page_size,
    )
    return await export.run(job_ids)
