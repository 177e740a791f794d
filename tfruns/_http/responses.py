"""What a response means, or what went wrong if there is none: pure functions that make errors for people to read.

The server's text enters here: every part of it that an error or a log record shows goes through `Redactor.clean` first,
once, and is safe after that.
"""

import json
import os
import re
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime

import aiohttp
import attrs
from aiohttp.http_exceptions import ContentLengthError, PayloadEncodingError
from multidict import CIMultiDict

from tfruns._decode.body import decode_http_error
from tfruns._http.secret import Redactor, chain
from tfruns._text import shortened
from tfruns.errors import APIConnectionError, APIStatusError, APITimeoutError, status_error_class

REFUSED = frozenset({429, 503})  # statuses with which a server refuses a request because of its load
NO_PAGE = frozenset({*range(201, 300), 302, 303, 307})
"""Statuses with which a proxy sends something in place of a page for a moment, such as its login page."""
_LONGEST_WAIT = 60.0
"""Seconds: if a server requests a longer wait, a retry comes after these; it may have recovered, or be wrong."""
_LONGEST_ERROR = 10_000  # bytes of a body in which an `HttpError` is looked for where a page was expected
_LOGIN = re.compile(r"proxy-authorization|BasicAuth\(|://[^/\s@]+@", re.IGNORECASE)
"""What shows the login of a proxy in an error of aiohttp."""
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")


@attrs.define(eq=False)
class Response:
    status: int
    # The next fields may repeat the key, and tracebacks show variables.
    reason: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)

    def as_error(self) -> "Response":
        """The response with the status that its body says, where a proxy has sent an `HttpError` with 200."""
        if self.status == 200 and len(self.body) <= _LONGEST_ERROR and b'"statusCode"' in self.body:
            with suppress(ValueError, RecursionError):
                match json.loads(self.body):
                    case {"statusCode": int(status)} if 400 <= status <= 599:
                        return attrs.evolve(self, status=status, reason="")
        return self

    @property
    def is_transient(self) -> bool:
        """Whether the body can't be a page, by its ends: it is a proxy's own page, or was cut off."""
        text = self.body.strip(b" \t\r\n\xef\xbb\xbf")
        return not (text.startswith(b"{") and text.endswith(b"}"))


def status_error(response: Response, redactor: Redactor, *, base_url: str, key_origin: str) -> APIStatusError:
    clean = redactor.clean
    return status_error_class(response.status)(
        body=decode_http_error(response.body, status_code=response.status, hide=clean),
        reason=clean(response.reason),
        headers=CIMultiDict((clean(name), clean(value)) for name, value in response.headers.items()),
        hint=_hint(response, base_url, key_origin, clean(response.headers.get("location", ""))),
    )


def _hint(response: Response, base_url: str, key_origin: str, location: str) -> str:
    """What may be wrong on the client's side, which the server's text doesn't say."""
    if 300 <= response.status <= 399:
        where = f" to {shortened(location)}" if location else ""
        return f"the server redirects{where}, and keys aren't sent on: is {base_url} the right host?"
    hints = {
        401: f"the key from {key_origin} was refused: is it correct, not expired, and issued by {base_url}?",
        403: f"may the owner of the key from {key_origin} see this job?",
        404: f"is the job's id right, and {base_url} its control plane?",
        407: "a proxy on the way to it wants a login",
    }
    return hints.get(response.status, "")


def timeout_error(error: Exception, base_url: str, timeout: float, left: float) -> APITimeoutError:
    why = "what is left of the retry policy's deadline" if left < timeout else "the timeout"
    failure = APITimeoutError(f"no complete response from {base_url} within {min(timeout, left):.3g} s, {why}")
    failure.__cause__ = error
    return failure


