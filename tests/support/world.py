"""A control plane in a few lines, of which a test decides everything: which job responds, when, and with what.

Its time stands still but for `tick`. It refuses a status filter that the contract doesn't have, as a server may.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from tests.support.hostile import Request, response
from tests.support.watching import IdleTimer
from tfruns import JobRunStatus

ENDS = ("FINISHED", "FAILED", "TERMINATED")


@attrs.define
class World:
    """Jobs and their runs, newest first, as the wire has them."""

    jobs: dict[str, list[dict[str, Any]]]
    time: int = attrs.field(factory=lambda: int(time.time() * 1000))
    failing: dict[str, int] = attrs.field(factory=dict)
    """Jobs that fail with a status; 200 is a response with a malformed run."""
    slow: dict[str, asyncio.Event] = attrs.field(factory=dict)
    """Jobs that don't respond until the event is set."""
    responses: dict[str, list[int]] = attrs.field(factory=lambda: defaultdict(list))
    """The statuses of the responses for each job, for a test to clear."""
    history: dict[tuple[str, str], list[tuple[int, dict[str, Any] | None]]] = attrs.field(
        factory=lambda: defaultdict(list)
    )
    """The states of each run, each with its time; None once it is gone."""

    def __attrs_post_init__(self) -> None:
        for job_id, runs in self.jobs.items():
            for run in runs:
                self.history[job_id, run["id"]].append((self.time, run))

    def tick(self) -> int:
        self.time += 1
        return self.time

    def state(self, job_id: str, run_id: str, when: int) -> dict[str, Any] | None:
        """How a run stood at that time."""
        return next((run for since, run in reversed(self.history[job_id, run_id]) if since <= when), None)

    def create(self, job_id: str, status: str) -> None:
        now = self.tick()
        number = len(self.history)
        run = _run(f"{job_id}-{number}", now, status, now)
        self.jobs[job_id].insert(0, run)
        self.history[job_id, run["id"]].append((now, run))

    def update(self, job_id: str, position: int, status: str) -> None:
        run = self.jobs[job_id][position]
        if run["status"] not in ENDS:
            now = self.tick()
            new = _run(run["id"], run["createdAt"], status, now)
            self.jobs[job_id][position] = new
            self.history[job_id, run["id"]].append((now, new))

    def delete(self, job_id: str, position: int) -> None:
        run = self.jobs[job_id].pop(position)
        self.history[job_id, run["id"]].append((self.tick(), None))

    async def respond(self, request: Request) -> bytes:
        url = urlsplit(request.target)
        job_id = unquote(url.path.split("/")[-2])
        if job_id in self.slow:
            await self.slow[job_id].wait()
        status, body = self._response(job_id, parse_qs(url.query))
        self.responses[job_id].append(status if job_id not in self.failing else 0)
        return response(status, body)

    def _response(self, job_id: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if (status := self.failing.get(job_id)) is not None:
            broken = {"data": [{"id": 5}], "pagination": {"total": 1}}
            return status, broken if status == 200 else {"statusCode": status, "message": "as the test says"}
        statuses, [prefix] = query.get("status"), query.get("searchPrefix", [""])
        if statuses and not set(statuses) <= {*JobRunStatus}:
            return 422, {"statusCode": 422, "message": f"no such status: {statuses}"}
        runs = [
            run
            for run in self.jobs[job_id]
            if (not statuses or run["status"] in statuses) and run["id"].startswith(prefix)
        ]
        limit, offset = int(query["limit"][0]), int(query["offset"][0])
        data = runs[offset : offset + limit]
        return 200, {"data": data, "pagination": {"total": len(runs), "offset": offset, "limit": limit}}


def history_of(job_id: str, count: int, open_every: int, paused_every: int) -> list[dict[str, Any]]:
    """So many runs, newest first, of which some are open, and some in a status that the contract doesn't have."""
    newest = int(time.time() * 1000) - 10_000 * ord(job_id[0])
    return [
        _run(
            f"{job_id}-old-{number}",
            newest - 1000 * number,
            "PAUSED" if number % paused_every == 1 else "RUNNING" if number % open_every == 2 else "FINISHED",
            newest - 1000 * number + 300,
        )
        for number in range(count)
    ]


def _run(run_id: str, created_at: int, status: str, now: int) -> dict[str, Any]:
    run = {"id": run_id, "name": f"name-{run_id}", "applicationName": "app", "deploymentVersion": "1"}
    run |= {"createdAt": created_at, "command": "true", "totalRetries": 0, "status": status}
    return run | {"endTime": now} if status in ENDS else run


@attrs.define(eq=False)
class WorldTimer(IdleTimer):
    """Time that passes only while a watch waits for nothing but its timer, or for jobs that are slow."""

    world: World
    least: float = 0.0
    """Seconds: a wait for nothing but the timer that is shorter passes without a pause."""

    def slow(self) -> Collection[str]:
        return self.world.slow

    async def pass_time(self, seconds: float) -> None:
        if self.world.slow or seconds >= self.least:
            self.pause()
        self._is_passing = False
        if self._is_idle():
            self.time += min(seconds, 86_400.0)

    def pause(self) -> None:
        """Called before time passes."""
        raise NotImplementedError
