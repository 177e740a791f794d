"""Many jobs from a server with a rate limit, and from one that is down for three seconds.

`python -m benchmarks.limits`: the time against what the limit allows, and the share of requests that were refused,
after the first quarter of that time; and how long after the end of an outage everything is there.
"""

import asyncio
import logging
import time

from tfruns import Client, ResponseEvent, RetryPolicy
from tfruns.sandbox import Fault, RateLimit, Sandbox

_JOBS = 200


async def limited(per_second: float, burst: int, wait_as: str | None, pages: int) -> None:
    responses: list[tuple[float, int]] = []

    def note(event: ResponseEvent) -> None:
        responses.append((time.monotonic(), event.status_code))

    limit = RateLimit(per_second=per_second, burst=burst, wait_as=wait_as)  # type: ignore[arg-type]
    async with Sandbox(jobs=_JOBS, runs=9 * pages, rate_limit=limit) as sandbox:
        retry = RetryPolicy(max_attempts=100)
        async with Client(sandbox.url, sandbox.api_key, retry=retry, on_response=note) as client:
            began = time.monotonic()
            count = len([run async for _, run in client.iter_runs_for(sandbox.job_ids, page_size=10)])
            seconds = time.monotonic() - began
    assert count == _JOBS * 9 * pages
    good = sum(status == 200 for _, status in responses)
    allowed = (good - burst) / per_second
    settled = [status for at, status in responses if at - began > allowed / 4]
    print(
        f"{per_second:g} a second, {burst} at once, wait said as {wait_as}: {good} pages in {seconds:.2f} s,"
        f" {seconds / allowed:.2f}x of what is allowed; refused {len(responses) - good},"
        f" settled {settled.count(429) / len(settled):.1%}",
        flush=True,
    )


async def outage(seconds: float) -> None:
    sandbox = Sandbox(jobs=_JOBS, runs=9, faults=[Fault(status=503)])
    async with sandbox, Client(sandbox.url, sandbox.api_key) as client:
        asyncio.get_running_loop().call_later(seconds, sandbox.faults.clear)
        began = time.monotonic()
        count = len([run async for _, run in client.iter_runs_for(sandbox.job_ids)])
        late = time.monotonic() - began - seconds
        refused = client.stats().retries
    assert count == _JOBS * 9
    print(f"down for {seconds:g} s: {_JOBS} jobs are there {late:.2f} s after that; {refused} requests were refused")


async def main() -> None:
    logging.getLogger("tfruns").setLevel(logging.ERROR)
    for wait_as, pages in (("ms", 1), (None, 1), ("seconds", 5)):
        for per_second, burst in ((50, 10), (100, 20), (200, 50)):
            await limited(per_second, burst, wait_as, pages)
    await outage(3)


if __name__ == "__main__":
    asyncio.run(main())
