"""The client for the run history of the jobs of one control plane."""

import inspect
import math
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Never, NoReturn, Self, Unpack

import aiohttp

from tfruns._checks import (
    check_job_ids,
    check_names,
    check_on_error,
    checked_int,
    checked_job_id,
    checked_kind,
    checked_number,
    suggests_arguments,
)
from tfruns._http.credentials import resolve
from tfruns._http.events import ClientStats, FailureEvent, RequestEvent, ResponseEvent, RetryEvent
from tfruns._http.options import RequestOptions, RetryPolicy
from tfruns._http.secret import Secret
from tfruns._http.transport import Transport
from tfruns._walk.frontier import Place
from tfruns._walk.jobs import JobsPaginator
from tfruns._walk.paginator import RunPaginator
from tfruns._walk.walker import WalkOptions, place_of
from tfruns._watch.wait import RunWaiter
from tfruns._watch.watcher import RunWatch, Watch
from tfruns.models import JobRun, RunPage
from tfruns.query import MAX_PAGE_SIZE, PageFilters, WatchFilters, chosen_filter
from tfruns.types import ApiKey, Filters, Interval, Moment, OnError, Order, RunFilter, SortBy, Start, Status

_RATES = "requests a second, from 0.001 to 1,000,000, or None"


class Client:
    """Lists the runs of TrueFoundry jobs.

    Use it as an async context manager, or call `aclose` in the end. Any number of tasks of one event loop may share it;
    after that loop is closed, another may use it. Code that blocks the event loop for long makes requests time out: run
    it in a thread (`asyncio.to_thread`).

    Args:
        base_url: URL of the control plane, such as `https://acme.truefoundry.cloud`; else the environment variable
            `TFY_HOST`.
        api_key: the key; else the environment variable `TFY_API_KEY`. Or a function, sync or async, that returns it: it
            is called when a key is first needed, and once more for a request that is refused (401), as for a key in a
            file that changes: `api_key=lambda: Path("/run/secrets/key").read_text().strip()`.
        timeout: seconds that one attempt may take, from connecting to the last byte of the response.
        retry: how often and for how long a failed request is retried, and how long to wait for the end of an outage.
        max_concurrency: how many requests may be in flight at once, over all walks of this client.
        max_rate: how many requests may be sent in a second, over all walks of this client; None for as many as the
            server accepts, which the client learns from refused requests.
        headers: more headers to send with each request.
        session: an aiohttp session to send requests with, which you close yourself; else the client makes its own.
            (Give it your own connector for TLS settings, or `trust_env=True` for a proxy from the environment.)
        allow_http: whether the key may be sent over plain http to other machines, where others can read it.
        trace_configs: aiohttp trace configs, which see connections and DNS; not together with `session`, which has its
            own. (For OpenTelemetry there is `tfruns.otel`.)
        on_request: a function that is called with a `RequestEvent` when a request is sent: see `add_hooks`.
        on_response: one that is called with a `ResponseEvent` when a complete response has arrived.
        on_retry: one that is called with a `RetryEvent` when a request will be retried.
        on_failure: one that is called with a `FailureEvent` when a request has failed for good.

    Without a host and a key, both come from `~/.truefoundry/credentials.json`, which the TrueFoundry CLI writes. The
    token in that file goes to the host in that file alone. When the server refuses it, the file is read again, once for
    each request, because the CLI rewrites it.

    | host given | key given | what is used                                                                        |
    |------------|-----------|-------------------------------------------------------------------------------------|
    | yes        | yes       | both; the file isn't read                                                           |
    | yes        | no        | the file's token if the file is for that host, else `ConfigurationError`            |
    | no         | yes       | `ConfigurationError`                                                                |
    | no         | no        | host and token of the file, or `ConfigurationError` if there is none                |

    ("Given" is by the argument or by the environment. Two URLs name the same host if scheme, name, port and path are
    the same, except for letter case, a default port, and slashes at the end.)

    Raises:
        ConfigurationError: there is no host or no key, or it can't be used.
        TypeError, ValueError: another argument is wrong.

    Example:
        >>> async with tfruns.Client() as client:
        ...     async for run in client.iter_runs("my-job-id", status="FAILED"):
        ...         print(run.name, run.created, run.error)
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: ApiKey | None = None,
        *,
        timeout: float = 60.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  # immutable
        max_concurrency: int = 16,
        max_rate: float | None = None,
        headers: Mapping[str, str] | None = None,
        session: aiohttp.ClientSession | None = None,
        allow_http: bool = False,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        on_request: Callable[[RequestEvent], object] | None = None,
        on_response: Callable[[ResponseEvent], object] | None = None,
        on_retry: Callable[[RetryEvent], object] | None = None,
        on_failure: Callable[[FailureEvent], object] | None = None,
        **_others: Never,  # so that an error can say what is meant by `host` or `token`
    ) -> None:
        host, key, more_headers = Secret(base_url), Secret(api_key), Secret(headers)
        others = [*_others]
        del base_url, api_key, headers, _others  # the traceback of an error shows the variables of this frame
        check_names(others, inspect.signature(Client).parameters, "Client")
        checked_kind(allow_http, "allow_http", "True or False", bool)
        trace_configs = tuple(checked_kind(trace_configs, "trace_configs", "a sequence", Sequence))
        for config in trace_configs:
            checked_kind(config, "trace_configs", "aiohttp.TraceConfig values", aiohttp.TraceConfig)
        if session is not None:
            checked_kind(session, "session", "an aiohttp.ClientSession", aiohttp.ClientSession)
            if session.auth is not None:
                raise ValueError("session has `auth`, which would take the place of the API key: leave it out")
            if trace_configs:
                what = "trace_configs are for the client's own session"
                raise ValueError(f"{what}: give yours to your aiohttp.ClientSession")
        rate = math.inf if max_rate is None else checked_number(max_rate, "max_rate", _RATES, least=0.001, most=1e6)
        url, key_source = resolve(host, key, allow_http=allow_http)
        self._transport = Transport(
            base_url=url,
            key=key_source,
            options=RequestOptions(timeout=timeout, retry=retry, headers=more_headers),
            max_concurrency=checked_int(max_concurrency, "max_concurrency", least=1),
            max_rate=rate,
            http=session,
            trace_configs=trace_configs,
        )
        self._closed = self._transport.closed
        self.add_hooks(on_request=on_request, on_response=on_response, on_retry=on_retry, on_failure=on_failure)
        self._waiter = RunWaiter(self.iter_runs, self._closed)

    @suggests_arguments
    def iter_runs(
        self,
        job_id: str,
        *,
        search_prefix: str | None = None,
        sort_by: SortBy | None = None,
        order: Order | None = None,
        triggered_by: Iterable[str] | str | None = None,
        status: Iterable[Status] | Status | None = None,
        version_numbers: Iterable[float | str] | float | str | None = None,
        created_after: Moment | None = None,
        created_before: Moment | None = None,
        filter: RunFilter | None = None,  # noqa: A002  # as `RunPaginator.filter`
        page_size: int | None = None,
        offset: int = 0,
        max_runs: int | None = None,
        resume_token: str | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        max_response_bytes: int | None = None,
    ) -> RunPaginator:
        """The runs of a job, in the server's order: newest first, unless `sort_by` or `order` says otherwise.

        Nothing is requested until it is iterated. `RunPaginator` has pages, lists, tables and counts, too.

        Every run that exists from the first request to the last is yielded exactly once, in order, while others are
        created and deleted; else `IncompleteWalkError` says why. By another key (`sort_by`) it takes twice the requests
        and some 100 bytes a run, and runs that move meanwhile come last. A run that is created again under its old id
        is another run. Not detectable: a server that cuts pages and gives what it has sent so far as the total; one
        that ignores `order`, varies the length of its pages, and is wrong about totals; a first response from an older
        state of the server, which lacks the newest runs.

        Args:
            job_id: id of the job.
            search_prefix: how the name or the id begins.
            sort_by: "startTime", or another `JobRunsSortBy`.
            order: "asc" or "desc".
            triggered_by: slugs of subjects, such as an e-mail address.
            status: one or several of `JobRunStatus`, such as "FAILED".
            version_numbers: one or several versions of the deployment, such as 3.
            created_after: an aware datetime, a timedelta before now, or milliseconds since 1970. From the newest run
                on, the walk ends at the first older one.
            created_before: likewise; newer runs are read, too, but not yielded.
            filter: all of these as one checked value.
            page_size: runs to request at once, 1 to 1,000; None for 1,000, or for what a window is likely to hold.
            offset: runs to skip first.
            max_runs: runs to yield at most; None for all.
            resume_token: of a page of an earlier walk by creation, with the same job and filters: exactly the rest is
                yielded, in another process, a day later, however the list has changed. A timedelta in
                `created_after` or `created_before` counts from the earlier call.
            timeout: seconds that one attempt may take; None for the client's, as with `retry`.
            retry: when these requests are retried.
            headers: headers to send besides the client's, or in place of those with the same name.
            max_response_bytes: the most bytes of a response, decompressed; None for 100 MiB.

        Yields:
            Each `JobRun`, in the server's order.

        Raises:
            TypeError, ValueError: at the call: an argument is wrong.
            TfRunsError: while iterating: `APIStatusError` if the server refuses, `APIConnectionError` if there is no
                complete response after the last retry, `DecodeError`, `IncompleteWalkError`, `ClientClosedError` and
                `EventLoopError`: `help("tfruns.errors")` has them all.

        Example:
            >>> async for run in client.iter_runs("my-job-id", status=["FAILED", "TERMINATED"], max_runs=100):
            ...     print(run.name, run.created, run.duration, run.error)

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.
        """
        checked_job_id(job_id)
        filters = Filters(
            search_prefix=search_prefix,
            sort_by=sort_by,
            order=order,
            triggered_by=triggered_by,
            status=status,
            version_numbers=version_numbers,
            created_after=created_after,
            created_before=created_before,
        )
        chosen, place = chosen_filter(filter, filters), None
        if resume_token is not None:
            if not chosen.is_by_creation:
                allowed = "resume_token goes with the order by creation alone"
                raise ValueError(f"{allowed}: leave out sort_by={chosen.sort_by!r}")
            if offset:
                raise ValueError(f"resume_token says where the walk goes on: leave out offset={offset!r}")
            times = {"created_after": created_after, "created_before": created_before}
            moving = [name for name, value in times.items() if isinstance(value, timedelta)]
            place, chosen = place_of(resume_token, job_id, chosen, moving)
        requests = {"timeout": timeout, "retry": retry, "max_response_bytes": max_response_bytes}
        return RunPaginator(job_id, self._walk_options(chosen, headers, page_size, offset, max_runs, place, **requests))

    @suggests_arguments
    async def list_runs(
        self,
        job_id: str,
        *,
        limit: int = 100,
        offset: int = 0,
        filter: RunFilter | None = None,  # noqa: A002
        timeout: float | None = None,  # noqa: ASYNC109  # of an attempt
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        **filters: Unpack[PageFilters],
    ) -> RunPage:
        """Exactly one page, by one request, as the server gives it.

        For more than a page use `iter_runs`, which explains the other arguments: pages that are requested one by one
        miss and repeat runs if the list changes.

        Args:
            limit: how many runs to request, 1 to 1,000.
            **filters: the filters and the order, but no time of creation.

        Returns:
            The runs in the server's order, and how many there are in all.

        Raises:
            TypeError, ValueError: an argument is wrong; nothing was requested.
            TfRunsError: as of `iter_runs`, while iterating.

        Example:
            >>> page = await client.list_runs("my-job-id", limit=10, offset=20)
            >>> print(len(page.data), "of", page.pagination.total)
            10 of 250

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.
        """
        runs = self.iter_runs(job_id, filter=filter, timeout=timeout, retry=retry, headers=headers, **filters)
        if runs.filter.has_window:
            raise ValueError("filter has a time of creation, which a single page can't be selected by: use iter_runs")
        limit = checked_int(limit, "limit", least=1, most=MAX_PAGE_SIZE)
        return await runs.fetch(checked_int(offset, "offset", least=0), limit)

    @suggests_arguments
    async def count_runs(
        self,
        job_id: str,
        *,
        filter: RunFilter | None = None,  # noqa: A002
        timeout: float | None = None,  # noqa: ASYNC109  # of an attempt
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """How many runs match, by the server's count now: one request for one run; a second if a job has none.

        The server doesn't count by time of creation: with `created_after` or `created_before` the runs are read, and
        counted. `iter_runs` explains the other arguments. (`sort_by` and `order` don't change the count.)

        Args:
            **filters: the filters, and the order.

        Returns:
            The server's count.

        Raises:
            TypeError, ValueError: an argument is wrong; nothing was requested.
            TfRunsError: as of `iter_runs`, while iterating.

        Example:
            >>> print(await client.count_runs("my-job-id"), "runs")
            250 runs

        Contract: `pagination.total` of `GET /api/svc/v1/jobs/{jobId}/runs`.
        """
        runs = self.iter_runs(job_id, filter=filter, timeout=timeout, retry=retry, headers=headers, **filters)
        return await runs.count()

    @suggests_arguments
    def iter_runs_for(
        self,
        job_ids: Iterable[str] | AsyncIterable[str],
        *,
        filter: RunFilter | None = None,  # noqa: A002  # as `RunPaginator.filter`
        page_size: int | None = None,
        offset: int = 0,
        max_runs: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        max_response_bytes: int | None = None,
        ordered: bool = False,
        on_error: OnError = "raise",
        **filters: Unpack[Filters],
    ) -> JobsPaginator:
        """The runs of many jobs: `async for job_id, run in client.iter_runs_for(job_ids)`.

        Each job is walked as `iter_runs` walks it, with the same arguments, which are explained there; `offset` and
        `max_runs` are those of each job. Up to `max_concurrency` jobs are walked side by side. New jobs go first: a job
        with many pages delays none of them, but gets at least one page in 32. Job ids are read at most 1,000 jobs
        ahead; a job whose id comes twice is walked twice.

        Args:
            job_ids: ids of the jobs: an iterable, sync or async. Those of an iterator come only once, for one walk.
            ordered: whether to yield one job after the other, in the order of the ids. Up to twice `max_concurrency`
                jobs are still fetched ahead.
            on_error: what to do if a job fails, after some or none of its runs: "raise" its error; or "skip" the rest
                of the job, which is then listed in `skipped`; or a function, sync or async, that is called with the
                job's id and the error, before the job is skipped. An error that isn't about one job (a refused key, a
                closed client) is raised in any case.
            **filters: the filters, and the order.

        Yields:
            Each run as `(job_id, run)`: those of one job in the server's order, those of several as they arrive.

        Raises:
            TypeError, ValueError: at the call: an argument is wrong; while iterating: a job id is wrong.
            TfRunsError: while iterating: see `iter_runs`.

        Example:
            >>> runs = client.iter_runs_for(["job-a", "job-b"], status="FAILED", on_error="skip")
            >>> async for job_id, run in runs:
            ...     print(job_id, run.name, run.error)
            >>> for job_id, error in runs.skipped.items():
            ...     print(f"skipped: {error}")

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.
        """
        check_job_ids(job_ids)
        check_on_error(on_error)
        checked_kind(ordered, "ordered", "True or False", bool)
        requests = {"timeout": timeout, "retry": retry, "max_response_bytes": max_response_bytes}
        chosen = chosen_filter(filter, filters)
        options = self._walk_options(chosen, headers, page_size, offset, max_runs, None, **requests)
        return JobsPaginator(job_ids, options, ordered=ordered, on_error=on_error)

    @suggests_arguments
    def watch_runs(
        self,
        job_ids: Iterable[str] | str,
        *,
        interval: Interval = (2.0, 30.0),
        start: Start | datetime = "now",
        resume_token: str | None = None,
        on_error: OnError = "raise",
        status: Iterable[Status] | Status | None = None,
        filter: RunFilter | None = None,  # noqa: A002
        **filters: Unpack[WatchFilters],
    ) -> RunWatch:
        """The changes of the runs of a job, or of several, from now on and without end: a `RunChange` for each.

        A run appears, changes (in more than `duration`, which grows by itself), finishes, and may be deleted. States
        between two polls of the job are merged: `before` is the run as it was reported last, `run` as it is now. A run
        that was created and ended since is reported as finished without a `before`; one that was created and deleted
        isn't reported. No change is reported twice. While a consumer is busy with changes of a job, others are polled.

        Each poll reads the newest runs, until all further ones are known (one request if no more than 30 are new), and
        the open runs further down, however old; a run in a status that this version doesn't know counts as open. It
        doesn't see that an ended run changes, or is deleted further down than the newest, nor a run that shows up late,
        behind more than 20 newer ones that were reported. Memory depends on how many runs are open or change at once.

        No single response is believed if an older or an empty state of the server may have made it: that a run is gone,
        or as it was before (open after its end, say), or that a job is refused (403, 404) after it could be polled, is
        reported once all polls have said so for 6 seconds; or for up to 5 minutes, if many runs vanish at once, or
        responses have contradicted each other in the last minutes.

        No outage ends it. If a transient failure (no connection, a timeout, the statuses 408, 425, 429 and 5xx, a list
        that changes too fast to be read) lasts longer than the client's `retry` allows, the watch goes on at its
        longest interval; the logger `tfruns` warns once, and again when the outage is over. But a host that never
        responded to this client, and can't be reached (its name is unknown, it refuses the connection, its certificate
        isn't trusted), may be a mistake: that ends the watch within seconds, whatever `on_error` is.

        Args:
            job_ids: the id of a job, or several ids.
            interval: seconds between two polls of a job: always the same, or the least and the most. The least is
                kept while runs change; with each poll that finds nothing the pause grows, up to the most.
            start: which runs are reported first, for jobs that aren't in the token: none that exist already ("now"),
                the open runs ("open"), the runs created since a given datetime, or all runs ("existing", which holds
                them in memory). Reports begin once each job was polled; if a job fails, or doesn't respond for 10
                seconds, without it: its runs that were created or ended since the newest event of the other jobs are
                reported when it responds.
            resume_token: go on after the change that had this token: nothing is missed or reported again, in any of the
                jobs. The filters must be the same, except `status`.
            on_error: as of `iter_runs_for`, if a job can't be polled because of an error of its own, such as 403, 404
                or a malformed run. A job that is skipped is polled again after pauses that grow to 10 minutes; when it
                responds, it is removed from `skipped`, and what happened meanwhile is reported.
            status: report only changes after which the run has one of these statuses. All runs are still watched.
            filter: all filters as one checked value; without an order or a time of creation.
            **filters: `search_prefix`, `triggered_by` and `version_numbers`, as of `iter_runs`.

        Yields:
            Each change, oldest run first among those found by one poll.

        Raises:
            TypeError, ValueError: at the call: an argument is wrong, or the token is damaged or another watch's.
            TfRunsError: while iterating: as of `iter_runs`, but for a transient failure.

        Example:
            >>> async for change in client.watch_runs(["job-a", "job-b"]):
            ...     if change.kind == "finished" and change.run.status == "FAILED":
            ...         print(change.job_id, change.run.name, change.run.error)
            ...         break

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.
        """
        chosen = chosen_filter(filter, {"status": status, **filters})
        return RunWatch(Watch(self.iter_runs, self._closed, job_ids, interval, start, resume_token, on_error, chosen))

    @suggests_arguments
    async def wait_for_run(
        self,
        job_id: str,
        run: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # it ends with an error of ours
        listed_within: float = 10.0,
        raise_for_failure: bool = False,
        interval: Interval = (1.0, 15.0),
    ) -> JobRun:
        """The run, once it has ended, successfully or not: with the status FINISHED, FAILED or TERMINATED.

        All waits for runs of one job share their requests. A poll takes one request while one run is waited for; else
        one for each 1,000 open runs of the job, and one for each awaited run that has ended. No outage ends a wait
        before its timeout, as in `watch_runs`; a host that can't be reached at first ends it within seconds.

        Args:
            job_id: id of the job.
            run: id or name of the run; of several runs with that name, the newest.
            timeout: seconds to wait at most; None for ever.
            listed_within: seconds in which the run must be listed; a run that was just started may not be there yet.
            raise_for_failure: whether to raise an error if the run ends as FAILED or TERMINATED.
            interval: seconds between two polls, as in `watch_runs`; of several waits for runs of one job, the shortest.

        Returns:
            The run as it ended.

        Raises:
            TypeError, ValueError: an argument is wrong.
            RunNotFoundError: there is no such run, and none was listed in time.
            RunDeletedError: the run was deleted meanwhile: it couldn't be found for some seconds, as in `watch_runs`.
            RunFailedError: the run ended as FAILED or TERMINATED, with `raise_for_failure`.
            WaitTimeoutError: it hasn't ended in time. (Also a TimeoutError.)
            TfRunsError: another, as of `watch_runs`.

        Example:
            >>> run = await client.wait_for_run("my-job-id", "train-7f3a", timeout=3600)
            >>> print(run.name, "is", run.status)
            train-7f3a is FINISHED

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.
        """
        checked_kind(raise_for_failure, "raise_for_failure", "True or False", bool)
        return await self._waiter.wait(job_id, run, timeout, listed_within, raise_for_failure, interval)

    def _walk_options(
        self,
        chosen: RunFilter,
        headers: Mapping[str, str] | None,
        page_size: int | None,
        offset: int,
        max_runs: int | None,
        place: Place | None,
        **requests: Any,
    ) -> WalkOptions:
        size = MAX_PAGE_SIZE if page_size is None else page_size
        return WalkOptions(
            transport=self._transport,
            request_options=self._transport.options.with_changes(headers, **requests),
            filter=chosen,
            place=place,
            page_size=checked_int(size, "page_size", least=1, most=MAX_PAGE_SIZE),
            fits_window=page_size is None,
            offset=checked_int(offset, "offset", least=0),
            max_runs=None if max_runs is None else checked_int(max_runs, "max_runs", least=0),
        )

    @property
    def base_url(self) -> str:
        """URL of the control plane, without a trailing slash."""
        return self._transport.base_url

    @property
    def max_concurrency(self) -> int:
        """How many requests may be in flight at once."""
        return self._transport.max_concurrency

    def __repr__(self) -> str:
        if "_transport" not in vars(self):  # in the traceback of an error in `__init__`
            return "<tfruns.Client, not made yet>"
        return f"<tfruns.Client of {self.base_url}{' (closed)' if self._closed.is_set else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a tfruns.Client can't be pickled: it holds the API key and connections: make one in each process"
        )

    async def __aenter__(self) -> Self:
        self._transport.connections.check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client and its connections. Closing twice does nothing; using a closed client raises.

        Requests in flight end with a `ClientClosedError`. Your own aiohttp session stays open.

        Raises:
            EventLoopError: the client is in use in another event loop, which isn't closed.

        Example:
            >>> client = tfruns.Client()
            >>> try:
            ...     page = await client.list_runs("my-job-id")
            ... finally:
            ...     await client.aclose()
        """
        await self._transport.aclose()

    def stats(self) -> ClientStats:
        """What this client has done so far, and what it is doing now, as `ClientStats`."""
        return self._transport.stats()

    def add_hooks(
        self,
        *,
        on_request: Callable[[RequestEvent], object] | None = None,
        on_response: Callable[[ResponseEvent], object] | None = None,
        on_retry: Callable[[RetryEvent], object] | None = None,
        on_failure: Callable[[FailureEvent], object] | None = None,
    ) -> None:
        """Add functions that are called with the events of this client, from the next event on.

        An event goes to the hooks of its kind in the order in which they were added. They are called in the event loop,
        and must be quick. When one raises, the walk ends, and the hooks after it aren't called.

        Args:
            on_request: a function that is called with a `RequestEvent` when a request is sent.
            on_response: one that is called with a `ResponseEvent` when a complete response has arrived.
            on_retry: one that is called with a `RetryEvent` when a request will be retried.
            on_failure: one that is called with a `FailureEvent` when a request has failed for good.

        Raises:
            TypeError: one isn't a function, or is an async one; then none is added.

        Example:
            >>> client.add_hooks(on_response=lambda event: print(event.status_code, event.request_id))
        """
        self._transport.hooks.add(
            on_request=on_request, on_response=on_response, on_retry=on_retry, on_failure=on_failure
        )
