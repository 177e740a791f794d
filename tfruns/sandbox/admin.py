"""The admin address of a sandbox: what its methods do, as plain JSON over HTTP, for tests in other languages.

It is an address of its own, so that the served one stays what the contract says. It takes no key, so it listens on
127.0.0.1 alone, whatever the sandbox's own host is; and it refuses (403) what has the header `Origin` or another `Host`
than loopback: web pages are not to reach it through somebody's browser.

| request | body | response |
|---|---|---|
| `POST /jobs/{job}/runs` | fields of the run, by the contract's names | 201, the new run |
| `PATCH /jobs/{job}/runs/{run}` | the fields to change | 200, the run |
| `POST /jobs/{job}/runs/{run}/finish` | `{"status": "FAILED"}`, and more fields if you like | 200, the run |
| `DELETE /jobs/{job}/runs/{run}` | | 204 |
| `GET /clock` | | 200, `{"now": ms, "rate": 0}` |
| `PATCH /clock` | `{"advance": seconds}`, `{"rate": 60}`, or both | 200, the same |
| `GET /faults` | | 200, how many there are: `{"count": 0}` |
| `PUT /faults` | a list of faults as text (see `Fault`), in place of those there are | 200, the same |
| `POST /key` | | 200, `{"apiKey": "..."}`: a new key, in place of the last |

A body may be left out where it would be empty. What can't be done is refused with the contract's `HttpError`: 404 for a
job or a run that isn't there, 422 for anything else that is wrong.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from tfruns.models import JobRunStatus
from tfruns.sandbox.faults import Fault, checked_faults
from tfruns.sandbox.history import History
from tfruns.sandbox.server import clean_up, http_error
from tfruns.sandbox.wire import to_fields

LOOPBACK = "127.0.0.1"


class Admin:
    """Serves the admin address of a sandbox."""

    def __init__(self, history: History, faults: list[Fault], new_key: Callable[[], str]) -> None:
        self._history = history
        self._faults = faults
        self._new_key = new_key
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and say on which port (the one chosen, if it was 0).

        Raises:
            OSError: the address can't be listened on.
        """
        app = web.Application(middlewares=[_refusals])
        app.add_routes(
            [
                web.post("/jobs/{job}/runs", self._create),
                web.patch("/jobs/{job}/runs/{run}", self._update),
                web.post("/jobs/{job}/runs/{run}/finish", self._finish),
                web.delete("/jobs/{job}/runs/{run}", self._delete),
                web.get("/clock", self._clock),
                web.patch("/clock", self._clock),
                web.get("/faults", self._ask_faults),
                web.put("/faults", self._ask_faults),
                web.post("/key", self._renew_key),
            ]
        )
        runner = self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        chosen: int = runner.addresses[0][1]
        return chosen

    async def aclose(self) -> None:
        """Stop listening, and close every connection."""
        if self._runner is not None:
            await clean_up(self._runner)

    async def _create(self, request: web.Request) -> web.Response:
        run = self._history.create(request.match_info["job"], to_fields(await _object(request)))
        return _json(run.to_dict(), 201)

    async def _update(self, request: web.Request) -> web.Response:
        job_id, run_id = request.match_info["job"], request.match_info["run"]
        return _json(self._history.update(job_id, run_id, to_fields(await _object(request))).to_dict())

    async def _finish(self, request: web.Request) -> web.Response:
        job_id, run_id = request.match_info["job"], request.match_info["run"]
        fields = to_fields(await _object(request))
        status = fields.pop("status", JobRunStatus.FINISHED)
        return _json(self._history.finish(job_id, run_id, status, fields).to_dict())

    async def _delete(self, request: web.Request) -> web.Response:
        self._history.delete(request.match_info["job"], request.match_info["run"])
        return web.Response(status=204)

    async def _clock(self, request: web.Request) -> web.Response:
        changes = await _object(request)
        if unknown := changes.keys() - {"advance", "rate"}:
            raise ValueError(f"a clock takes advance and rate, got {', '.join(sorted(unknown))}")
        clock = self._history.clock
        if "rate" in changes:
            clock.rate = changes["rate"]
        clock.advance(changes.get("advance", 0))
        return _json({"now": clock.now, "rate": clock.rate})

    async def _ask_faults(self, request: web.Request) -> web.Response:
        if request.method == "PUT":
            self._faults[:] = checked_faults(await _body(request))
        return _json({"count": len(self._faults)})

    async def _renew_key(self, _: web.Request) -> web.Response:
        return _json({"apiKey": self._new_key()})


@web.middleware
async def _refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if "Origin" in request.headers or request.url.host not in (LOOPBACK, "localhost"):
        return http_error(403, "FORBIDDEN", "web pages have no access to the admin address")
    try:
        return await handler(request)
    except web.HTTPException as error:
        return http_error(error.status, error.reason.upper().replace(" ", "_"), error.text or error.reason)
    except KeyError as error:
        return http_error(404, "NOT_FOUND", str(error.args[0]))
    except (TypeError, ValueError) as error:
        return http_error(422, "UNPROCESSABLE_ENTITY", str(error))


async def _body(request: web.Request) -> Any:
    text = await request.read()
    if not text:
        return {}
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("the body is nested too deep") from None


async def _object(request: web.Request) -> dict[str, Any]:
    body = await _body(request)
    if not isinstance(body, dict):
        raise ValueError(f"the body must be a JSON object, got {body!r}")
    return body


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json", charset="utf-8"
    )
