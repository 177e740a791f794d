"""The endpoint over HTTP. Where the contract leaves something open, this module decides it:

- Checks come in this order: path (404), method (405), faults, key (401), parameters (422), job forbidden (403), job
  unknown (404). A forbidden job gets a 403 even if it doesn't exist.
- An unknown parameter is ignored. A parameter with a single value that is given twice is refused (422). `nullable` is
  taken to mean that a parameter may be left out; there is no way to write null.
- The empty string is a search prefix (of everything) and a slug (of no run); elsewhere it is refused (422).
- A whole number is digits, perhaps after a minus sign: `1.0`, `1e2` and `+1` are not. A version number is any number in
  JSON's form, and is compared as a number: `3`, `3.0` and `3e0` are the same version.
- The prefix is compared unchanged, code point by code point: case counts, nothing is normalised, `%` and `_` are
  ordinary characters. `triggeredBy` is compared with the run's field of that name.
- Without `order`, descending; without `sortBy`, by creation. `startTime` is the time of creation, the only one a run
  has. Text, status included, is sorted by code point. Null comes last in either direction. Runs with equal keys are
  sorted newest first, and then by id, ascending.
- `offset` may be beyond the end: then the page is empty. `pagination` repeats the offset and the limit that were used.
- The job id is one path segment, percent-decoded after the path is split.
- HEAD and OPTIONS are refused (405), because the contract has only GET.
- What isn't HTTP, including a request line above 1 MiB, gets aiohttp's own 400, and isn't recorded.
"""

import asyncio
import collections
import math
import os
import re
import socket
import struct
import uuid
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

import attrs
import msgspec
from aiohttp import web
from multidict import MultiMapping

from tfruns.models import HttpError, JobRunsSortBy, JobRunStatus, SortDirection, wire_name
from tfruns.sandbox.faults import Fault, FaultInjector, TooManyRequests
from tfruns.sandbox.jobs import Job, Selection, as_number

_LONGEST_LINE = 2**20
_STEPS_OF_AN_ACCEPT = 3
_PATH = re.compile(r"/api/svc/v1/jobs/([^/]+)/runs")
_HTML = b"""<!DOCTYPE html>
<html><head><title>%(reason)s</title></head>
<body><center><h1>%(status)d %(reason)s</h1></center><hr><center>nginx</center></body></html>
"""


@attrs.frozen
class SeenRequest:
    """A request that a sandbox has responded to.

    Example:
        >>> count = await client.count_runs("my-job-id", status="FAILED")
        >>> request = sandbox.requests[-1]
        >>> print(request.method, request.path, request.query, request.status)
        GET /api/svc/v1/jobs/my-job-id/runs limit=1&offset=0&status=FAILED 200
    """

    method: str
    """HTTP method."""
    path: str
    """Path as it was sent, percent-encoding included."""
    query: str
    """Query string as it was sent, without the question mark."""
    status: int
    """HTTP status of the response."""


@attrs.define(eq=False)
class Server:
    """Serves jobs on one address, from the event loop that started it."""

    _jobs: Mapping[str, Job]
    _faults: FaultInjector
    _accepts_key: Callable[[str], bool]
    _forbidden: frozenset[str]
    _requests: collections.deque[SeenRequest]
    _runner: web.ServerRunner = attrs.field(init=False)

    async def start(self, host: str, port: int) -> str:
        # When a client closes its connection, its response is cancelled: a stalled one, or a slow one.
        server = web.Server(self._handle, access_log=None, handler_cancellation=True, max_line_size=_LONGEST_LINE)
        # At the end, wait only for responses that clients are reading.
        self._runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            number = error.errno or 0
            why = os.strerror(number) if number > 0 else error.strerror or error  # below 0: a name that isn't found
            raise OSError(number, f"can't listen on {host} port {port}: {why}") from None
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{self._runner.addresses[0][1]}"

    async def aclose(self) -> None:
        # asyncio accepts a connection, makes its transport in a task, and calls the protocol after that: if the server
        # is closed in between, nothing closes the connection.
        for _ in range(_STEPS_OF_AN_ACCEPT):
            await asyncio.sleep(0)
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        url, faults = request.rel_url, list[Fault]()
        path = _PATH.fullmatch(url.raw_path)
        if path is None:
            response = _http_error(404, "NOT_FOUND", f"Cannot {request.method} {url.raw_path}")
        elif request.method != "GET":
            response = _http_error(405, "METHOD_NOT_ALLOWED", f"{request.method} is not allowed here, only GET is")
            response.headers["Allow"] = "GET"
        else:
            job_id = unquote(path[1])
            faults = self._faults.next(job_id)
            if delay := sum(fault.latency for fault in faults):
                await asyncio.sleep(delay)
            response = _refusal(faults) or await self._page(request, job_id, faults)
        response.headers["x-request-id"] = str(uuid.uuid4())
        self._requests.append(SeenRequest(request.method, url.raw_path, url.raw_query_string, response.status))
        return await respond(request, response, faults)

    async def _page(self, request: web.BaseRequest, job_id: str, faults: list[Fault]) -> web.Response:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self._accepts_key(key.strip()):
            refusal = _http_error(401, "UNAUTHORIZED", "The bearer token is missing or wrong")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal

        values, problems = _read(request.query)
        if problems:
            message = "; ".join(f"{problem['parameter']} {problem['message']}" for problem in problems)
            return _http_error(422, "UNPROCESSABLE_ENTITY", message, problems)

        if job_id in self._forbidden:
            return _http_error(403, "FORBIDDEN", f"You have no access to the workspace of the job {job_id!r}")
        job = self._jobs.get(job_id)
        if job is None:
            return _http_error(404, "NOT_FOUND", f"There is no job with the id {job_id!r}")
        offset, limit = values.pop("offset", 0), values.pop("limit", 100)
        limit = min([limit, *(fault.limit for fault in faults if fault.limit is not None)])
        selection = Selection(**values)
        end = offset + limit
        while job.step(selection, end):  # noqa: ASYNC110  # there is nothing to wait for
            await asyncio.sleep(0)  # other requests get their turn
        total, runs = job.page(selection, offset, end)
        total = max(0, total + sum(fault.total for fault in faults))
        pagination = msgspec.json.encode({"total": total, "offset": offset, "limit": limit})
        body = b'{"data":[' + b",".join(runs) + b'],"pagination":' + pagination + b"}"
        return web.Response(body=body, content_type="application/json", charset="utf-8")


