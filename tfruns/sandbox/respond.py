"""Responses that are broken on purpose, as aiohttp would never send them."""

import asyncio
import math
import socket
import struct
from email.utils import formatdate

from aiohttp import web

from tfruns.sandbox.faults import WaitAs
from tfruns.sandbox.injector import ActiveFaults

_PAGE = b"""<!DOCTYPE html>
<html><head><title>%(reason)s</title></head>
<body><center><h1>%(status)d %(reason)s</h1></center><hr><center>nginx</center></body></html>
"""


def html_page(status: int) -> web.Response:
    """A page as a proxy sends it in place of a response."""
    reason = web.Response(status=status).reason
    page = _PAGE % {b"status": status, b"reason": reason.encode()}
    return web.Response(status=status, body=page, content_type="text/html", charset="utf-8")


def add_wait_header(response: web.Response, seconds: float, wait_as: WaitAs) -> None:
    """Add the header that says how long the client should wait."""
    if wait_as == "seconds":
        response.headers["Retry-After"] = str(math.ceil(seconds))
    else:
        response.headers["retry-after-ms"] = str(math.ceil(seconds * 1000))


async def respond(request: web.BaseRequest, response: web.Response, effects: ActiveFaults) -> web.Response:
    """Send the response with these effects. aiohttp doesn't complain if it finds the connection closed after that.

    A stalled response waits until the client closes the connection, which cancels it.
    """
    transport = request.transport
    if transport is None or effects.breaks is None:
        return response
    if effects.breaks == "reset":
        # With SO_LINGER at 0 seconds, the connection is closed by a reset.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        return response
    body = response.body
    assert isinstance(body, bytes)  # noqa: S101  # for the type checker: no response here is anything else
    transport.write(_head(response, len(body)) + body[: len(body) // 2])
    if effects.breaks == "stall":
        await asyncio.Event().wait()
    transport.close()
    return response


def _head(response: web.Response, length: int) -> bytes:
    headers = {**response.headers, "Content-Length": str(length), "Date": formatdate(usegmt=True)}
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()
