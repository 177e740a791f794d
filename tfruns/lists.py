"""The part of a client that lists runs: of one job, of many, a page of them, or how many there are."""

from collections.abc import AsyncIterable, Iterable, Mapping

from tfruns._http.retry import RetryPolicy
from tfruns._http.transport import Transport
from tfruns._walk.jobs import JobsPaginator, OnError
from tfruns._walk.paginator import RunPaginator
from tfruns.models import JobRunsSortBy, JobRunStatus, RunPage, SortDirection
from tfruns.query import MAX_PAGE_SIZE, Moment, RunFilter, checked_int, checked_job_id, names_arguments


class RunLister:
    """Lists the runs of jobs, by the requests of a transport."""

    _transport: Transport

    @names_arguments
    def iter_runs(
        self,
        job_id: str,
        *,
        search_prefix: str | None = None,
        sort_by: JobRunsSortBy | str | None = None,
        order: SortDirection | str | None = None,
        triggered_by: Iterable[str] | str | None = None,
        status: Iterable[JobRunStatus | str] | JobRunStatus | str | None = None,
        version_numbers: Iterable[float | str] | float | str | None = None,
        created_after: Moment | None = None,
        created_before: Moment | None = None,
        page_size: int = MAX_PAGE_SIZE,
        offset: int = 0,
        max_runs: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        max_response_bytes: int | None = None,
    ) -> RunPaginator:
        """The runs of a job, in the server's order (newest first, unless `sort_by` or `order` says otherwise).

        Nothing is requested until the answer is iterated; `async for run in client.iter_runs(...)` then yields each
        `JobRun`. See `RunPaginator` for pages, lists and counts. Filters of several kinds must all match; of several
        values of one filter, any. A single value may stand where several can.

        Every run that exists from the first request to the last is yielded exactly once, in order, while others are
        created and deleted; those are yielded once or not at all. Where this can't be kept, the walk ends with
        `IncompleteWalkError`. After the first page, pages are fetched ahead, up to the client's `max_concurrency`, and
        kept undecoded: memory depends on that and on `page_size`, not on how many runs there are.

        Sorted by status, duration, version or trigger, runs can change their place, or have equal keys in another order
        in each response. Then the ids of all runs are kept, about 100 bytes a run, none is repeated, and the list is
        walked again for what the total shows missing: at least twice where the list changes. What a later walk finds
        comes last. Runs can be missing without an error in two cases alone: the order of equal keys differs from
        response to response and runs are created or deleted meanwhile; or a list that changes holds a run twice.

        Args:
            job_id: id of the job.
            search_prefix: only runs whose name or id begins with this.
            sort_by: what to sort by: a `JobRunsSortBy` or its string, such as "startTime" or "duration".
            order: which way to sort: "asc" or "desc".
            triggered_by: only runs started by these subjects, by slug, such as an e-mail address.
            status: only runs with these statuses: each a `JobRunStatus` or its string, such as "FAILED".
            version_numbers: only runs of these versions of the deployment, such as 3.
            created_after: only runs created then or later: an aware datetime, a timedelta before now, or milliseconds
                since 1970. The API has no such filter. Where the newest runs come first, as they do without `sort_by`
                and `order`, the walk ends at the first run that is older; in other orders every run is read.
            created_before: only runs created before that time, given in the same way. Newer ones are read, too.
            page_size: how many runs to request at once, 1 to 1,000. Pages overlap by a run, so that 1 requests 2. Where
                the list changes, larger pages may be requested, up to 1,000.
            offset: how many runs to skip first.
            max_runs: how many runs to yield at most; None for all.
            timeout: seconds that one attempt may take; None for the client's.
            retry: when these requests are retried; None for the client's.
            headers: headers to send besides the client's, or in place of those with the same name.
            max_response_bytes: how large a response may be, decompressed; None for 100 MiB. A larger one is a
                `ResponseTooLargeError`.

        Yields:
            Each `JobRun`, in the server's order.

        Raises:
            TypeError, ValueError: at the call: an argument is wrong.
            NotFoundError, PermissionDeniedError, and other APIStatusError: while iterating: the server refused.
            APIConnectionError, APITimeoutError: while iterating: no whole answer, after the last retry.
            DecodeError: while iterating: an answer isn't what the contract says.
            IncompleteWalkError: while iterating: the full list can't be read with the exactly-once guarantee, because
                it changes faster than it can be read, or the server contradicts itself; the message says how.
            ClientClosedError: while iterating: the client was closed.
            EventLoopError: while iterating: the client is in use in another event loop, or was before a fork.

        Example:
            >>> async for run in client.iter_runs("my-job-id", status=["FAILED", "TERMINATED"], max_runs=100):
            ...     print(run.name, run.created, run.duration, run.error)

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.

        .. versionadded:: 0.1.0
        """
        return RunPaginator(
            transport=self._transport,
            options=self._transport.options.but(
                timeout=timeout, retry=retry, headers=headers, max_response_bytes=max_response_bytes
            ),
            job_id=checked_job_id(job_id),
            filter=RunFilter(
                search_prefix=search_prefix,
                sort_by=sort_by,
                order=order,
                triggered_by=triggered_by,
                status=status,
                version_numbers=version_numbers,
                created_after=created_after,
                created_before=created_before,
            ),
            page_size=checked_int(page_size, "page_size", least=1, most=MAX_PAGE_SIZE),
            offset=checked_int(offset, "offset", least=0),
            max_runs=None if max_runs is None else checked_int(max_runs, "max_runs", least=0),
        )

    @names_arguments
    def iter_runs_for(
        self,
        job_ids: Iterable[str] | AsyncIterable[str],
        *,
        search_prefix: str | None = None,
        sort_by: JobRunsSortBy | str | None = None,
        order: SortDirection | str | None = None,
        triggered_by: Iterable[str] | str | None = None,
        status: Iterable[JobRunStatus | str] | JobRunStatus | str | None = None,
        version_numbers: Iterable[float | str] | float | str | None = None,
        created_after: Moment | None = None,
        created_before: Moment | None = None,
        page_size: int = MAX_PAGE_SIZE,
        offset: int = 0,
        max_runs: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        max_response_bytes: int | None = None,
        ordered: bool = False,
        on_error: OnError = "raise",
    ) -> JobsPaginator:
        """The runs of many jobs: `async for job_id, run in client.iter_runs_for(job_ids)`.

        Each job is walked as `iter_runs` walks it, with the same filters for all; `offset` and `max_runs` are for each
        job. Up to `max_concurrency` jobs are walked side by side, and new jobs come first: a job of many pages keeps
        none waiting, and gets at least one page in 32 itself. Pages are yielded as they arrive, the runs of one job in
        their order. Job ids are read at most 1,000 jobs ahead; an id that comes twice is walked twice.

        Args:
            job_ids: ids of the jobs: an iterable, sync or async.
            search_prefix: only runs whose name or id begins with this.
            sort_by: what to sort each job's runs by: a `JobRunsSortBy` or its string, such as "startTime".
            order: which way to sort: "asc" or "desc".
            triggered_by: only runs started by these subjects, by slug, such as an e-mail address.
            status: only runs with these statuses: each a `JobRunStatus` or its string, such as "FAILED".
            version_numbers: only runs of these versions of the deployment, such as 3.
            created_after: only runs created then or later; see `iter_runs`.
            created_before: only runs created before that time.
            page_size: how many runs to request at once, 1 to 1,000. Pages overlap by a run, so that 1 requests 2. Where
                the list changes, larger pages may be requested, up to 1,000.
            offset: how many runs of each job to skip first.
            max_runs: how many runs of each job to yield at most; None for all.
            timeout: seconds that one attempt may take; None for the client's.
            retry: when these requests are retried; None for the client's.
            headers: headers to send besides the client's, or in place of those with the same name.
            max_response_bytes: how large a response may be, decompressed; None for 100 MiB.
            ordered: whether to yield one job after the other, in the order of the ids. They are fetched ahead still,
                up to `max_concurrency` jobs.
            on_error: what to do where a job fails after some or none of its runs: "raise" its error; or "skip" the
                rest of the job, which then stands in `skipped`; or a function, sync or async, that is told the job's id
                and the error, before the job is skipped. What isn't about one job (a refused key, a closed client) is
                raised in any case.

        Yields:
            Each run as `(job_id, run)`: those of one job in the server's order, those of several as they arrive.

        Raises:
            TypeError, ValueError: an argument is wrong: at the call; a job id: when it is read.
            TfRunsError: while iterating: see `iter_runs`.

        Example:
            >>> runs = client.iter_runs_for(["job-a", "job-b"], status="FAILED", on_error="skip")
            >>> async for job_id, run in runs:
            ...     print(job_id, run.name, run.error)
            >>> for job_id, error in runs.skipped.items():
            ...     print(f"skipped: {error}")

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.

        .. versionadded:: 0.1.0
        """
        if isinstance(job_ids, (str, bytes)) or not isinstance(job_ids, (Iterable, AsyncIterable)):
            raise TypeError(f"job_ids must be an iterable of job ids, sync or async, got {job_ids!r}")
        if on_error not in ("raise", "skip") and not callable(on_error):
            raise ValueError(f"on_error must be 'raise', 'skip' or a function, got {on_error!r}")
        template = self.iter_runs(
            "each",
            search_prefix=search_prefix,
            sort_by=sort_by,
            order=order,
            triggered_by=triggered_by,
            status=status,
            version_numbers=version_numbers,
            created_after=created_after,
            created_before=created_before,
            page_size=page_size,
            offset=offset,
            max_runs=max_runs,
            timeout=timeout,
            retry=retry,
            headers=headers,
            max_response_bytes=max_response_bytes,
        )
        return JobsPaginator(
            job_ids,
            template=template,
            side_by_side=self._transport.max_concurrency,
            ordered=ordered,
            on_error=on_error,
        )

    @names_arguments
    async def list_runs(
        self,
        job_id: str,
        *,
        limit: int = 100,
        offset: int = 0,
        search_prefix: str | None = None,
        sort_by: JobRunsSortBy | str | None = None,
        order: SortDirection | str | None = None,
        triggered_by: Iterable[str] | str | None = None,
        status: Iterable[JobRunStatus | str] | JobRunStatus | str | None = None,
        version_numbers: Iterable[float | str] | float | str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # of an attempt
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> RunPage:
        """Exactly one page, by one request, as the server gives it.

        For more than a page use `iter_runs`: pages asked for one by one lose and repeat runs where the list changes.

        Args:
            job_id: id of the job.
            limit: how many runs to ask for, 1 to 1,000.
            offset: how many runs to skip.
            search_prefix: only runs whose name or id begins with this.
            sort_by: what to sort by: a `JobRunsSortBy` or its string, such as "startTime" or "duration".
            order: which way to sort: "asc" or "desc".
            triggered_by: only runs started by these subjects, by slug, such as an e-mail address.
            status: only runs with these statuses: each a `JobRunStatus` or its string, such as "FAILED".
            version_numbers: only runs of these versions of the deployment, such as 3.
            timeout: seconds that one attempt may take; None for the client's.
            retry: when this request is retried; None for the client's.
            headers: headers to send besides the client's, or in place of those with the same name.

        Returns:
            The runs in the server's order, at most `limit`, and how many there are in all.

        Raises:
            TypeError, ValueError: an argument is wrong; nothing was requested.
            NotFoundError, PermissionDeniedError, and other APIStatusError: the server refused.
            APIConnectionError, APITimeoutError: no whole answer, after the last retry.
            DecodeError: the answer isn't what the contract says.
            ClientClosedError, EventLoopError: the client was closed, or belongs to another event loop or process.

        Example:
            >>> page = await client.list_runs("my-job-id", limit=10, offset=20)
            >>> print(len(page.data), "of", page.pagination.total)
            10 of 250

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.

        .. versionadded:: 0.1.0
        """
        runs = self.iter_runs(
            job_id,
            search_prefix=search_prefix,
            sort_by=sort_by,
            order=order,
            triggered_by=triggered_by,
            status=status,
            version_numbers=version_numbers,
            timeout=timeout,
            retry=retry,
            headers=headers,
        )
        limit = checked_int(limit, "limit", least=1, most=MAX_PAGE_SIZE)
        return await runs.fetch(checked_int(offset, "offset", least=0), limit)

    @names_arguments
    async def count_runs(
        self,
        job_id: str,
        *,
        search_prefix: str | None = None,
        triggered_by: Iterable[str] | str | None = None,
        status: Iterable[JobRunStatus | str] | JobRunStatus | str | None = None,
        version_numbers: Iterable[float | str] | float | str | None = None,
        created_after: Moment | None = None,
        created_before: Moment | None = None,
        sort_by: JobRunsSortBy | str | None = None,
        order: SortDirection | str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # of an attempt
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """How many runs match, by the server's count now: one request for one run.

        Args:
            job_id: id of the job.
            search_prefix: only runs whose name or id begins with this.
            triggered_by: only runs started by these subjects, by slug, such as an e-mail address.
            status: only runs with these statuses: each a `JobRunStatus` or its string, such as "FAILED".
            version_numbers: only runs of these versions of the deployment, such as 3.
            created_after: only runs created then or later; see `iter_runs`. The server doesn't
                count by time: the runs are read, and counted.
            created_before: only runs created before that time.
            sort_by: what to sort by; it doesn't change the count, and is taken so that the same arguments fit.
            order: which way to sort; the same holds.
            timeout: seconds that one attempt may take; None for the client's.
            retry: when this request is retried; None for the client's.
            headers: headers to send besides the client's, or in place of those with the same name.

        Returns:
            The server's count.

        Raises:
            TypeError, ValueError: an argument is wrong; nothing was requested.
            NotFoundError, PermissionDeniedError, and other APIStatusError: the server refused.
            APIConnectionError, APITimeoutError: no whole answer, after the last retry.
            DecodeError: the answer isn't what the contract says.
            ClientClosedError, EventLoopError: the client was closed, or belongs to another event loop or process.

        Example:
            >>> print(await client.count_runs("my-job-id"), "runs")
            250 runs

        Contract: `pagination.total` of `GET /api/svc/v1/jobs/{jobId}/runs`.

        .. versionadded:: 0.1.0
        """
        return await self.iter_runs(
            job_id,
            search_prefix=search_prefix,
            sort_by=sort_by,
            order=order,
            triggered_by=triggered_by,
            status=status,
            version_numbers=version_numbers,
            created_after=created_after,
            created_before=created_before,
            timeout=timeout,
            retry=retry,
            headers=headers,
        ).count()
