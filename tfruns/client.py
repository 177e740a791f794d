"""The face of tfruns: a client for the run history of the jobs of one control plane."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import NoReturn, Self

import aiohttp

from tfruns._http.credentials import ApiKey, resolve
from tfruns._http.events import (
    ClientStats,
    Counters,
    FailureEvent,
    Hooks,
    RequestEvent,
    ResponseEvent,
    RetryEvent,
)
from tfruns._http.options import CallOptions
from tfruns._http.retry import RetryPolicy
from tfruns._http.secret import Secret
from tfruns._http.transport import Transport
from tfruns._walk.jobs import OnError
from tfruns._watch.diff import Start
from tfruns._watch.pace import Closing, Interval
from tfruns._watch.wait import Waits
from tfruns._watch.watcher import RunWatch, Watch
from tfruns.lists import RunLister
from tfruns.models import JobRun, JobRunStatus
from tfruns.query import checked_int, checked_job_id, names_arguments


class Client(RunLister):
    """Lists the runs of TrueFoundry jobs.

    Use it as an async context manager, or call `aclose` in the end. Any number of tasks of one event loop may share it;
    after that loop is over, another may have it. Code that blocks the event loop for long makes requests time out: run
    it in a thread (`asyncio.to_thread`).

    Args:
        base_url: URL of the control plane, such as `https://acme.truefoundry.cloud`; else the environment variable
            `TFY_HOST`.
        api_key: the key, or a function, sync or async, that returns it; else the environment variable `TFY_API_KEY`.
            The function is called when a key is first needed, and once more for a request that is refused (401), so it
            can follow a key that changes. For a key that is mounted as a file:
            `api_key=lambda: Path("/run/secrets/key").read_text().strip()`. What it raises ends the request.
        timeout: seconds that one attempt may take, from connecting to the last byte of the response.
        retry: how often and for how long a failed request is retried, and how long an outage is worth waiting for.
        max_concurrency: how many requests may be in flight at once, over all walks of this client.
        max_rate: how many requests may be sent in a second, over all walks of this client; None for as many as the
            server takes: the client learns that from what is refused.
        headers: more headers to send with each request.
        session: an aiohttp session to send requests with, which stays yours to close; else the client has its own.
            (One with a connector of yours for TLS settings, or `trust_env=True` for a proxy from the environment.)
        allow_http: whether the key may be sent over plain http to other machines than this one, where anyone on the way
            can read it.
        trace_configs: aiohttp trace configs, for tracing by OpenTelemetry for one; not with a session of yours, which
            has its own.
        on_request: a function that is called with a `RequestEvent` when a request is sent.
        on_response: one that is called with a `ResponseEvent` when a complete response has come.
        on_retry: one that is called with a `RetryEvent` when a request will be retried.
        on_failure: one that is called with a `FailureEvent` when a request has failed for good. These four are called
            in the event loop, and must be quick; what they raise ends the walk.

    Without a host and a key, both come from `~/.truefoundry/credentials.json`, which the TrueFoundry CLI writes. The
    token in that file goes to the host in that file alone: it also serves where `base_url` or `TFY_HOST` names that
    same host, and any other host needs a key. When the server refuses the token, the file is read again, once for a
    request, since the CLI rewrites it.

    | host given | key given | what is used                                                                        |
    |------------|-----------|-------------------------------------------------------------------------------------|
    | yes        | yes       | both; the file isn't read                                                           |
    | yes        | no        | the file's token if the file is for that host, else `ConfigurationError`            |
    | no         | yes       | `ConfigurationError`                                                                |
    | no         | no        | host and token of the file, or `ConfigurationError` if there is none                |

    ("Given" is by the argument or by the environment. Two URLs name the same host if scheme, name, port and path are
    the same, but for letter case, a default port, and slashes at the end.)

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
        max_rate: float | None = None,
        headers: Mapping[str, str] | None = None,
        session: aiohttp.ClientSession | None = None,
        allow_http: bool = False,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        on_request: Callable[[RequestEvent], object] | None = None,
        on_response: Callable[[ResponseEvent], object] | None = None,
        on_retry: Callable[[RetryEvent], object] | None = None,
        on_failure: Callable[[FailureEvent], object] | None = None,
    ) -> None:
        host, key = Secret(base_url), Secret(api_key)
        del base_url, api_key  # the traceback of an error shows the variables of this frame
        if session is not None and not isinstance(session, aiohttp.ClientSession):
            raise TypeError(f"session must be an aiohttp.ClientSession, got {session!r}")
        if session is not None and session.auth is not None:
            raise ValueError("session has `auth`, which would take the place of the API key: leave it out")
        trace_configs = tuple(trace_configs)
        for config in trace_configs:
            if not isinstance(config, aiohttp.TraceConfig):
                raise TypeError(f"trace_configs must be aiohttp.TraceConfig values, got {config!r}")
        if session is not None and trace_configs:
            raise ValueError("trace_configs are for the client's own session: give yours to your aiohttp.ClientSession")
        url, key_source = resolve(host, key, allow_http=allow_http)
        self._transport = Transport(
            base_url=url,
            key=key_source,
            options=CallOptions(timeout=timeout, retry=retry, headers=headers),
            max_concurrency=checked_int(max_concurrency, "max_concurrency", least=1),
            max_rate=_checked_rate(max_rate),
            hooks=Hooks(on_request=on_request, on_response=on_response, on_retry=on_retry, on_failure=on_failure),
            counters=Counters(),
            http=session,
            trace_configs=trace_configs,
        )
        self._closing = Closing()
        self._waits = Waits(self, self._closing)

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
        return f"<tfruns.Client of {self.base_url}{' (closed)' if self._transport.is_closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a tfruns.Client can't be pickled: it holds the API key and connections: make one in each process"
        )

    async def __aenter__(self) -> Self:
        self._transport.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client and its connections. Closing twice does nothing; using a closed client raises.

        Requests in flight end with a `ClientClosedError`. An aiohttp session of yours stays open.

        Raises:
            EventLoopError: the client is in use in another event loop, which still lives.

        Example:
            >>> client = tfruns.Client()
            >>> try:
            ...     page = await client.list_runs("my-job-id")
            ... finally:
            ...     await client.aclose()

        .. versionadded:: 0.1.0
        """
        self._closing.set()
        try:
            await self._waits.aclose()
        finally:
            await self._transport.aclose()

    def stats(self) -> ClientStats:
        """What this client has done so far, and what it is doing, as `ClientStats`.

        .. versionadded:: 0.1.0
        """
        return self._transport.stats()

    @names_arguments
    def watch_runs(
        self,
        job_ids: Iterable[str] | str,
        *,
        interval: Interval = (2.0, 30.0),
        start: Start | datetime = "now",
        resume_token: str | None = None,
        on_error: OnError = "raise",
        search_prefix: str | None = None,
        triggered_by: Iterable[str] | str | None = None,
        status: Iterable[JobRunStatus | str] | JobRunStatus | str | None = None,
        version_numbers: Iterable[float | str] | float | str | None = None,
    ) -> RunWatch:
        """What happens to the runs of a job, or of several, from now on and for ever, as a `RunChange` each.

        A run appears, changes (but for `duration`, which grows by itself), finishes, and may be deleted. States between
        two polls of the job are merged: `before` is what was reported last, `run` what is there now; a run that came
        and ended since is reported once, as finished without a `before`; one that came and went is not reported. No
        change is reported twice. Changes found by one poll come oldest run first.

        Each poll reads the newest runs, down to where all is known (one request if no more than 30 are new), and the
        open runs further down, however old. It sees every deletion of an open run; that of a run which has ended, only
        if it was among those newest, and created after the last of them. It doesn't see what changes in a run after its
        end, or a run that shows up late, behind more than 20 newer ones that were reported. A run in a status that this
        version doesn't know counts as open. A job isn't polled while the consumer is busy with its changes: a slow one
        gets them merged. Memory depends on how many runs are open, and change at once.

        No outage ends it. A poll that fails is retried as the client's `retry` says. If it still fails by what may pass
        (no connection, a timeout, the statuses 408, 425, 429 and 5xx, a list that changes too fast to be read), the
        watch goes on at its slowest, for as long as it takes; the logger `tfruns` warns once, and again when the outage
        is over.

        Args:
            job_ids: the id of a job, or several ids.
            interval: seconds between two polls of a job: always the same, or the least and the most. The least is
                kept while runs change; with each poll that finds nothing the pause grows, up to the most.
            start: what is reported first, for jobs that the token doesn't know: nothing that is there already ("now"),
                the runs that are open ("open"), the runs that were created since a time, or all runs ("existing", which
                reads them all, and holds them in memory while it reports them). Reports begin once each job was polled;
                if a job doesn't respond for 10 seconds, or fails, without it. Then all that was created or ended in it
                since the newest event of the other jobs is reported too, when it responds.
            resume_token: go on after the change that had this token: nothing is missed or reported again, whatever
                the watch had got to with its other jobs. The filters must be the same, but for `status`.
            on_error: what to do where a job can't be polled by an error of its own, such as 403, 404 or a malformed
                run: "raise" its error, which ends the watch; or "skip" the job, which then stands in `skipped`; or a
                function, sync or async, that is called with the job's id and the error, before the job is skipped. A
                skipped job is polled again after pauses that grow to 10 minutes; when it responds, it leaves `skipped`,
                and what happened meanwhile is reported. What isn't about one job (a refused key, a closed client) is
                raised in any case.
            search_prefix: only runs whose name or id begins with this.
            triggered_by: only runs started by these subjects, by slug, such as an e-mail address.
            status: only changes to these statuses. The runs are watched all the same.
            version_numbers: only runs of these versions of the deployment, such as 3.

        Yields:
            Each change, oldest run first among those found by one poll.

        Raises:
            TypeError, ValueError: at the call: an argument is wrong, or the token is damaged or another watch's.
            NotFoundError, PermissionDeniedError, and other APIStatusError: while iterating: the server refused, for
                one of the jobs.
            APIConnectionError: while iterating: the server's certificate doesn't hold.
            DecodeError: while iterating: a response isn't what the contract says.
            ClientClosedError: while iterating: the client was closed.
            EventLoopError: while iterating: the client is in use in another event loop, or was before a fork.

        Example:
            >>> async for change in client.watch_runs(["job-a", "job-b"]):
            ...     if change.kind == "finished" and change.run.status == "FAILED":
            ...         print(change.job_id, change.run.name, change.run.error)
            ...         break

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.

        .. versionadded:: 0.1.0
        """
        watch = Watch.of(
            self,
            self._closing,
            job_ids,
            interval=interval,
            start=start,
            resume_token=resume_token,
            on_error=on_error,
            status=status,
            search_prefix=search_prefix,
            triggered_by=triggered_by,
            version_numbers=version_numbers,
        )
        return RunWatch(watch)

    @names_arguments
    async def wait_for_run(
        self,
        job_id: str,
        run: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # what went wrong is told by an error of ours
        raise_for_failure: bool = False,
        interval: Interval = (1.0, 15.0),
    ) -> JobRun:
        """The run, once it has ended, well or not: with the status FINISHED, FAILED or TERMINATED.

        All waits for runs of one job share their requests: one for each poll while one run is waited for; else one for
        each 1,000 open runs of the job, and one for each that has ended. No outage ends a wait before its timeout: a
        poll that fails by what may pass (see `watch_runs`) is a warning of the logger `tfruns`, and the wait goes on.

        Args:
            job_id: id of the job.
            run: id or name of the run; of several runs with that name, the newest.
            timeout: seconds to wait at most; None for ever.
            raise_for_failure: whether an end as FAILED or TERMINATED is an error.
            interval: seconds between two polls: always the same, or the least and the most, as in `watch_runs`. Of
                several waits for runs of one job, the shortest counts.

        Returns:
            The run as it ended.

        Raises:
            TypeError, ValueError: an argument is wrong.
            RunNotFoundError: there is no such run.
            RunDeletedError: the run was deleted meanwhile.
            RunFailedError: the run ended as FAILED or TERMINATED, with `raise_for_failure`.
            WaitTimeoutError: it hasn't ended in time. (A TimeoutError too.)
            NotFoundError, and other APIError: the server refused, or its response isn't what the contract says.
            ClientClosedError: the client was closed.

        Example:
            >>> run = await client.wait_for_run("my-job-id", "train-7f3a", timeout=3600)
            >>> print(run.name, "is", run.status)
            train-7f3a is FINISHED

        Contract: `GET /api/svc/v1/jobs/{jobId}/runs`.

        .. versionadded:: 0.1.0
        """
        return await self._waits.wait(
            checked_job_id(job_id), run, timeout=timeout, raise_for_failure=raise_for_failure, interval=interval
        )


def _checked_rate(max_rate: float | None) -> float:
    if max_rate is None:
        return math.inf
    if not isinstance(max_rate, (int, float)) or isinstance(max_rate, bool):
        raise TypeError(f"max_rate must be requests a second, or None, got {max_rate!r}")
    if not 0.001 <= max_rate <= 1e6:
        raise ValueError(f"max_rate must be requests a second, from 0.001 to 1,000,000, or None, got {max_rate!r}")
    return max_rate
