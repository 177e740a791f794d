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
import re
import uuid
from typing import Any
from urllib.parse import unquote

import attrs
import msgspec
from aiohttp import web

from tfruns.models import HttpError
from tfruns.sandbox.history import History
from tfruns.sandbox.injector import NO_FAULTS, ActiveFaults, FaultInjector
from tfruns.sandbox.parameters import Parameters
from tfruns.sandbox.respond import add_wait_header, html_page, respond

_LONGEST_LINE = 2**20
_STEPS_OF_AN_ACCEPT = 3
_PATH = re.compile(r"/api/svc/v1/jobs/([^/]+)/runs")


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


@attrs.define
class Access:
    """The key, and the jobs that it has no access to."""

    api_key: str
    forbidden: frozenset[str] = frozenset()
    """Jobs that the key's owner has no access to."""


class Server:
    """Serves a history on one address, from the event loop that started it."""

    def __init__(
        self,
        history: History,
        access: Access,
        injector: FaultInjector,
        requests: collections.deque[SeenRequest],
    ) -> None:
        self._history = history
        self._access = access
        self._injector = injector
        self._requests = requests
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen. Returns the port (the one chosen, if it was 0)."""
        # When a client closes its connection, its response is cancelled: a stalled one, or a slow one.
        server = web.Server(self._handle, access_log=None, handler_cancellation=True, max_line_size=_LONGEST_LINE)
        # At the end, wait only for responses that clients are reading.
        runner = self._runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        chosen: int = runner.addresses[0][1]
        return chosen

    async def aclose(self) -> None:
        """Stop listening, and close every connection."""
        if self._runner is None:
            return
        # asyncio accepts a connection, makes its transport in a task, and calls the protocol after that: if the server
        # is closed in between, nothing closes the connection.
        for _ in range(_STEPS_OF_AN_ACCEPT):
            await asyncio.sleep(0)
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        url, effects = request.rel_url, NO_FAULTS
        path = _PATH.fullmatch(url.raw_path)
        if path is None:
            response = _http_error(404, "NOT_FOUND", f"Cannot {request.method} {url.raw_path}")
        elif request.method != "GET":
            response = _http_error(405, "METHOD_NOT_ALLOWED", f"{request.method} is not allowed here, only GET is")
            response.headers["Allow"] = "GET"
        else:
            job_id = unquote(path[1])
            effects = self._injector.next(job_id)
            if effects.delay:
                await asyncio.sleep(effects.delay)
            response = _refuse(effects) or await self._respond(request, job_id, effects)
        response.headers["x-request-id"] = str(uuid.uuid4())
        self._requests.append(SeenRequest(request.method, url.raw_path, url.raw_query_string, response.status))
        return await respond(request, response, effects)

    async def _respond(self, request: web.BaseRequest, job_id: str, effects: ActiveFaults) -> web.Response:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or key.strip() != self._access.api_key:
            refusal = _http_error(401, "UNAUTHORIZED", "The bearer token is missing or wrong")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal

        parameters = Parameters(request.query)
        selection = parameters.selection()
        offset, limit = parameters.page()
        if parameters.problems:
            message = "; ".join(f"{problem['parameter']} {problem['message']}" for problem in parameters.problems)
            return _http_error(422, "UNPROCESSABLE_ENTITY", message, parameters.problems)

        if job_id in self._access.forbidden:
            return _http_error(403, "FORBIDDEN", f"You have no access to the workspace of the job {job_id!r}")
        if job_id not in self._history.job_ids:
            return _http_error(404, "NOT_FOUND", f"There is no job with the id {job_id!r}")
        limit = limit if effects.limit is None else min(limit, effects.limit)
        while self._history.step(job_id, selection, offset + limit):  # noqa: ASYNC110  # there is nothing to wait for
            await asyncio.sleep(0)  # other requests get their turn
        total, runs = self._history.page(job_id, selection, offset, limit)
        total = max(0, total + effects.total)
        pagination = msgspec.json.encode({"total": total, "offset": offset, "limit": limit})
        body = b'{"data":[' + b",".join(runs) + b'],"pagination":' + pagination + b"}"
        return web.Response(body=body, content_type="application/json", charset="utf-8")


def _refuse(effects: ActiveFaults) -> web.Response | None:
    fault = effects.refusal
    if fault is None:
        return None
    status = fault.status or 200
    response = html_page(status) if fault.html else _http_error(status, "SANDBOX_FAULT", "A fault on purpose")
    if fault.wait is not None:
        add_wait_header(response, fault.wait, effects.wait_as)
    return response


def _http_error(status: int, code: str, message: str, details: list[dict[str, Any]] | None = None) -> web.Response:
    body = msgspec.json.encode(HttpError(status, message, code, details).to_dict())
    return web.Response(status=status, body=body, content_type="application/json", charset="utf-8")
