"""How requests are sent: the client's timeout, retries and headers, or those of a single call."""

import math
from collections.abc import Mapping
from typing import Self

import attrs

from tfruns._http.credentials import checked_headers
from tfruns._http.retry import RetryPolicy
from tfruns.query import checked_int

MAX_RESPONSE_BYTES = 100 * 2**20
"""Bytes of a response's body, decompressed, at most: a hundred times what 1,000 runs take."""


def _checked_timeout(_: object, __: object, value: float) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"timeout must be a number of seconds, got {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"timeout must be a number of seconds above 0, got {value!r}")


def _checked_retry(_: object, __: object, value: RetryPolicy) -> None:
    if not isinstance(value, RetryPolicy):
        raise TypeError(f"retry must be a RetryPolicy, got {value!r}")


@attrs.frozen(kw_only=True)
class CallOptions:
    """How requests are sent.

    Raises:
        TypeError, ValueError: a value can't be used.
    """

    timeout: float = attrs.field(validator=_checked_timeout)
    """Seconds for one attempt."""
    retry: RetryPolicy = attrs.field(validator=_checked_retry)
    headers: Mapping[str, str] = attrs.field(converter=checked_headers, repr=False)
    max_response_bytes: int = MAX_RESPONSE_BYTES
    """Bytes of a response's body, decompressed, at most."""

    def but(
        self,
        *,
        timeout: float | None,
        retry: RetryPolicy | None,
        headers: Mapping[str, str] | None,
        max_response_bytes: int | None = None,
    ) -> Self:
        """The same, but for what is given; headers are added to those that are there."""
        if timeout is None and retry is None and headers is None and max_response_bytes is None:
            return self
        return attrs.evolve(
            self,
            timeout=self.timeout if timeout is None else timeout,
            retry=self.retry if retry is None else retry,
            headers=checked_headers(headers, self.headers),
            max_response_bytes=self.max_response_bytes
            if max_response_bytes is None
            else checked_int(max_response_bytes, "max_response_bytes", least=1, most=MAX_RESPONSE_BYTES),
        )
