"""What a response means, or what went wrong if there is none: pure functions that make errors for people to read.

The server's text enters here: every part of it that an error or a log record shows goes through `Redactor.clean` first,
once, and is safe after that.
"""

import os

import aiohttp
import attrs
from aiohttp.http_exceptions import ContentLengthError, TransferEncodingError
from multidict import CIMultiDict

from tfruns._decode.failure import decode_http_error
from tfruns._decode.fast import decode_page
from tfruns._decode.lenient import decode_leniently
from tfruns._http.secret import Redactor
from tfruns._http.tracebacks import ErrorContext, chain
from tfruns._text import shortened
from tfruns.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    DecodeError,
    status_error_class,
)
from tfruns.models import RunPage
from tfruns.query import PageRequest


@attrs.frozen
class Response:
    """A complete response."""

    status: int
    # The next fields may repeat the key, and tracebacks show variables.
    reason: str = attrs.field(repr=False)
    headers: CIMultiDict[str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


def read_page(request: PageRequest, response: Response, redactor: Redactor, *, keep_bad: bool = False) -> RunPage:
    """The page of runs in a response with the status 200.

    Raises:
        DecodeError: the body isn't what the contract says.
    """
    with ErrorContext(request):
        decode = decode_leniently if keep_bad else decode_page
        try:
            return decode(response.body, job_id=request.job_id, offset=request.offset, hide=redactor.clean)
        except DecodeError as error:
            error.__cause__ = error.__context__ = None  # the errors of a parser hold the whole text
            raise


def status_error(response: Response, redactor: Redactor, *, base_url: str, key_origin: str) -> APIStatusError:
    """The error for a response with another status than 200."""
    clean = redactor.clean
    return status_error_class(response.status)(
        body=decode_http_error(response.body, status_code=response.status, hide=clean),
        reason=clean(response.reason),
        headers=CIMultiDict((clean(name), clean(value)) for name, value in response.headers.items()),
        hint=_hint(response, base_url, key_origin, clean(response.headers.get("location", ""))),
    )


def _hint(response: Response, base_url: str, key_origin: str, location: str) -> str:
    """What may be wrong on the client's side, which the server's text doesn't say."""
    match response.status:
        case 401:
            return f"the key from {key_origin} was refused: is it correct, not expired, and issued by {base_url}?"
        case 403:
            return f"may the owner of the key from {key_origin} see this job?"
        case 404:
            return f"is the job's id right, and {base_url} its control plane?"
        case status if 300 <= status <= 399:
            where = f" to {shortened(location)}" if location else ""
            return f"the server redirects{where}, and keys aren't sent on: is {base_url} the right host?"
    return ""


def timeout_error(base_url: str, seconds: float, *, is_deadline: bool) -> APITimeoutError:
    """The error for a response that wasn't complete in time."""
    limit = "what is left of the retry policy's deadline" if is_deadline else "the timeout"
    return APITimeoutError(f"no complete response from {base_url} within {seconds:.3g} s, {limit}")


def connection_error(
    error: Exception, redactor: Redactor, base_url: str, *, handled: BaseException | None
) -> APIConnectionError:
    """The error for an exception that aiohttp or the system raised before the response was complete.

    Args:
        error: what was raised. It becomes the cause, unless its text isn't safe: it may repeat what the server sent.
        redactor: makes its text safe.
        base_url: for the message.
        handled: the error that the caller was handling when the request began; it isn't about the request.
    """
    text = redactor.clean(_reason(error))
    if redactor.holds_part(text):  # aiohttp shortens what it quotes from the response, and so may cut the key
        text = f"{type(error).__name__}, for what the server sent beside a part of the API key"
    failure = APIConnectionError(f"no complete response from {base_url}: {text}")
    shown = [text for one in chain(error, but=handled) for text in (str(one), repr(one))]
    if shown == [*map(redactor.clean, shown)] and not any(map(redactor.holds_part, shown)):
        failure.__cause__ = error
    return failure


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerDisconnectedError):  # its text is a dump of the half-read head
        return "the connection was closed"
    if isinstance(error, aiohttp.ClientPayloadError):
        if isinstance(error.__cause__, ContentLengthError):
            return "the response was cut off"
        if isinstance(error.__cause__, TransferEncodingError):
            return "the response was cut off or garbled"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        return f"its certificate isn't trusted: {why} (the file of a private CA can be named by SSL_CERT_FILE)"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"TLS failed: {error.strerror or error.os_error} (does it speak plain http?)"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return f"could not connect: {_system_reason(error)}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the response isn't valid HTTP: {error.message}"
    return str(error) or type(error).__name__


def _system_reason(error: aiohttp.ClientConnectorError) -> str:
    """The system's message, since asyncio's repeats the address. (getaddrinfo has its own, negative numbers.)"""
    number = error.os_error.errno
    return os.strerror(number) if number is not None and number > 0 else error.strerror or str(error.os_error)
