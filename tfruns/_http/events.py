"""What a client reports about its requests: an event for each step, and its counts."""

from collections.abc import Callable

import attrs

from tfruns._checks import check_plain_function


@attrs.frozen(kw_only=True)
class RequestEvent:
    """A request is sent.

    Example:
        >>> def report(event: tfruns.RequestEvent) -> None:
        ...     print(event.job_id, event.offset, event.limit, event.attempt)
        >>> async with tfruns.Client(on_request=report) as client:
        ...     page = await client.list_runs("my-job-id", limit=10)
        my-job-id 0 10 1
    """

    job_id: str
    """The job."""
    offset: int
    """How many runs of the list are skipped."""
    limit: int
    """The most runs that the page may hold."""
    attempt: int
    """1 for the first attempt to fetch this page, 2 for its first retry."""


@attrs.frozen(kw_only=True)
class ResponseEvent(RequestEvent):
    """A complete response has arrived, good or bad.

    Example:
        >>> def report(event: tfruns.ResponseEvent) -> None:
        ...     print(event.job_id, event.status_code, event.size, "bytes in", event.seconds, "s")
        >>> async with tfruns.Client(on_response=report) as client:
        ...     page = await client.list_runs("my-job-id")
    """

    status_code: int
    """HTTP status of the response."""
    size: int
    """Bytes of the body, decompressed."""
    seconds: float
    """Seconds from sending the request to the last byte of the response."""
    request_id: str | None
    """The server's id of the request, if it gave one."""


@attrs.frozen(kw_only=True)
class RetryEvent(RequestEvent):
    """An attempt has failed, and another will be made.

    Example:
        >>> def report(event: tfruns.RetryEvent) -> None:
        ...     print(f"attempt {event.attempt}: {event.error}; the next in {event.wait:.2f} s")
        >>> client = tfruns.Client(on_retry=report)
    """

    error: Exception
    """Why it failed."""
    wait: float
    """Seconds until the next attempt, which may also have to wait for its turn."""


@attrs.frozen(kw_only=True)
class FailureEvent:
    """A request has failed for good: it isn't retried, or its last retry has failed.

    There is exactly one for each page request that ends with an error, and none for one that is cancelled, or that ends
    because the client is closed or belongs to another event loop, or because a hook raises.

    Example:
        >>> def report(event: tfruns.FailureEvent) -> None:
        ...     print(f"{event.job_id} at {event.offset}: {event.error!r} after {event.attempts} attempts")
        >>> client = tfruns.Client(on_failure=report)
    """

    job_id: str
    """The job."""
    offset: int
    """How many runs of the list are skipped."""
    limit: int
    """The most runs that the page may hold."""
    attempts: int
    """How many attempts were made."""
    seconds: float
    """Seconds from just before the first attempt, including all waits."""
    error: Exception
    """The error that is raised."""
    request_id: str | None
    """The server's id of the last request, if it gave one."""


@attrs.frozen(kw_only=True)
class ClientStats:
    """What a client has done so far, over all its walks.

    Example:
        >>> async with tfruns.Client() as client:
        ...     page = await client.list_runs("my-job-id")
        ...     print(client.stats().requests, client.stats().runs)
        1 100
    """

    requests: int
    """Requests sent, including retries."""
    retries: int
    """Attempts that failed and were, or will be, repeated."""
    bytes: int
    """Bytes of the complete responses' bodies, decompressed."""
    runs: int
    """Runs yielded, or about to be."""
    in_flight: int
    """Requests in flight now."""
    waiting: int
    """Requests that wait for their turn now: by `max_concurrency` or `max_rate`, or held back by the server."""
    concurrency: int
    """How many may be in flight now: `max_concurrency`, or less after many failures."""
    rate: float | None
    """How many may be sent in a second now: `max_rate`, or less after refusals; None for no limit."""


class Hooks(dict[str, tuple[Callable[..., object], ...]]):
    """Functions that are called with the events of a client, in the order in which they were added.

    Two names are for `tfruns.otel`: `on_end` is called in the task of a page request when that is over, cancelled ones
    included, and `on_runs` with each number of runs that are yielded.
    """

    def add(self, **hooks: Callable[..., object] | None) -> None:
        """Add a function for each name that isn't None. If one isn't a plain function, none is added."""
        for name, hook in hooks.items():
            check_plain_function(hook, name)
        self.update({name: (*self.get(name, ()), hook) for name, hook in hooks.items() if hook is not None})

    def call(self, name: str, *values: object) -> None:
        """Call each of the hooks with the values, up to the first that raises, which is a `UserCodeError`."""
        try:
            for hook in self.get(name, ()):
                hook(*values)
        except (Exception, GeneratorExit) as error:
            raise UserCodeError(error, is_of_a_hook=True) from None


class UserCodeError(Exception):
    """Wraps what a hook or the function that gives the key has raised: it ends a request at once, whatever it is.

    (It may be an OSError, which is retried where the network raises it.) `Transport` unwraps it.
    """

    def __init__(self, error: Exception | GeneratorExit, *, is_of_a_hook: bool = False) -> None:
        self.is_of_a_hook = is_of_a_hook
        if isinstance(error, (StopAsyncIteration, GeneratorExit)):  # it would look like the end of the walk
            self.error: Exception = RuntimeError(f"a function given to the client raised {type(error).__name__}")
            self.error.__cause__ = error
        else:
            self.error = error