def _http_error(status: int, code: str, message: str, details: list[dict[str, Any]] | None = None) -> web.Response:
    body = msgspec.json.encode(HttpError(status, message, code, details).to_dict())
    return web.Response(status=status, body=body, content_type="application/json", charset="utf-8")


# --- query parameters ---


def _whole(least: int, most: float = math.inf) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        # 4300 digits are the most that int() reads.
        number = int(text) if re.fullmatch("-?[0-9]{1,4300}", text) else None
        return number if number is not None and least <= number <= most else None

    return read


def _member(enum: type[StrEnum]) -> tuple[Callable[[str], Any], str]:
    return {member.value: member for member in enum}.get, f"one of {', '.join(enum)}"


_PARAMETERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "search_prefix": (str, "a text"),
    "triggered_by": (str, "a text"),
    "status": _member(JobRunStatus),
    "version_numbers": (as_number, "a number"),
    "sort_by": _member(JobRunsSortBy),
    "order": _member(SortDirection),
    "offset": (_whole(0), "a whole number, 0 or more"),
    "limit": (_whole(1, 1000), "a whole number from 1 to 1000"),
}
"""How the value of each parameter is read from its text (None if it isn't one), and what it may be."""
_LISTS = ("triggered_by", "status", "version_numbers")


def _read(query: MultiMapping[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The values of the parameters that are given, and what is wrong with them."""
    values: dict[str, Any] = {}
    problems: list[dict[str, Any]] = []
    for field, (read, allowed) in _PARAMETERS.items():
        name = wire_name(field)
        texts = query.getall(name, [])
        found = [read(text) for text in texts]
        wrong = [text for text, value in zip(texts, found, strict=True) if value is None]
        if len(texts) > 1 and field not in _LISTS:
            wrong, allowed = [", ".join(texts)], "given once"
        problems += [
            {"parameter": name, "value": text, "message": f"must be {allowed}, got {text!r}"} for text in wrong
        ]
        if found:
            values[field] = tuple(found) if field in _LISTS else found[0]
    return values, problems


# --- responses that are wrong on purpose, some as aiohttp would never send them ---


def _refusal(faults: list[Fault]) -> web.Response | None:
    fault = next((fault for fault in faults if fault.status is not None or fault.html), None)
    if fault is None:
        return None
    status = fault.status or 200
    if fault.html:  # as a proxy sends it in place of a response
        page = _HTML % {b"status": status, b"reason": web.Response(status=status).reason.encode()}
        response = web.Response(status=status, body=page, content_type="text/html", charset="utf-8")
    else:
        response = _http_error(status, "SANDBOX_FAULT", "A fault on purpose")
    wait_as = fault.wait_as if isinstance(fault, TooManyRequests) else "seconds"
    if fault.wait is not None and wait_as is not None:
        name, unit = {"seconds": ("Retry-After", 1), "ms": ("retry-after-ms", 1000)}[wait_as]
        response.headers[name] = str(math.ceil(fault.wait * unit))
    return response


async def respond(request: web.BaseRequest, response: web.Response, faults: list[Fault]) -> web.StreamResponse:
    """Send the response, as far as no fault breaks the connection. aiohttp doesn't complain if it is closed after that.

    A stalled response waits until the client closes the connection, which cancels it.
    """
    transport = request.transport
    breaks = next((fault.breaks for fault in faults if fault.breaks is not None), None)
    if transport is None or breaks is None:
        return response
    if breaks == "reset":
        # With SO_LINGER at 0 seconds, the connection is closed by a reset.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        return response
    body = response.body
    assert isinstance(body, bytes)  # noqa: S101  # for the type checker: no response here is anything else
    broken = web.StreamResponse(status=response.status, headers=response.headers)
    broken.content_length = len(body)
    await broken.prepare(request)
    await broken.write(body[: len(body) // 2])
    if breaks == "stall":
        await asyncio.Event().wait()
    transport.close()
    return broken
