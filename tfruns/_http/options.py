"""How requests are sent: the client's timeout, retries and headers, or those of a single call."""

import re
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
import attrs

from tfruns._checks import checked_int, checked_timeout
from tfruns._http.retry import RetryPolicy
from tfruns._http.secret import Secret
from tfruns.version import __version__

MAX_RESPONSE_BYTES = 100 * 2**20
"""The most bytes of a response's body, decompressed: a hundred times the size of 1,000 runs."""

_OUR_HEADERS = {"Accept": "application/json", "User-Agent": f"tfruns/{__version__} aiohttp/{aiohttp.__version__}"}
_OF_THE_CONNECTION = frozenset({"content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"})
"""Headers with which the caller would break the connection, or have the key sent to another host."""


def checked_headers(headers: Secret, known: Mapping[str, str] = _OUR_HEADERS) -> dict[str, str]:
    """The headers to send with each request: the caller's, and the known ones that they don't replace.

    Args:
        headers: the caller's, or None, wrapped: keys have been put among them.
        known: the headers that are sent besides.

    Raises:
        TypeError, ValueError: a header can't be sent, or would carry a key.
    """
    flaw = _flaw_of_headers(headers.value)
    if flaw is not None:
        raise flaw
    checked = dict(known)
    for name, value in (headers.value or {}).items():
        checked = {other: kept for other, kept in checked.items() if other.lower() != name.lower()}
        checked[name] = value
    return checked


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
        if name.lower() in _OF_THE_CONNECTION and (name.lower(), value) != ("connection", "close"):
            return ValueError(f"the header {name} can't be given: it is made for each request")
        if name.lower() == "authorization":
            return ValueError("the header Authorization is made of api_key: pass the key there")
    return None


def _checked_timeout(_: object, __: object, value: float) -> None:
    checked_timeout(value)


def _checked_retry(_: object, __: object, value: RetryPolicy) -> None:
    if not isinstance(value, RetryPolicy):
        raise TypeError(f"retry must be a RetryPolicy, got {value!r}")


@attrs.frozen(kw_only=True)
class RequestOptions:
    """How requests are sent.

    Raises:
        TypeError, ValueError: a value can't be used.
    """

    timeout: float = attrs.field(validator=_checked_timeout)
    """Seconds for one attempt."""
    retry: RetryPolicy = attrs.field(validator=_checked_retry)
    max_response_bytes: int = MAX_RESPONSE_BYTES
    """The most bytes of a response's body, decompressed."""
    headers: Mapping[str, str] = attrs.field(converter=checked_headers, repr=False)

    def with_changes(
        self,
        *,
        timeout: float | None,
        retry: RetryPolicy | None,
        headers: Mapping[str, str] | None,
        max_response_bytes: int | None = None,
    ) -> Self:
        """A copy with the given values; headers are added to the existing ones."""
        if timeout is None and retry is None and headers is None and max_response_bytes is None:
            return self
        return attrs.evolve(
            self,
            timeout=self.timeout if timeout is None else timeout,
            retry=self.retry if retry is None else retry,
            headers=Secret(checked_headers(Secret(headers), self.headers)),
            max_response_bytes=self.max_response_bytes
            if max_response_bytes is None
            else checked_int(max_response_bytes, "max_response_bytes", least=1, most=MAX_RESPONSE_BYTES),
        )
