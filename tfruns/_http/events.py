"""What a client tells of its requests: an event for each step, and its counts."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from tfruns.described import described


@described
@attrs.frozen(kw_only=True)
class RequestEvent:
    """A request is sent.

    Example:
        >>> def tell(event: tfruns.RequestEvent) -> None:
        ...     print(event.job_id, event.offset, event.limit, event.attempt)
        >>> async with tfruns.Client(on_request=tell) as client:
        ...     page = await client.list_runs("my-job-id", limit=10)
        my-job-id 0 10 1

    .. versionadded:: 0.1.0
    """

    job_id: str
    """The job."""
    offset: int
    """How many runs are skipped."""
    limit: int
    """The most runs asked for."""
    attempt: int
    """1 for the first time that this page is asked for, 2 for its first retry."""


@described
@attrs.frozen(kw_only=True)
class ResponseEvent(RequestEvent):
    """A whole answer has come, good or bad.

    Example:
        >>> def tell(event: tfruns.ResponseEvent) -> None:
        ...     print(event.job_id, event.status_code, event.size, "bytes in", event.seconds, "s")
        >>> async with tfruns.Client(on_response=tell) as client:
        ...     page = await client.list_runs("my-job-id")

    .. versionadded:: 0.1.0
    """

    status_code: int
    """HTTP status of the answer."""
    size: int
    """Bytes of the body, decompressed."""
    seconds: float
    """Seconds from sending the request to the last byte of the answer."""
    request_id: str | None
    """The server's id of the request, if it gave one."""


@described
@attrs.frozen(kw_only=True)
class RetryEvent(RequestEvent):
    """An attempt has failed, and another will be made.

    Example:
        >>> def tell(event: tfruns.RetryEvent) -> None:
        ...     print(f"attempt {event.attempt}: {event.error}; the next in {event.wait:.2f} s")
        >>> client = tfruns.Client(on_retry=tell)

    .. versionadded:: 0.1.0
    """

    error: Exception
    """Why it failed."""
    wait: float
    """Seconds until the next attempt; it may have to wait for its turn besides."""


@described
@attrs.frozen(kw_only=True)
class ClientStats:
    """What a client has done so far, over all its walks.

    Example:
        >>> async with tfruns.Client() as client:
        ...     page = await client.list_runs("my-job-id")
        ...     print(client.stats().requests, client.stats().runs)
        1 100

    .. versionadded:: 0.1.0
    """

    requests: int
    """Requests sent, retries included."""
    retries: int
    """Attempts that failed and were, or will be, made again."""
    bytes: int
    """Bytes of the answers' bodies, decompressed."""
    runs: int
    """Runs handed out, or about to be."""
    under_way: int
    """Requests under way now."""
    concurrency: int
    """How many may be under way now: `max_concurrency`, or less after the server was in trouble."""


_Event = TypeVar("_Event", bound=RequestEvent)


def check_plain_function(value: object, name: str) -> None:
    """Raise TypeError unless the value is None or a function that isn't async: nothing waits for what it does."""
    if value is None:
        return
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {value!r}")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise TypeError(f"{name} must be a plain function, not an async one: nothing waits for it")


def _plain_function(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    check_plain_function(value, field.name)


@attrs.frozen(kw_only=True)
class Hooks:
    """Functions that are told what a client does.

    Raises:
        TypeError: one isn't a plain function.
    """

    on_request: Callable[[RequestEvent], object] | None = attrs.field(default=None, validator=_plain_function)
    on_response: Callable[[ResponseEvent], object] | None = attrs.field(default=None, validator=_plain_function)
    on_retry: Callable[[RetryEvent], object] | None = attrs.field(default=None, validator=_plain_function)


class HookError(Exception):
    """A hook raised: no OSError, for one, that could be taken for one of the network and be retried."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def tell(hook: Callable[[_Event], object] | None, event: _Event) -> None:
    """Call the hook, if there is one.

    Raises:
        HookError: it raised.
    """
    if hook is not None:
        try:
            hook(event)
        except Exception as error:
            raise HookError(error) from None
