"""One page request in, the bytes of its answer out: connection, key, timeout, retries and errors."""

import asyncio
import logging
import time

import aiohttp
import tenacity
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tfruns.errors import APIConnectionError, APIError, APITimeoutError, ClientClosedError, status_error_class
from tfruns.query import PageRequest
from tfruns.retry import RetryPolicy
from tfruns.settings import KeySource
from tfruns.structure import decode_http_error

_Answer = tuple[int, str, CIMultiDictProxy[str], bytes]

logger = logging.getLogger("tfruns")


class Session:
    """Sends page requests, at most `max_concurrency` at a time, from any number of tasks of one event loop."""

    def __init__(
        self,
        *,
        base_url: str,
        key: KeySource,
        timeout: float,
        retry: RetryPolicy,
        max_concurrency: int,
        headers: dict[str, str],
        http: aiohttp.ClientSession | None,
    ) -> None:
        self.base_url = base_url
        self._key = key
        self._timeout = timeout
        self._retry = retry
        self.max_concurrency = max_concurrency
        self._slots = asyncio.Semaphore(max_concurrency)
        self._headers = headers
        self._http = http
        self._owns_http = http is None
        self.closed = False

    def check_open(self) -> None:
        """Raise ClientClosedError if the session was closed, by us or by its owner."""
        if self.closed:
            raise ClientClosedError
        if self._http is not None and self._http.closed:
            raise ClientClosedError("the aiohttp session that the client was given is closed")

    async def fetch(self, request: PageRequest) -> bytes:
        """The body of the 200 that answers the request.

        Raises:
            APIConnectionError, APITimeoutError: no whole answer came, the last retry included.
            APIStatusError: an answer with another status; its subclass says which.
            ClientClosedError: the session was closed.
        """
        retrying = self._retry.retrying(lambda state: _log_retry(request, state))
        give_up_at = time.monotonic() + self._retry.deadline
        try:
            return await retrying(self._attempt, request, give_up_at)
        except APIError as error:
            error.attempts = retrying.statistics["attempt_number"]
            raise

    async def _attempt(self, request: PageRequest, give_up_at: float) -> bytes:
        async with self._slots:
            key = await self._key.current()
            status, reason, headers, body = await self._send(request, key, give_up_at)
            if status == 401 and self._key.can_renew:
                key = await self._key.renew(key)
                status, reason, headers, body = await self._send(request, key, give_up_at)
        if status == 200:
            return body
        raise status_error_class(status)(
            body=decode_http_error(body.replace(key.encode(), b"[API key]"), status_code=status),
            reason=reason,
            headers=CIMultiDict((name, value.replace(key, "[API key]")) for name, value in headers.items()),
            job_id=request.job_id,
            offset=request.offset,
        )

    async def _send(self, request: PageRequest, key: str, give_up_at: float) -> _Answer:
        http = self._open_http()
        seconds = max(0.001, min(self._timeout, give_up_at - time.monotonic()))
        try:
            async with http.get(
                URL(self.base_url + request.target(), encoded=True),
                headers={**self._headers, "Authorization": f"Bearer {key}"},
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,  # the key is for this host alone
                raise_for_status=False,
            ) as response:
                return response.status, response.reason or "", response.headers, await response.read()
        except TimeoutError as error:
            text = f"no whole answer from {self.base_url} within {seconds:.3g} s"
            raise APITimeoutError(text, job_id=request.job_id, offset=request.offset) from error
        except Exception as error:
            if self.closed:  # under a request, that shows in many ways
                raise ClientClosedError from error
            if not isinstance(error, (aiohttp.ClientError, OSError)):
                raise
            text = f"no whole answer from {self.base_url}: {_why(error)}"
            raise APIConnectionError(text, job_id=request.job_id, offset=request.offset) from error

    def _open_http(self) -> aiohttp.ClientSession:
        self.check_open()
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.max_concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._http

    async def aclose(self) -> None:
        """Make no more requests, and close the connections unless they are the caller's."""
        self.closed = True
        if self._http is not None and self._owns_http:
            await self._http.close()


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerDisconnectedError):  # its text is a dump of the half-read head
        return "the connection was closed"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return f"could not connect: {error.strerror or error.os_error}"
    return str(error) or type(error).__name__


def _log_retry(request: PageRequest, state: tenacity.RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    logger.warning(
        "%s; attempt %d failed, the next is in %.2f s",
        error,
        state.attempt_number,
        state.upcoming_sleep,
        extra={
            "job_id": request.job_id,
            "offset": request.offset,
            "attempt": state.attempt_number,
            "wait": state.upcoming_sleep,
            "request_id": getattr(error, "request_id", None),
        },
    )
