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
    """The caller's headers, wrapped, for keys have been put among them; and the known ones that they don't replace."""
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


def _checked_retry(_: object, __: object, value: RetryPolicy) -> None:
    if not isinstance(value, RetryPolicy):
        raise TypeError(f"retry must be a RetryPolicy, got {value!r}")


@attrs.frozen(kw_only=True)
class RequestOptions:
    """How requests are sent."""

    timeout: float = attrs.field(validator=lambda _, __, value: checked_timeout(value))
    """Seconds for one attempt."""
    retry: RetryPolicy = attrs.field(validator=_checked_retry)
    max_response_bytes: int = attrs.field(
        default=MAX_RESPONSE_BYTES,
        validator=lambda _, field, value: checked_int(value, field.name, least=1, most=MAX_RESPONSE_BYTES),
    )
    """The most bytes of a response's body, decompressed."""
    headers: Mapping[str, str] = attrs.field(converter=checked_headers, repr=False)

    def with_changes(self, headers: Mapping[str, str] | None, **changes: Any) -> Self:
        """A copy with the values that aren't None; headers are added to the existing ones."""
        changed = {name: value for name, value in changes.items() if value is not None}
        if headers is None and not changed:
            return self
        return attrs.evolve(self, headers=Secret(checked_headers(Secret(headers), self.headers)), **changed)
