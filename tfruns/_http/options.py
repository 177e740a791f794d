"""How requests are sent: timeout, retries and headers, those of the client or of a single call."""

import re
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
import attrs
from multidict import CIMultiDict

from tfruns._checks import checked_int, checked_kind, checked_number, checked_timeout
from tfruns._http.secret import Secret
from tfruns.version import __version__

_MAX_RESPONSE_BYTES = 100 * 2**20  # of the body, decompressed: a hundred times the size of 1,000 runs
_A_DAY = 86_400.0  # in seconds; a longer time is a mistake in the unit
_OUR_HEADERS = {"Accept": "application/json", "User-Agent": f"tfruns/{__version__} aiohttp/{aiohttp.__version__}"}
_OF_THE_CONNECTION = frozenset({"content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"})
"""Headers with which the caller would break the connection, or have the key sent to another host."""


def checked_headers(headers: Secret, known: Mapping[str, str] = _OUR_HEADERS) -> dict[str, str]:
    """The caller's headers, wrapped, for keys have been put among them; and the known ones that they don't replace."""
    flaw = _flaw_of_headers(headers.value)
    if flaw is not None:
        raise flaw
    checked = CIMultiDict(known)
    for name, value in (headers.value or {}).items():
        checked[name] = value
    return dict(checked)


def _flaw_of_headers(headers: Any) -> Exception | None:
    """What is wrong with the headers, as an error that was not raised: a traceback would show them."""
    if headers is None:
        return None
    if not isinstance(headers, Mapping):
        return TypeError(f"headers must map names to values, got {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            return TypeError(f"headers must map strings to strings, got {name!r}: {type(value).__name__}")
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            return ValueError(f"{name!r} can't be the name of a header")
        if re.search(r"[^\x20-\x7e\t]", value):
            return ValueError(f"the header {name!r} holds a character that can't be sent")
        if name.lower() in _OF_THE_CONNECTION:
            return ValueError(f"the header {name} can't be given: it is made for each request")
        if name.lower() == "authorization":
            return ValueError("the header Authorization is made of api_key: pass the key there")
    return None


def _seconds(_: object, field: "attrs.Attribute[Any]", value: float | None) -> None:
    if value is None and field.default is None:
        return
    least = 0.001 if field.name == "deadline" else 0.0
    allowed = f"seconds, a number from {least:g} to {_A_DAY:g}"
    checked_number(value, field.name, allowed, least=least, most=_A_DAY)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and for how long a request is retried.

    Retried are connection errors, timeouts, responses that were cut off, the statuses 408, 425, 429 and 5xx, and, once
    there was a good page, responses that are no page at all, such as a proxy's own; any other failure is raised at once
    (`APIError.is_transient`). The wait before the nth retry is drawn at random between 0 and
    `initial_backoff * 2**(n - 1)`, at most `max_backoff`. A wait that the server requests (`retry-after-ms`,
    `Retry-After`, or `X-RateLimit-Reset` on a 429 or 503) comes before it, up to a minute, and holds back all requests
    of the client. While every request fails, single requests probe the server, about one a second, and all others wait.

    The defaults are made for batch jobs, which an outage of some minutes doesn't end. A service that must respond soon
    sets `deadline`. AWS's SDKs retry, in their standard mode, like `RetryPolicy(max_attempts=3, max_backoff=20)`, and
    Stripe's like `RetryPolicy(max_attempts=3, initial_backoff=0.5, max_backoff=5)`. Both give up on an outage within
    seconds.

    Raises:
        TypeError, ValueError: a value isn't a number, or is out of range.

    Example:
        >>> patient = tfruns.RetryPolicy(patience=3600)
        >>> async with tfruns.Client(retry=patient) as client:
        ...     runs = await client.iter_runs("my-job-id", retry=tfruns.RetryPolicy(max_attempts=1)).collect()
    """

    max_attempts: int | None = attrs.field(
        default=None,
        validator=lambda _, field, value: value is None or checked_int(value, field.name, least=1, most=1_000),
    )
    """How often a request is sent at most, including the first time: 1 means no retries. None for as often as
    `patience` and `deadline` allow; but ten times if the server fails on this request (with a 500, for example) while
    it responds well to others. (If a connection breaks before the response begins, aiohttp sends it once more at once,
    which isn't counted.)"""
    initial_backoff: float = attrs.field(default=0.1, validator=_seconds)
    """Seconds: the longest wait before the first retry."""
    max_backoff: float = attrs.field(default=8.0, validator=_seconds)
    """Seconds: the longest wait before any retry, besides what the server requests."""
    deadline: float | None = attrs.field(default=None, validator=_seconds)
    """Seconds for one page in all: every attempt, every wait between them, and the time in which the server holds it
    back; but not the time in which it waits for its turn because of `max_concurrency` and `max_rate`. None for no
    limit."""
    patience: float = attrs.field(default=300.0, validator=_seconds)
    """Seconds: how long to wait for the end of an outage. A request fails once the client has had no good response from
    the server for so long, or once this request alone has failed for so long. (A host that never responded, and can't
    be reached because its name is unknown or it refuses the connection, is given five seconds: it may be wrong.)
    """


@attrs.frozen(kw_only=True)
class RequestOptions:
    timeout: float = attrs.field(validator=lambda _, __, value: checked_timeout(value))  # seconds for one attempt
    retry: RetryPolicy = attrs.field(
        validator=lambda _, field, value: checked_kind(value, field.name, "a RetryPolicy", RetryPolicy)
    )
    max_response_bytes: int = attrs.field(
        default=_MAX_RESPONSE_BYTES,
        validator=lambda _, field, value: checked_int(value, field.name, least=1, most=_MAX_RESPONSE_BYTES),
    )
    headers: Mapping[str, str] = attrs.field(converter=checked_headers, repr=False)

    def with_changes(self, headers: Mapping[str, str] | None, **changes: Any) -> Self:
        """A copy with the values that aren't None; headers are added to the existing ones."""
        changed = {name: value for name, value in changes.items() if value is not None}
        if headers is None and not changed:
            return self
        return attrs.evolve(self, headers=Secret(checked_headers(Secret(headers), self.headers)), **changed)
