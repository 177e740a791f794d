"""Each fault of the sandbox, and what the user of a client sees of it."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import aiohttp
import pytest

import tfruns
from tfruns.sandbox import Fault, RateLimit, Sandbox

ONCE = tfruns.RetryPolicy(max_attempts=1)
AT_ONCE = tfruns.RetryPolicy(initial_backoff=0)


@asynccontextmanager
async def faulty(
    *faults: Fault | str, retry: tfruns.RetryPolicy = ONCE, within: float = 30, runs: int = 300, **options: Any
) -> AsyncGenerator[tuple[Sandbox, tfruns.Client]]:
    """A sandbox of one job with these faults, and a client of it."""
    async with Sandbox(["job"], runs, faults=faults, **options) as s:
        async with tfruns.Client(s.url, lambda: s.api_key, retry=retry, timeout=within) as client:
            yield s, client


async def ids(client: tfruns.Client, **how: Any) -> list[str]:
    return [run.id for run in await client.iter_runs("job", **how).collect()]


# --- what the user sees ---


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, tfruns.BadRequestError),
        (401, tfruns.AuthenticationError),
        (403, tfruns.PermissionDeniedError),
        (404, tfruns.NotFoundError),
        (409, tfruns.ConflictError),
        (418, tfruns.APIStatusError),
        (422, tfruns.UnprocessableEntityError),
        (429, tfruns.RateLimitError),
        (500, tfruns.InternalServerError),
        (503, tfruns.InternalServerError),
        (599, tfruns.InternalServerError),
    ],
)
async def test_a_status_is_its_typed_error(status: int, error: type[tfruns.APIStatusError]) -> None:
    async with faulty(f"status={status}") as (_, client):
        with pytest.raises(error) as raised:
            await client.list_runs("job")
    assert type(raised.value) is error
    assert (raised.value.status_code, raised.value.code) == (status, "SANDBOX_FAULT")
    assert raised.value.request_id


@pytest.mark.parametrize("fault", ["status=503", "status=429", "breaks=cut", "breaks=reset"])
async def test_what_passes_by_is_retried_and_nothing_is_lost(fault: str) -> None:
    async with faulty(f"{fault},nth=2/3", retry=AT_ONCE) as (s, client):
        assert await ids(client, page_size=50) == [run.id for run in s.runs("job")]


async def test_faults_by_rate_hit_their_share_and_a_walk_survives_them() -> None:
    async with faulty("status=503,rate=0.2", retry=AT_ONCE) as (s, client):
        for _ in range(5):
            assert await ids(client, page_size=20) == [run.id for run in s.runs("job")]
        failed = sum(request.status == 503 for request in s.requests)
        assert 0.05 < failed / len(s.requests) < 0.5


async def test_a_wait_is_said_in_whole_seconds_and_kept() -> None:
    async with faulty(Fault(status=429, wait=0.5, nth=1), retry=AT_ONCE) as (s, client):
        begun = time.monotonic()
        assert await client.count_runs("job") == 300
        assert time.monotonic() - begun > 0.9
        assert [request.status for request in s.requests] == [429, 200]


async def test_no_wait_has_no_header() -> None:
    async with faulty(Fault(status=429)) as (_, client):
        with pytest.raises(tfruns.RateLimitError) as raised:
            await client.count_runs("job")
        assert not {"retry-after", "retry-after-ms"} & {name.lower() for name in raised.value.headers}


async def test_a_page_of_html_is_an_error_with_the_status_or_one_of_decoding() -> None:
    async with faulty("status=502,html") as (s, client):
        with pytest.raises(tfruns.InternalServerError, match="502 Bad Gateway") as raised:
            await client.list_runs("job")
        assert raised.value.message.startswith("<!DOCTYPE html>")
        s.faults[:] = [Fault(html=True)]
        with pytest.raises(tfruns.DecodeError):
            await client.list_runs("job")


@pytest.mark.parametrize("fault", ["breaks=cut", "breaks=reset"])
async def test_a_broken_response_is_a_connection_error(fault: str) -> None:
    async with faulty(fault) as (s, client):
        with pytest.raises(tfruns.APIConnectionError) as raised:
            await client.list_runs("job")
        assert not isinstance(raised.value, tfruns.APITimeoutError)
        s.faults.clear()
        assert await client.count_runs("job") == 300


async def test_a_stalled_response_is_a_timeout_and_ends_with_its_client() -> None:
    async with faulty("breaks=stall", within=0.2) as (s, client):
        with pytest.raises(tfruns.APITimeoutError):
            await client.list_runs("job")
        s.faults.clear()
        assert await client.count_runs("job") == 300


async def test_latency_is_waited_for_and_too_much_of_it_is_a_timeout() -> None:
    async with faulty(Fault(latency=0.3)) as (s, client):
        begun = time.monotonic()
        await client.count_runs("job")
        assert time.monotonic() - begun >= 0.3
        async with tfruns.Client(s.url, s.api_key, retry=ONCE, timeout=0.05) as hasty:
            with pytest.raises(tfruns.APITimeoutError):
                await hasty.count_runs("job")


async def test_a_clamped_limit_loses_nothing() -> None:
    async with faulty("limit=20") as (s, client):
        page = await client.list_runs("job", limit=100)
        assert (len(page.data), page.pagination.limit) == (20, 20)
        assert await ids(client, page_size=100) == [run.id for run in s.runs("job")]


@pytest.mark.parametrize("total", [-10_000, -100, 100])
async def test_a_lying_total_loses_nothing_or_is_an_error(total: int) -> None:
    async with faulty(Fault(total=total)) as (s, client):
        assert await client.count_runs("job") == max(0, 300 + total)
        try:
            assert await ids(client, page_size=50) == [run.id for run in s.runs("job")]
        except tfruns.IncompleteWalkError:
            assert total > 0


async def test_a_rate_limit_slows_a_walk_down_and_loses_nothing() -> None:
    limit = RateLimit(per_second=50, burst=3)
    async with faulty(rate_limit=limit, retry=tfruns.RetryPolicy(max_attempts=100)) as (s, client):
        begun = time.monotonic()
        assert await ids(client, page_size=20) == [run.id for run in s.runs("job")]
        responded = sum(request.status == 200 for request in s.requests)
        assert time.monotonic() - begun > (responded - 4) / 50
        assert any(request.status == 429 for request in s.requests)


async def test_a_rate_limit_lets_a_burst_through_and_says_how_long_to_wait() -> None:
    async with faulty(rate_limit=RateLimit(per_second=0.001, burst=4)) as (_, client):
        for _ in range(4):
            await client.count_runs("job")
        with pytest.raises(tfruns.RateLimitError) as raised:
            await client.count_runs("job")
        assert 0 < int(raised.value.headers["retry-after-ms"]) <= 1_000_000


async def test_a_key_that_was_replaced_is_refused_from_then_on() -> None:
    async with faulty() as (s, client):
        old = s.api_key
        async with tfruns.Client(s.url, old) as fixed:
            assert await fixed.count_runs("job") == 300
            assert s.new_key() == s.api_key != old
            assert await client.count_runs("job") == 300
            with pytest.raises(tfruns.AuthenticationError, match="wrong"):
                await fixed.count_runs("job")


async def test_a_key_that_is_replaced_within_a_walk_is_read_again() -> None:
    async with Sandbox(["job"], 300) as s:
        async with tfruns.Client(s.url, lambda: s.api_key, max_concurrency=1) as client:
            seen = []
            async for run in client.iter_runs("job", page_size=50):
                seen.append(run.id)
                if len(seen) == 120:
                    s.new_key()
        assert seen == [run.id for run in s.runs("job")]
        assert any(request.status == 401 for request in s.requests)


async def test_a_forbidden_job_is_a_permission_denied_and_others_are_not() -> None:
    async with Sandbox(["mine", "theirs"], 3, forbidden=["theirs", "nowhere"]) as s:
        async with tfruns.Client(s.url, s.api_key) as client:
            for job_id in ("theirs", "nowhere"):
                with pytest.raises(tfruns.PermissionDeniedError, match=job_id):
                    await client.count_runs(job_id)
            assert await client.count_runs("mine") == 3


# --- which requests are hit ---


async def test_a_script_hits_the_requests_of_a_job_by_their_number() -> None:
    async with Sandbox(["a", "b"], 5, faults=[Fault(status=500, job_id="a", nth=3)]) as s:
        async with tfruns.Client(s.url, s.api_key, retry=ONCE) as client:
            for job_id in ("a", "b", "a", "b", "b", "b"):
                await client.count_runs(job_id)
            with pytest.raises(tfruns.InternalServerError):
                await client.count_runs("a")
            assert await client.count_runs("a") == 5


async def test_faults_add_up() -> None:
    async with faulty("limit=5", "total=2", "limit=3,total=1") as (_, client):
        page = await client.list_runs("job")
        assert (len(page.data), page.pagination.limit, page.pagination.total) == (3, 3, 303)


async def test_faults_of_a_sandbox_that_runs_may_be_texts() -> None:
    """In every way in which a list can be changed, as in the constructor."""
    async with faulty() as (sandbox, client):
        sandbox.faults.append("status=404")
        with pytest.raises(tfruns.NotFoundError, match="A fault on purpose"):
            await client.count_runs("job")
        sandbox.faults[0] = "status=403"
        with pytest.raises(tfruns.PermissionDeniedError):
            await client.count_runs("job")
        sandbox.faults = ["status=401"]
        with pytest.raises(tfruns.AuthenticationError):
            await client.count_runs("job")
        sandbox.faults[:] = ["status=409"]
        sandbox.faults.extend(["limit=5"])
        sandbox.faults += ["total=3"]
        sandbox.faults.insert(0, "latency=0.01")
        assert sandbox.faults == [Fault(latency=0.01), Fault(status=409), Fault(limit=5), Fault(total=3)]


@pytest.mark.parametrize(
    ("wrong", "error"), [("status=99", ValueError), ("404", ValueError), (404, TypeError), (None, TypeError)]
)
async def test_what_is_no_fault_is_refused_when_it_is_given(wrong: Any, error: type[Exception]) -> None:
    """Not at the next request, for which it would look like a failure of the code under test."""
    async with faulty("latency=0.01") as (sandbox, client):
        for change in (
            lambda: sandbox.faults.append(wrong),
            lambda: sandbox.faults.insert(0, wrong),
            lambda: sandbox.faults.extend(["limit=5", wrong]),
            lambda: sandbox.faults.__iadd__([wrong]),
            lambda: sandbox.faults.__setitem__(0, wrong),
            lambda: sandbox.faults.__setitem__(slice(None), [wrong]),
        ):
            with pytest.raises(error):
                change()
        assert sandbox.faults == [Fault(latency=0.01)]
        assert await client.count_runs("job") == 300


async def test_the_same_seed_draws_the_same_faults() -> None:
    async def statuses(seed: int) -> list[int]:
        async with Sandbox(["job"], 1, seed, faults=["status=500,rate=0.5"]) as s, aiohttp.ClientSession() as http:
            for _ in range(30):
                async with http.get(f"{s.url}/api/svc/v1/jobs/job/runs") as response:
                    await response.read()
            return [request.status for request in s.requests]

    first, again, other = await asyncio.gather(statuses(1), statuses(1), statuses(2))
    assert first == again != other


async def test_closing_the_sandbox_does_not_wait_for_stalled_or_slow_responses() -> None:
    for fault in ("breaks=stall", "latency=60"):
        async with faulty(fault) as (s, client):
            counting = asyncio.ensure_future(client.count_runs("job"))
            await asyncio.sleep(0.1)
            async with asyncio.timeout(10):
                await s.aclose()
            with pytest.raises(tfruns.APIConnectionError):
                await counting


# --- faults as values and as text ---


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("status=429,wait=2", Fault(status=429, wait=2)),
        ("status=502, html", Fault(status=502, html=True)),
        ("latency=0.2,rate=0.1", Fault(latency=0.2, rate=0.1)),
        ("latency=0.5", Fault(latency=0.5)),
        ("breaks=cut,job-id=a%2Cb,nth=3/4", Fault(breaks="cut", job_id="a,b", nth=(3, 4))),
        ("limit=10,total=-3", Fault(limit=10, total=-3)),
    ],
)
def test_a_fault_is_read_from_text(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a fault is made of status"),
        ("status", "a fault is made of"),
        ("html=1", "a fault is made of"),
        ("status=500,status=501", "each once"),
        ("status=x", "status of a fault can't be 'x'"),
        ("status=200", "status must be a whole number from 400 to 599, got 200"),
        ("breaks=glass", "breaks must be one of cut, reset, stall, got 'glass'"),
        ("wait=1,latency=1", "wait needs a status"),
        ("rate=0.5", "does nothing"),
        ("status=500,rate=0", "rate must be above 0"),
        ("status=500,rate=1.5", "rate must be above 0"),
        ("status=500,nth=0", "nth must be a whole number, 1 or more, got 0"),
        ("latency=-1", "latency must be"),
        ("latency=nan", "latency must be"),
        ("limit=0", "limit must be a whole number from 1 to 1000"),
    ],
)
def test_a_bad_fault_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Fault.parse(text)


@pytest.mark.parametrize("field", ["html", "latency", "total", "rate", "nth"])
def test_a_field_that_has_a_value_by_default_needs_one(field: str) -> None:
    """Here, and not when a request comes."""
    with pytest.raises(TypeError, match=f"{field} must be "):
        Fault(**{"status": 503, field: None})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"faults": "status=500"}, TypeError, "a sequence of faults"),
        ({"faults": [5]}, TypeError, "a Fault, or the text of one, got 5"),
        ({"faults": ["x"]}, ValueError, "a fault is made of"),
        ({"rate_limit": 5}, TypeError, "a RateLimit, got 5"),
        ({"forbidden": "job"}, TypeError, "a sequence of strings, got 'job'"),
        ({"forbidden": [1]}, TypeError, r"got \[1\]"),
        ({"living": 1}, TypeError, "living must be a bool"),
        ({"port": 70000}, ValueError, "port must be a whole number from 0 to 65535"),
        ({"runs_from": 5}, TypeError, "runs_from must be the path of a file, got 5"),
        ({"clock_start": "2h"}, TypeError, "an aware datetime, .*milliseconds since 1970.*, got '2h'"),
        ({"clock_start": datetime(2026, 1, 1)}, ValueError, "which has no time zone"),  # noqa: DTZ001
        ({"clock_start": -1}, ValueError, "from 0 to 250000000000000, got -1"),
        ({"clock_start": True}, TypeError, "got True"),
        ({"runs_from": ""}, ValueError, "runs_from must be the path of a file"),
    ],
)
def test_a_bad_option_says_what_was_given_and_what_is_allowed(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Sandbox(**options)


@pytest.mark.parametrize("wait_as", ["seconds", "ms"])
async def test_a_rate_limit_says_how_long_to_wait_in_the_header_that_was_chosen(wait_as: Any) -> None:
    async with faulty(rate_limit=RateLimit(per_second=0.1, burst=1, wait_as=wait_as)) as (_, client):
        await client.count_runs("job")
        with pytest.raises(tfruns.RateLimitError) as raised:
            await client.count_runs("job")
    said = {name.lower() for name in raised.value.headers} & {"retry-after", "retry-after-ms"}
    assert said == {{"seconds": "retry-after", "ms": "retry-after-ms"}[wait_as]}


@pytest.mark.parametrize(
    "options",
    [
        {"per_second": 0},
        {"per_second": 1, "burst": 0},
        {"per_second": float("inf")},
        {"per_second": 1, "wait_as": "minutes"},
    ],
)
def test_a_rate_limit_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RateLimit(**options)
