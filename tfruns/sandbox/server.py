"""The endpoint over HTTP. What the contract leaves open is decided here, and listed here:

- Checks come in this order: path (404), method (405), key (401), parameters (422), job (404).
- A parameter that isn't known is ignored. A single-valued one given twice is refused (422). `nullable` is taken to
  mean that it may be left out; there is no way to write null.
- The empty string is a search prefix (of everything) and a slug (of no run); elsewhere it is refused (422).
- A whole number is digits, perhaps after a minus sign: `1.0`, `1e2` and `+1` are not. A version number is any number
  JSON can write, and compared as one: `3`, `3.0` and `3e0` are the same version.
- The prefix is matched as it is, code point by code point: case counts, nothing is normalised, `%` and `_` stand for
  themselves. `triggeredBy` is matched with the run's field of that name.
- Without `order`, descending; without `sortBy`, by creation. `startTime` is the time of creation, the only one a run
  tells. Text, status included, is sorted by code point. Null comes last in either direction. Runs that tie are sorted
  newest first, and then by id, ascending.
- `offset` may lie beyond the end: the page is then empty. `pagination` repeats the offset and the limit that were used.
- The job id is one path segment, percent-decoded after the path is taken apart.
- HEAD and OPTIONS are not answered (405), as the contract has GET alone.
- What isn't HTTP, a request line above 8190 bytes included, gets aiohttp's own 400, and isn't recorded.
"""

import collections
import re
import uuid
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import unquote

import attrs
import msgspec
from aiohttp import web

from tfruns.models import HttpError, JobRunsSortBy, JobRunStatus, SortDirection
from tfruns.sandbox.store import Selection, Store, as_number

_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)
_PATH = re.compile(r"/api/svc/v1/jobs/([^/]+)/runs")


@attrs.frozen
class SeenRequest:
    """A request that a sandbox has answered."""

    method: str
    """HTTP method."""
    path: str
    """Path as it was sent, percent-encoding included."""
    query: str
    """Query string as it was sent, without the question mark."""
    status: int
    """HTTP status of the answer."""


class Server:
    """Serves a store on one address, from the event loop that started it."""

    def __init__(
        self, store: Store, api_key: str, requests: collections.deque[SeenRequest], catch_up: Callable[[], None]
    ) -> None:
        self._store = store
        self._catch_up = catch_up
        self._api_key = api_key
        self._requests = requests
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and say on which port (the one chosen, if it was 0).

        Raises:
            OSError: the address can't be listened on.
        """
        # Nothing is worth waiting for at the end but answers on their way to clients that read them.
        runner = self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        chosen: int = runner.addresses[0][1]
        return chosen

    async def aclose(self) -> None:
        """Stop listening, and close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        answer = self._answer(request)
        answer.headers["x-request-id"] = str(uuid.uuid4())
        url = request.rel_url
        self._requests.append(SeenRequest(request.method, url.raw_path, url.raw_query_string, answer.status))
        return answer

    def _answer(self, request: web.BaseRequest) -> web.Response:
        path = _PATH.fullmatch(request.rel_url.raw_path)
        if path is None:
            return _error(404, "NOT_FOUND", f"Cannot {request.method} {request.rel_url.raw_path}")
        if request.method != "GET":
            refusal = _error(405, "METHOD_NOT_ALLOWED", f"{request.method} is not allowed here, only GET is")
            refusal.headers["Allow"] = "GET"
            return refusal
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or key.strip() != self._api_key:
            refusal = _error(401, "UNAUTHORIZED", "The bearer token is missing or wrong")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal

        parameters = _Parameters(request)
        selection = parameters.selection()
        offset = parameters.one("offset", _whole(0), 0)
        limit = parameters.one("limit", _whole(1, 1000), 100)
        if parameters.problems:
            message = "; ".join(f"{problem['parameter']} {problem['message']}" for problem in parameters.problems)
            return _error(422, "UNPROCESSABLE_ENTITY", message, parameters.problems)

        job_id = unquote(path[1])
        if job_id not in self._store.job_ids:
            return _error(404, "NOT_FOUND", f"There is no job with the id {job_id!r}")
        self._catch_up()
        total, runs = self._store.page(job_id, selection, offset, limit)
        pagination = msgspec.json.encode({"total": total, "offset": offset, "limit": limit})
        body = b'{"data":[' + b",".join(runs) + b'],"pagination":' + pagination + b"}"
        return web.Response(body=body, content_type="application/json", charset="utf-8")


def _error(status: int, code: str, message: str, details: list[dict[str, Any]] | None = None) -> web.Response:
    body = msgspec.json.encode(HttpError(status, message, code, details).to_dict())
    return web.Response(status=status, body=body, content_type="application/json", charset="utf-8")


class _Parameters:
    """Reads query parameters, and notes what is wrong with them. A reader's ValueError says what is allowed."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._query = request.query
        self.problems: list[dict[str, Any]] = []

    def selection(self) -> Selection:
        return Selection(
            search_prefix=self.one("searchPrefix", str, ""),
            triggered_by=self.several("triggeredBy", str),
            status=self.several("status", _member(JobRunStatus)),
            version_numbers=self.several("versionNumbers", _number),
            sort_by=self.one("sortBy", _member(JobRunsSortBy), JobRunsSortBy.START_TIME),
            order=self.one("order", _member(SortDirection), SortDirection.DESC),
        )

    def several(self, name: str, read: Callable[[str], _T]) -> tuple[_T, ...]:
        values: list[_T] = []
        for text in self._query.getall(name, []):
            try:
                values.append(read(text))
            except ValueError as error:
                self._refuse(name, text, str(error))
        return tuple(values)

    def one(self, name: str, read: Callable[[str], _T], default: _T) -> _T:
        texts = self._query.getall(name, [])
        if len(texts) > 1:
            self._refuse(name, ", ".join(texts), "given once")
            return default
        return next(iter(self.several(name, read)), default)

    def _refuse(self, name: str, text: str, allowed: str) -> None:
        self.problems.append({"parameter": name, "value": text, "message": f"must be {allowed}, got {text!r}"})


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def read(text: str) -> int:
        allowed = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
        # 4300 digits are the most that int() reads.
        number = int(text) if re.fullmatch("-?[0-9]{1,4300}", text) else None
        if number is None or number < least or (most is not None and number > most):
            raise ValueError(allowed)
        return number

    return read


def _member(enum: type[_E]) -> Callable[[str], _E]:
    def read(text: str) -> _E:
        if text not in enum.__members__.values():
            raise ValueError("one of " + ", ".join(enum))
        return enum(text)

    return read


def _number(text: str) -> float:
    number = as_number(text)
    if number is None:
        raise ValueError("a number")
    return number
