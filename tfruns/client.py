"""The face of tfruns: a client for the run history of the jobs of one control plane."""

import math
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

import aiohttp

from tfruns.models import JobRunsSortBy, JobRunStatus, RunPage, SortDirection
from tfruns.paginate import RunPaginator, fetch_page
from tfruns.query import MAX_PAGE_SIZE, PageRequest, RunFilter, checked_int, checked_job_id
from tfruns.retry import RetryPolicy
from tfruns.session import Session
from tfruns.settings import ApiKey, checked_headers, resolve_api_key, resolve_base_url


class Client:
    """Lists the runs of TrueFoundry jobs.

    Use it as an async context manager, or call `aclose` in the end. Any number of tasks of one event loop may share it.

    Args:
        base_url: URL of the control plane, such as `https://acme.truefoundry.cloud`; else the environment variable
            `TFY_HOST`, else `host` in `~/.truefoundry/credentials.json`.
        api_key: the key, or a function, sync or async, that returns it and is called again when the server has refused
            the key (401), once for a request; else `TFY_API_KEY`, else `access_token` in the credentials file.
        timeout: seconds that one attempt may take, from connecting to the last byte of the answer.
        retry: how often and how patiently a failed request is tried again.
        max_concurrency: how many requests may be under way at once, over all walks of this client.
        headers: more headers to send with each request.
        session: an aiohttp session to send requests with, which stays yours to close; else the client has its own.

    Raises:
        ConfigurationError: there is no host or no key, or it can't be used.
        TypeError, ValueError: another argument is wrong.

    Example:
        >>> async with tfruns.Client() as client:
        ...     async for run in client.iter_runs("my-job-id", status="FAILED"):
        ...         print(run.name, run.created, run.error)

    .. versionadded:: 0.1.0
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: ApiKey | None = None,
        *,
        timeout: float = 60.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  # immutable
        max_concurrency: int = 16,
        headers: Mapping[str, str] | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        if not isinstance(retry, RetryPolicy):
            raise TypeError(f"retry must be a RetryPolicy, got {retry!r}")
        if session is not None and not isinstance(session, aiohttp.ClientSession):
            raise TypeError(f"session must be an aiohttp.ClientSession, got {session!r}")
        self._session = Session(
            base_url=resolve_base_url(base_url),
            key=resolve_api_key(api_key),
            timeout=_checked_timeout(timeout),
            retry=retry,
            max_concurrency=checked_int(max_concurrency, "max_concurrency", least=1),
            headers=checked_headers(headers),
            http=session,
        )

    @property
    def base_url(self) -> str:
        """URL of the control plane, without a trailing slash."""
        return self._session.base_url

    def __repr__(self) -> str:
        return f"<tfruns.Client of {self.base_url}{' (closed)' if self._session.closed else ''}>"

    async def __aenter__(self) -> Self:
        self._session.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client and its connections. Closing twice does nothing; using a closed client raises."""
        await self._session.aclose()

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
        page_size: int = MAX_PAGE_SIZE,
        offset: int = 0,
        max_runs: int | None = None,
    ) -> RunPaginator:
        """The runs of a job, in the server's order (newest first, unless `sort_by` or `order` says otherwise).

        Nothing is requested until the answer is iterated; `async for run in client.iter_runs(...)` then yields each
        `JobRun`. See `RunPaginator` for pages, lists and counts. Filters of several kinds must all match; of several
        values of one filter, any. A single value may stand where several can.

        Every run that exists from the first request to the last is yielded exactly once, in order, while others come
        and go; runs that come or go meanwhile are yielded once or not at all. After the first page, pages are fetched
        ahead, up to the client's `max_concurrency`, and kept undecoded: memory depends on that and on `page_size`, not
        on how many runs there are. Sorted by status or duration, runs change their place while they live: then none
        is repeated, and what the final total shows missing is looked for again; for this the ids of all runs are kept,
        some 100 bytes a run.

        Args:
            job_id: id of the job.
            search_prefix: only runs whose name or id begins with this.
            sort_by: what to sort by.
            order: which way to sort.
            triggered_by: only runs started by these subjects, by slug.
            status: only runs with these statuses.
            version_numbers: only runs of these versions of the deployment.
            page_size: how many runs a request asks for, 1 to 1,000.
            offset: how many runs to skip first.
            max_runs: how many runs to yield at most; None for all.

        Raises:
            TypeError, ValueError: at the call: an argument is wrong.
            NotFoundError, PermissionDeniedError, and other APIStatusError: while iterating: the server refused.
            APIConnectionError, APITimeoutError: while iterating: no whole answer, after the last retry.
            DecodeError: while iterating: an answer isn't what the contract says.
            IncompleteWalkError: while iterating: the list can't be walked to its end with that promise, for it changes
                faster than it can be read, or the server contradicts itself; the message says how.
            ClientClosedError: while iterating: the client was closed.

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.
        """
        return RunPaginator(
            session=self._session,
            job_id=checked_job_id(job_id),
            filter=RunFilter(
                search_prefix=search_prefix,
                sort_by=sort_by,
                order=order,
                triggered_by=triggered_by,
                status=status,
                version_numbers=version_numbers,
            ),
            page_size=checked_int(page_size, "page_size", least=1, most=MAX_PAGE_SIZE),
            offset=checked_int(offset, "offset", least=0),
            max_runs=None if max_runs is None else checked_int(max_runs, "max_runs", least=0),
        )

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
    ) -> RunPage:
        """Exactly one page, by one request, as the server gives it: at most `limit` runs (1 to 1,000) from `offset` on.

        For the filters and the errors see `iter_runs`.

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.
        """
        request = PageRequest(
            checked_job_id(job_id),
            RunFilter(
                search_prefix=search_prefix,
                sort_by=sort_by,
                order=order,
                triggered_by=triggered_by,
                status=status,
                version_numbers=version_numbers,
            ),
            checked_int(limit, "limit", least=1, most=MAX_PAGE_SIZE),
            checked_int(offset, "offset", least=0),
        )
        return await fetch_page(self._session, request)

    async def count_runs(
        self,
        job_id: str,
        *,
        search_prefix: str | None = None,
        triggered_by: Iterable[str] | str | None = None,
        status: Iterable[JobRunStatus | str] | JobRunStatus | str | None = None,
        version_numbers: Iterable[float | str] | float | str | None = None,
        sort_by: JobRunsSortBy | str | None = None,
        order: SortDirection | str | None = None,
    ) -> int:
        """How many runs match, by the server's count now: one request for one run.

        For the filters and the errors see `iter_runs`. (`sort_by` and `order` don't change the count; they are taken so
        that the same filters fit.)

        Contract: `pagination.total` of `GET /api/svc/v1/jobs/{jobId}/runs`.
        """
        page = await self.list_runs(
            job_id,
            limit=1,
            search_prefix=search_prefix,
            sort_by=sort_by,
            order=order,
            triggered_by=triggered_by,
            status=status,
            version_numbers=version_numbers,
        )
        return page.pagination.total


def _checked_timeout(timeout: float) -> float:
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
        raise TypeError(f"timeout must be a number of seconds, got {timeout!r}")
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout must be a number of seconds above 0, got {timeout!r}")
    return timeout
