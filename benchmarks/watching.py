"""Requests an hour that a watch makes, and how late it reports, against listing everything as often as it polls.

"everything" lists each job whole in place of each poll. Run it from a checkout with `.venv/bin/python -m
benchmarks.watching`. Server and client are real; time isn't: it goes on by itself where the watch would wait, and the
sandbox's clock with it. So an hour takes seconds, and is the same each time but for the jitter. Requests take no time.

`.venv/bin/python -m benchmarks.watching 10000` measures the CPU time and the memory of so many jobs, in real time.
"""

import asyncio
import heapq
import random
import statistics
import sys
import time
import tracemalloc
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import attrs

from benchmarks.server import serving
from tests.support.watching import IdleTimer, watch_of
from tfruns import Client
from tfruns.sandbox import Sandbox

RUNS = 10_000


class TimeIsUp(Exception):  # noqa: N818  # not an error
    """It ends the watch."""


@attrs.define(eq=False)
class Story(IdleTimer):
    """What happens as time goes by: on average so many new runs an hour, each of which takes two minutes."""

    sandbox: Sandbox
    seconds: float
    happened: dict[str, float] = attrs.field(factory=dict)
    due: list[tuple[float, int, str, str, str]] = attrs.field(factory=list)

    def begin(self, runs_an_hour: dict[str, int]) -> None:
        rng = random.Random(0)
        for job_id, count in runs_an_hour.items():
            when = 0.0
            while count and (when := when + rng.expovariate(count / 3600)) < self.seconds:
                run_id = f"run-{len(self.due)}"
                ends = when + 10 + rng.expovariate(1 / 120)
                for at, what in ((when, "CREATED"), (when + 10, "RUNNING"), (ends, "FINISHED")):
                    heapq.heappush(self.due, (at, len(self.due), job_id, run_id, what))

    async def pass_time(self, seconds: float) -> None:
        until = self.time + seconds
        while self.due and self.due[0][0] <= until:
            when, _, job_id, run_id, what = heapq.heappop(self.due)
            self.move_to(when)
            self.happened[run_id] = when
            if what == "CREATED":
                await self.sandbox.create_run(job_id, id=run_id)
            elif what == "RUNNING":
                await self.sandbox.update_run(job_id, run_id, status=what)
            else:
                await self.sandbox.finish_run(job_id, run_id)
        self.move_to(until)
        if self.time >= self.seconds:
            raise TimeIsUp

    def move_to(self, when: float) -> None:
        self.sandbox.clock.advance(max(0.0, when - self.time))
        self.time = when


async def measure(
    name: str, jobs: int, *, moving: int, runs_an_hour: int, minutes: int = 60, interval: Any = (2.0, 30.0)
) -> None:
    async with Sandbox(jobs, RUNS if jobs == 1 else 200) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
        for job_id in sandbox.job_ids:
            for run in sandbox.runs(job_id):
                if not run.status.is_terminal:
                    await sandbox.finish_run(job_id, run.id)
        for job_id in sandbox.job_ids:
            await client.iter_runs(job_id).collect()
        everything, everything_weighed = len(sandbox.requests), client.stats().bytes
        sandbox.requests.clear()
        story = Story(sandbox=sandbox, seconds=minutes * 60)
        story.begin(dict.fromkeys(sandbox.job_ids[:moving], runs_an_hour))
        events = len(story.due)
        start = datetime.fromtimestamp(sandbox.clock.now / 1000 + 1e-3, UTC)
        watch = watch_of(client, sandbox.job_ids, story, interval=interval, start=start)
        delays = []
        try:
            async with aclosing(watch.changes()) as changes:
                async for change in changes:
                    delays.append(story.time - story.happened[change.run.id])  # noqa: PERF401  # it ends by an error
        except TimeIsUp:
            pass
        # A poll is one request of the newest page; others are for open runs further down.
        polls = sum("limit=50&" in one.query + "&" and "status" not in one.query for one in sandbox.requests)
        weighed = client.stats().bytes - everything_weighed
        hourly = 60 / minutes
        late = f"{statistics.mean(delays):4.1f} {max(delays):5.1f}" if delays else "   -     -"
        requests = len(sandbox.requests) * hourly
        all_listed, all_weighed = (polls / jobs * one * hourly for one in (everything, everything_weighed))
        print(
            f"{name:<44}{events * hourly:>8,.0f}{polls * hourly:>9,.0f}{requests:>10,.0f}{all_listed:>12,.0f}"
            f"{weighed * hourly / 1e6:>8,.0f}{all_weighed / 1e6:>12,.0f}  {late}",
            flush=True,
        )


async def watch_many(count: int, seconds: float = 20.0) -> None:
    """The CPU time and the memory of so many jobs of one run, each polled every so many seconds of real time."""
    with serving(1) as url:
        async with Client(url, "key") as client:
            await client.count_runs("job-1")
            tracemalloc.start()
            before = client.stats().requests
            watch = client.watch_runs([f"job-{number}" for number in range(1, count + 1)], interval=seconds)
            waiting = asyncio.ensure_future(anext(watch))
            for what in ("first", "second"):
                while client.stats().requests < before + count:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                before += count
                if what == "first":
                    await asyncio.sleep(1)
                    print(f"{count:,} jobs: {tracemalloc.get_traced_memory()[0] / count / 1e3:.1f} kB each")
                    tracemalloc.stop()
                    used = time.process_time()
            print(f"{(time.process_time() - used) / count * 1e6:.0f} us of CPU a poll")
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def main() -> None:
    columns = f"{'events':>8}{'polls':>9}{'requests':>10}{'everything':>12}{'MB':>8}{'everything':>12}"
    print(f"{'':<44}{columns}  late (s): mean, worst")
    await measure(f"quiet job of {RUNS:,} runs", 1, moving=0, runs_an_hour=0)
    await measure(f"job of {RUNS:,} runs, 12 new an hour", 1, moving=1, runs_an_hour=12)
    await measure(f"busy job of {RUNS:,} runs, 1,000 new an hour", 1, moving=1, runs_an_hour=1_000)
    await measure("500 quiet jobs of 200 runs", 500, moving=0, runs_an_hour=0, minutes=10)
    await measure("500 jobs of 200 runs, 25 with 60 new an hour", 500, moving=25, runs_an_hour=60, minutes=10)
    await measure("the same, interval=(5, 120)", 500, moving=25, runs_an_hour=60, minutes=10, interval=(5.0, 120.0))


if __name__ == "__main__":
    asyncio.run(watch_many(int(sys.argv[1])) if sys.argv[1:] else main())
