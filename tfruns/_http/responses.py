"""What went wrong with a request, as the error to raise: in words for people, and without the key."""

import os

import aiohttp
import attrs
from aiohttp.http_exceptions import ContentLengthError, TransferEncodingError
from multidict import CIMultiDict

from tfruns._decode.failure import decode_http_error
from tfruns._http.credentials import KeySource
from tfruns.errors import APIStatusError, shortened, status_error_class
from tfruns.query import PageRequest


@attrs.frozen
class Response:
    """A whole answer."""

    status: int
    # What follows may repeat the key, and stands in variables that tracebacks may show.
    reason: str = attrs.field(repr=False)
    headers: CIMultiDict[str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


def status_error(request: PageRequest, response: Response, base_url: str, key: KeySource) -> APIStatusError:
    """The error of the answer's status."""
    return status_error_class(response.status)(
        body=decode_http_error(response.body, status_code=response.status, hide=key.hide),
        reason=key.hide(response.reason),
        headers=CIMultiDict((name, key.hide(value)) for name, value in response.headers.items()),
        job_id=request.job_id,
        offset=request.offset,
        hint=_hint(response, base_url, key),
    )


def _hint(response: Response, base_url: str, key: KeySource) -> str:
    """What may be wrong on this side, where the server's words don't tell."""
    match response.status:
        case 401:
            return f"the key from {key.origin} was refused: is it right, in date, and of {base_url}?"
        case 403:
            return f"may the owner of the key from {key.origin} see this job?"
        case 404:
            return f"is the job's id right, and {base_url} its control plane?"
        case status if 300 <= status <= 399:
            to = key.hide(response.headers.get("location", ""))
            where = f" to {shortened(to)}" if to else ""
            return f"the server redirects{where}, and keys aren't sent on: is {base_url} the right host?"
    return ""


def why(error: Exception) -> str:
    """Why no whole answer came. (It may hold the key.)"""
    if isinstance(error, aiohttp.ServerDisconnectedError):  # its text is a dump of the half-read head
        return "the connection was closed"
    if isinstance(error, aiohttp.ClientPayloadError):
        if isinstance(error.__cause__, ContentLengthError):
            return "the answer was cut off"
        if isinstance(error.__cause__, TransferEncodingError):
            return "the answer was cut off or garbled"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        return f"its certificate isn't trusted: {why} (the file of a private CA can be named by SSL_CERT_FILE)"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"TLS failed: {error.strerror or error.os_error} (does it speak plain http?)"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return f"could not connect: {_reason(error)}"
    return str(error) or type(error).__name__


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """In the words of the system: asyncio's repeat the address. (Numbers of getaddrinfo are others, and negative.)"""
    number = error.os_error.errno
    return os.strerror(number) if number is not None and number > 0 else error.strerror or str(error.os_error)
