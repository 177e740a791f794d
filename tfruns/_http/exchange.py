"""One request and its response over aiohttp: the only function that sends and receives."""

from collections.abc import Mapping

import aiohttp
from yarl import URL

from tfruns._http.responses import Response
from tfruns._http.secret import Secret
from tfruns.errors import ResponseTooLargeError

_READ_BUFFER = 2**20
"""How many bytes a connection holds before reading pauses: a page of 1,000 runs, to decompress it in few steps."""

CONNECT_TIMEOUT = 10.0
"""Seconds to connect, at most."""

# Only for connecting: a host that can't be reached is noticed sooner. The timeout of the caller covers all the rest.
_TIMEOUT = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT)


async def exchange(
    http: aiohttp.ClientSession, url: URL, headers: Mapping[str, str], key: Secret, *, max_bytes: int
) -> Response:
    """Send the request, and read the whole response, whatever its status is.

    Raises:
        ResponseTooLargeError: the body is longer than `max_bytes`.
        aiohttp.ClientError, OSError, and others: what aiohttp raises, unchanged.
    """
    sending = http.get(
        url,
        headers={**headers, "Authorization": key.bearer()},
        timeout=_TIMEOUT,
        allow_redirects=False,  # the key is for this host alone
        raise_for_status=False,
        read_bufsize=_READ_BUFFER,
    )
    async with sending as response:
        blocks, size = [], 0
        while block := await response.content.readany():
            blocks.append(block)
            size += len(block)
            if size > max_bytes:
                break
        else:
            # A trace config or a middleware of the caller's may have read the body: then aiohttp keeps it.
            blocks = blocks or [await response.read()]
            size = size or len(blocks[0])
        if size > max_bytes:
            raise ResponseTooLargeError(f"the response is longer than {max_bytes:,} bytes: use a smaller page size")
        return Response(response.status, response.reason or "", response.headers, b"".join(blocks))
