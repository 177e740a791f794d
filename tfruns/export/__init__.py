"""Batch export: every run of many jobs, in a file that is whole or not there, resumable, nothing lost.

Example:
    >>> from tfruns.export import export_runs
    >>> async with tfruns.Client() as client:
    ...     summary = await export_runs(client, ["job-a", "job-b"], "runs.parquet")

While it works, what it has read is kept in the folder `<destination>.tfruns-partial`, which is gone when it is done.
After a kill, the same call goes on from there.
"""

import hashlib
import json
import os
import time
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

import attrs

from tfruns._http.events import check_plain_function
from tfruns.client import Client
from tfruns.export.collect import Collector
from tfruns.export.desk import Desk
from tfruns.export.errors import ExportError
from tfruns.export.formats import find_format
from tfruns.export.journal import NUMBER, Journal
from tfruns.export.progress import ExportProgress, ExportSummary, Progress
from tfruns.export.publish import check_alone, checked_destination, merge, publish
from tfruns.export.since import Known, State, delta_path, later_files, own_database, state_path
from tfruns.models import JobRunsSortBy, JobRunStatus, SortDirection
from tfruns.query import checked_job_id

__all__ = ["ExportError", "ExportProgress", "ExportSummary", "export_runs"]


async def export_runs(
    client: Client,
    job_ids: Iterable[str] | AsyncIterable[str],
    destination: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
    search_prefix: str | None = None,
    sort_by: JobRunsSortBy | str | None = None,
    order: SortDirection | str | None = None,
    triggered_by: Iterable[str] | str | None = None,
    status: Iterable[JobRunStatus | str] | JobRunStatus | str | None = None,
    version_numbers: Iterable[float | str] | float | str | None = None,
    since: str | os.PathLike[str] | None = None,
    on_progress: Callable[[ExportProgress], object] | None = None,
) -> ExportSummary:
    """Write the runs of many jobs into one file: job after job in the order of the ids, the runs in the server's order.

    The file appears, in the place of one of that name, when it is complete: an error, a full disk or a kill leaves the
    old one as it was. What was read by then is kept beside it, and the same call with the same arguments goes on from
    there: jobs that were read whole are not read again, the others from their start, so that each run is there once.
    Memory doesn't grow with the number of runs; the disk holds them twice for a while.

    Formats:
        jsonl, jsonl.gz, jsonl.zst: a run a line, as the server sent it, with `jobId` before the rest. (zst: extra
            `zstd`.)
        csv: UTF-8, a line of names first; moments as `2026-11-23T08:30:00.123Z`; nothing for null. Text that a
            spreadsheet would take for a formula, or that begins with an apostrophe, has an apostrophe before it.
        parquet, arrow: a Parquet or an Arrow IPC file with `tfruns.arrow.SCHEMA` (extra `arrow`).
        sqlite: a database with the table `runs`; moments as text, as in csv.
        duckdb: the same; moments as TIMESTAMPTZ (extra `duckdb`).

        The columns are `job_id`, the fields of `JobRun`, and those of the subject in its place.

    Args:
        client: what asks; it stays open.
        job_ids: ids of the jobs, an iterable, sync or async; an id that comes twice counts once.
        destination: the file.
        format: one of those above; None to tell by the destination's suffix.
        search_prefix: only runs whose name or id begins with this.
        sort_by: what to sort each job's runs by: a `JobRunsSortBy` or its string, such as "startTime".
        order: which way to sort: "asc" or "desc".
        triggered_by: only runs started by these subjects, by slug, such as an e-mail address.
        status: only runs with these statuses: each a `JobRunStatus` or its string, such as "FAILED".
        version_numbers: only runs of these versions of the deployment, such as 3.
        since: a small file that keeps what is known for good, for exports again and again: the first writes all runs;
            a later one reads only what is new or hadn't ended, and writes that, as rows in place of the old ones in
            SQLite and DuckDB, else into a file of its own (`runs.0001.jsonl` after `runs.jsonl`), whose runs take the
            place of those in earlier files. Runs that show up in the list up to an hour late are not missed. A run that
            is deleted is not noticed, unless it was open the last time and is in a database. It goes with no `sort_by`,
            `order` or `status`.
        on_progress: a function that is told how far it is, after each page and each job.

    Returns:
        What was done. A job that fails by itself (404, 403, an answer that can't be understood) is skipped, and stands
        in `skipped`: the others are whole.

    Raises:
        TypeError, ValueError: an argument is wrong.
        ExportError: another export is at work on the destination, or one with other arguments was interrupted there;
            there can't be a file; an extra is missing; or the format can't hold a value.
        OSError: the file can't be written.
        APIConnectionError, RateLimitError, InternalServerError: the server fails, after the last retry.
        AuthenticationError, ClientClosedError, EventLoopError: see `Client.iter_runs`.

    Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.

    Example:
        >>> from tfruns.export import export_runs
        >>> summary = await export_runs(client, ["job-a", "job-b"], "runs.parquet", status="FAILED")
        >>> print(summary.runs, "runs,", summary.size, "bytes")

    .. versionadded:: 0.1.0
    """
    began = time.monotonic()
    check_plain_function(on_progress, "on_progress")
    filters = {
        "search_prefix": search_prefix,
        "sort_by": sort_by,
        "order": order,
        "triggered_by": _kept(triggered_by),
        "status": _kept(status),
        "version_numbers": _kept(version_numbers),
    }
    path = checked_destination(destination)
    chosen = find_format(format, path)
    checked = client.iter_runs("each", **filters).filter  # it says what is wrong
    about = {"control plane": client.base_url, "format": chosen.name, **attrs.asdict(checked)}
    jobs = list(enumerate(await _read_ids(job_ids)))
    progress = Progress(len(jobs), on_progress)
    digest = hashlib.sha256(json.dumps([job_id for _, job_id in jobs]).encode()).hexdigest()
    arguments = {**about, "jobs": f"{len(jobs):,} with the digest {digest[:12]}"}
    async with Desk() as desk:
        await desk.work(chosen.check)
        state = None
        if since is not None:
            if (sort_by, order, status) != (None, None, None):
                raise ValueError(
                    "since goes with no sort_by, order or status: it reads the newest runs of any status first"
                )
            state = await desk.work(State.load, state_path(since, path), {**about, **own_database(chosen, path)})
            arguments[NUMBER] = state.exports
            if state.exports == 0 and (later := later_files(path, chosen)):
                raise ExportError(
                    f"{later[0]} is of earlier exports, but their state, {since}, is gone: move the earlier files away,"
                    " or what they hold would be taken for newer"
                )
        is_delta = state is not None and state.exports > 0
        target = delta_path(path, chosen, state.exports) if state is not None and is_delta else path
        if is_delta and chosen.is_database and not path.exists():
            raise ExportError(f"{path} isn't there, but by {since} it was written before: delete that to write it anew")
        if not is_delta:
            check_alone(path, chosen)
        journal = await desk.work(Journal, path.with_name(path.name + ".tfruns-partial"), arguments)
        try:
            before = await desk.work(journal.done)
            progress.resumed(len(before), sum(job.runs for job in before.values()))
            collector = Collector(client, journal, filters, desk.work, progress)
            left = [(number, job_id) for number, job_id in jobs if number not in before]
            known = {} if state is None else state.jobs
            await collector.read_all((job for job in left if job[1] not in known), is_first=state is not None)
            await collector.read_new((job for job in left if job[1] in known), known)
            progress.writing()
            done = await desk.work(journal.done)
            if is_delta and chosen.is_database:
                gone = {job_id: done[number].note["gone"] for number, job_id in jobs if number in done}
                await desk.work(merge, journal, jobs, chosen, path, gone=gone, check=desk.check)
            else:
                await desk.work(publish, journal, jobs, chosen, target, check=desk.check)
            if state is not None:
                state.exports += 1
                state.jobs |= {job_id: Known(**done[number].note) for number, job_id in jobs if number in done}
                await desk.work(state.save)
            await desk.work(journal.delete)
        except BaseException:
            await desk.work(journal.leave)
            raise
    return ExportSummary(
        path=target,
        jobs=len(done),
        runs=sum(job.runs for job in done.values()),
        skipped=collector.skipped,
        size=target.stat().st_size,
        seconds=time.monotonic() - began,
        resumed=len(before),
    )


def _kept(values: Any) -> Any:
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else values


async def _read_ids(job_ids: Iterable[str] | AsyncIterable[str]) -> list[str]:
    """The ids, each once."""
    if isinstance(job_ids, (str, bytes)) or not isinstance(job_ids, (Iterable, AsyncIterable)):
        raise TypeError(f"job_ids must be an iterable of job ids, sync or async, got {job_ids!r}")
    ids = [job_id async for job_id in job_ids] if isinstance(job_ids, AsyncIterable) else job_ids
    return list(dict.fromkeys(map(checked_job_id, ids)))