def connection_error(
    error: Exception, redactor: Redactor, base_url: str, *, handled: BaseException | None, is_known: bool = True
) -> APIConnectionError:
    """The error for what aiohttp, a connector or the system raised before the response was complete.

    That becomes the cause, unless its text isn't safe: it may repeat what the server sent, or hold a proxy's login. The
    error that the caller handled when the request began isn't about it. If the server `is_known` to have responded, a
    certificate may be wrong for a moment.
    """
    failure = APIConnectionError(f"no complete response from {base_url}: {redactor.clean(_reason(error))}")
    failure.is_transient = is_known or not isinstance(error, aiohttp.ClientConnectorCertificateError)
    shown = [text for one in chain(error, but=handled) for text in (str(one), repr(one))]
    if shown == [*map(redactor.clean, shown)] and not any(map(_LOGIN.search, shown)):
        failure.__cause__ = error
    return failure


def is_unreachable(error: Exception) -> bool:
    """Whether the host couldn't even be reached: its name is unknown, it or a proxy refuses the connection, or TLS."""
    return isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError))


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ServerDisconnectedError():  # its text is a dump of the half-read head
            return "the connection was closed"
        case aiohttp.ClientPayloadError(__cause__=ContentLengthError()):
            return "the response was cut off"
        case aiohttp.ClientPayloadError(__cause__=PayloadEncodingError(message=what)):
            return f"the response was cut off or garbled: {what.rstrip('.')}"
        case aiohttp.ClientConnectorCertificateError(certificate_error=problem):
            why = getattr(problem, "verify_message", "") or str(problem)
            return f"its certificate isn't trusted: {why} ({_private_ca()})"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS failed: {error.strerror or error.os_error} (does it speak plain http?)"
        case aiohttp.ClientProxyConnectionError():
            return f"could not connect to the proxy {error.host}:{error.port}: {_system_reason(error)}"
        case aiohttp.ClientConnectorError():
            return f"could not connect: {_system_reason(error)}"
        case aiohttp.ClientHttpProxyError():
            proxy = error.request_info.real_url.with_user(None)
            return f"the proxy {proxy} refused to connect to it: {error.status} {error.message}"
        case aiohttp.ClientResponseError():
            return f"the response isn't valid HTTP: {error.message}"
    return str(error) or type(error).__name__


def _private_ca() -> str:
    """What to do about a certificate that isn't trusted."""
    path = os.environ.get("SSL_CERT_FILE")
    if not path:
        return "the file of a private CA can be named by SSL_CERT_FILE"
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # SSLError is one
        return f"SSL_CERT_FILE names {path}, from which no certificates can be read: {error.strerror or error}"
    return f"SSL_CERT_FILE names {path}, and its CA isn't in there"


def _system_reason(error: aiohttp.ClientConnectorError) -> str:
    """The system's message, since asyncio's repeats the address. (getaddrinfo has its own, negative numbers.)"""
    number = error.os_error.errno or 0
    if os.name == "posix" and number > 0:  # Windows has no texts for its own numbers here
        return os.strerror(number)
    return error.strerror or str(error.os_error)


# --- what a response requests ---


def server_wait(error: object) -> float:
    """Seconds to wait before the next attempt that the server requests, a minute at most; 0 if it requests none."""
    return min(requested_wait(error), _LONGEST_WAIT)


def requested_wait(error: object) -> float:
    """Seconds that the server asks to wait, however many."""
    if not isinstance(error, APIStatusError):
        return 0.0
    headers = error.headers
    now = _timestamp(headers.get("date", "")) or time.time()  # the server's clock: ours may be wrong
    if (milliseconds := _decimal(headers, "retry-after-ms")) is not None:
        return milliseconds / 1000
    if (seconds := _decimal(headers, "retry-after")) is not None:
        return seconds
    if (date := _timestamp(headers.get("retry-after", ""))) is not None:
        return max(0.0, date - now)
    reset = _decimal(headers, "x-ratelimit-reset")
    if reset is None or error.status_code not in REFUSED:
        return 0.0
    # Servers send either the seconds left or the time of the reset; no limit is reset in thirty years.
    return reset if reset < 1e9 else max(0.0, (reset / 1000 if reset > 1e11 else reset) - now)


def _decimal(headers: Mapping[str, str], name: str) -> float | None:
    value = headers.get(name, "").strip()
    return float(value) if _DECIMAL.fullmatch(value) else None


def _timestamp(http_date: str) -> float | None:
    with suppress(ValueError, OverflowError):
        date = parsedate_to_datetime(http_date)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return None
