"""One queue for all of a client's requests: over real HTTP, against servers with limits and servers that go away."""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

import tfruns
from tests.support.hostile import Handler, Raw, Reply, Request, Stall, page, pages_of, response, run, serve
from tfruns import Client, RetryPolicy
from tfruns._http import limits, pace, retry

KEY = "a-long-enough-key"
ONE_RUN = response(200, page([run(0)]))
SLOWER = response(429, {"statusCode": 429, "message": "slower"})


def job_of(request: Request) -> str:
    return request.target.split("/")[5]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.005)


# --- the rate ---


@pytest.mark.parametrize("headers", [{}, {"retry_after_ms": "20"}], ids=["no wait", "a wait"])
async def test_a_server_that_refuses_many_is_sent_fewer_until_all_is_there(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How few are refused, and how near to its limit it is, only simulated time can say: `test_pace.py`."""
    monkeypatch.setattr(pace, "_ROUND", 0.01)
    refused = response(429, {"statusCode": 429, "message": "slower"}, **headers)
    job_ids = [f"job-{n}" for n in range(100)]
    rates: list[float | None] = []
    rates_after_refusals: list[float | None] = []

    def reply(request: Request) -> Reply:
        return refused if 20 <= request.number < 100 and request.number % 4 else pages_of(1)(request)

    async with serve(reply) as (url, requests), Client(url, KEY) as client:
        client.add_hooks(
            on_response=lambda _: rates.append(client.stats().rate),
            on_retry=lambda _: rates_after_refusals.append(client.stats().rate),
        )
        found = Counter([job_id async for job_id, _ in client.iter_runs_for(job_ids)])
        stats = client.stats()
    assert found == dict.fromkeys(job_ids, 1)
    assert len(requests) == 160
    assert stats.retries == 60
    assert rates[19] is None
    assert any(rates_after_refusals)


async def test_one_refusal_in_a_quiet_time_holds_back_no_later_request() -> None:
    """In 0.1.0 a client could stall for minutes here, and neither timeout nor deadline covered it."""

    def reply(request: Request) -> Reply:
        return SLOWER if request.number == 3 else ONE_RUN

    async with serve(reply) as (url, _), Client(url, KEY) as client:
        for _ in range(3):
            await client.count_runs("job")
        async with asyncio.timeout(30):
            for _ in range(20):
                await client.count_runs("job")
        assert client.stats().rate is None


async def test_one_refusal_in_ten_at_random_loses_nothing_and_takes_no_request_too_long() -> None:
    def reply(request: Request) -> Reply:
        return SLOWER if request.number * 7919 % 10 == 3 else ONE_RUN

    async with serve(reply) as (url, requests), Client(url, KEY, retry=RetryPolicy(deadline=30)) as client:
        counts = await asyncio.gather(*(client.count_runs(f"job-{number}") for number in range(300)))
    assert counts == [1] * 300
    assert len(requests) == pytest.approx(300 / 0.9, abs=2)


async def test_slowing_down_and_recovering_are_logged_once_each(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_RECOVERED_AFTER", 0.5)
    monkeypatch.setattr(pace, "_ROUND", 0.1)
    tokens, filled_at = 10.0, time.monotonic()
    is_limited = True

    def reply(_: Request) -> Reply:
        nonlocal tokens, filled_at
        now = time.monotonic()
        tokens, filled_at = min(10.0, tokens + 100 * (now - filled_at)), now
        if is_limited and tokens < 1:
            return SLOWER
        tokens -= 1
        return ONE_RUN

    async with serve(reply) as (url, _), Client(url, KEY) as client:
        await asyncio.gather(*(client.count_runs(f"job-{number}") for number in range(200)))
        is_limited = False
        while "full speed" not in caplog.text:
            await asyncio.gather(*(client.count_runs(f"job-{number}") for number in range(10)))
            await asyncio.sleep(0.05)
    logged = [record.getMessage() for record in caplog.records if "attempt" not in record.getMessage()]
    assert logged[0].startswith(f"{url} refuses or fails requests: slowing down to ")
    assert logged[-1] == f"{url} takes requests again: back to full speed"
    assert len(logged) == 2


async def test_the_stats_tell_how_many_wait_and_how_fast_they_may_go() -> None:
    goes_on = asyncio.Event()

    async def reply(_: Request) -> Reply:
        await goes_on.wait()
        return ONE_RUN

    async with serve(reply) as (url, requests), Client(url, KEY, max_concurrency=2, max_rate=500) as client:
        calls = [asyncio.create_task(client.count_runs(f"job-{number}")) for number in range(10)]
        await until(lambda: len(requests) == 2)
        stats = client.stats()
        assert (stats.in_flight, stats.waiting, stats.concurrency, stats.rate) == (2, 8, 2, 500)
        calls.pop().cancel()
        await asyncio.sleep(0)
        assert client.stats().waiting == 7
        goes_on.set()
        await asyncio.gather(*calls)
        assert (client.stats().in_flight, client.stats().waiting) == (0, 0)
    assert len(requests) == 9


# --- waits that the server asks for ---


async def test_a_wait_that_the_server_demands_holds_back_all_requests_of_the_client() -> None:
    times: list[float] = []

    def reply(request: Request) -> Reply:
        times.append(time.monotonic())
        if request.number == 0:
            return response(429, {"statusCode": 429, "message": "slower"}, retry_after_ms="600")
        return ONE_RUN

    async with serve(reply) as (url, _), Client(url, KEY) as client:
        refused = asyncio.create_task(client.count_runs("refused"))
        await until(lambda: client.stats().retries == 1)
        await asyncio.gather(refused, *(client.count_runs(f"other-{n}") for n in range(5)))
    assert min(times[1:]) - times[0] >= 0.59
    assert len(times) == 7


async def test_a_wait_that_the_server_demands_counts_against_the_deadline_of_each_call() -> None:
    """A call that can't be sent in time fails at once, and says why; one that can is sent."""

    def reply(request: Request) -> Reply:
        if request.number == 0:
            return response(429, {"statusCode": 429, "message": "slower"}, retry_after_ms="1000")
        return ONE_RUN

    async with serve(reply) as (url, requests), Client(url, KEY) as client:
        refused = asyncio.create_task(client.count_runs("refused"))
        await until(lambda: client.stats().retries == 1)
        patient = asyncio.create_task(client.count_runs("patient", retry=RetryPolicy(deadline=60)))
        with pytest.raises(tfruns.APITimeoutError) as caught:
            await client.count_runs("in-a-hurry", retry=RetryPolicy(deadline=0.3))
        assert not patient.done()
        assert len(requests) == 1
        await asyncio.gather(refused, patient)
    assert "job 'in-a-hurry', offset 0: not sent: " in str(caught.value)
    assert "asks all requests to wait for " in str(caught.value)
    assert "0.3 s are left of the retry policy's deadline" in str(caught.value)
    assert "429" in str(caught.value)


async def test_a_call_that_waits_already_outlasts_a_short_wait_that_the_server_demands() -> None:
    """Only the seconds of that wait count against its deadline."""
    goes_on = asyncio.Event()

    async def reply(request: Request) -> Reply:
        if request.number:
            return ONE_RUN
        await goes_on.wait()
        return response(429, {"statusCode": 429, "message": "slower"}, retry_after_ms="50")

    async with serve(reply) as (url, requests), Client(url, KEY, max_concurrency=1) as client:
        first = asyncio.create_task(client.count_runs("first"))
        await until(lambda: len(requests) == 1)
        second = asyncio.create_task(client.count_runs("second", retry=RetryPolicy(deadline=0.9)))
        await until(lambda: client.stats().waiting == 1)
        goes_on.set()
        assert (await first, await second) == (1, 1)


async def test_a_call_that_waits_already_fails_when_the_server_demands_too_long_a_wait() -> None:
    goes_on = asyncio.Event()

    async def reply(_: Request) -> Reply:
        await goes_on.wait()
        return response(503, {"statusCode": 503, "message": "later"}, retry_after="30")

    async with serve(reply) as (url, requests), Client(url, KEY, max_concurrency=1) as client:
        first = asyncio.create_task(client.count_runs("first", retry=RetryPolicy(deadline=20)))
        await until(lambda: len(requests) == 1)
        second = asyncio.create_task(client.count_runs("second", retry=RetryPolicy(deadline=20)))
        await until(lambda: client.stats().waiting == 1)
        goes_on.set()
        async with asyncio.timeout(15):
            with pytest.raises(tfruns.APITimeoutError, match="not sent: .* asks all requests to wait for 30 s"):
                await second
            with pytest.raises(tfruns.InternalServerError, match="not retried( again)?: .* deadline of 20 s"):
                await first


async def test_the_clients_own_queue_counts_against_no_deadline() -> None:
    async def reply(_: Request) -> Reply:
        await asyncio.sleep(0.05)
        return ONE_RUN

    retry = RetryPolicy(deadline=1)
    async with serve(reply) as (url, _), Client(url, KEY, max_concurrency=1, retry=retry) as client:
        began = time.monotonic()
        assert await asyncio.gather(*(client.count_runs(f"job-{n}") for n in range(30))) == [1] * 30
        assert time.monotonic() - began > 1


# --- outages ---


@asynccontextmanager
async def outage_after(
    count: int, seconds: float, down: Callable[[Request], Reply | Awaitable[Reply]]
) -> AsyncGenerator[tuple[str, list[float]]]:
    """A server of lists of 20 runs that is down for so long after so many requests: its URL, and when each was sent."""
    down_until = math.inf
    sent: list[float] = []

    def reply(request: Request) -> Reply | Awaitable[Reply]:
        nonlocal down_until
        now = time.monotonic()
        sent.append(now)
        if request.number == count:
            down_until = now + seconds
        return down(request) if request.number >= count and now < down_until else pages_of(20)(request)

    async with serve(reply) as (url, _):
        yield url, sent


def refuses(_: Request) -> Reply:
    return response(503, {"statusCode": 503, "message": "back in a moment"})


def fails(_: Request) -> Reply:
    return response(500, {"statusCode": 500, "message": "no database"})


def resets(_: Request) -> Reply:
    return Raw(b"", reset=True)


def stalls(_: Request) -> Reply:
    return Stall()


@pytest.mark.parametrize("down", [refuses, fails, resets, stalls])
async def test_after_an_outage_in_the_middle_of_twenty_jobs_all_is_there_soon(
    down: Callable[[Request], Reply], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_PROBE_LOST_AFTER", 0.2)
    job_ids = [f"job-{n}" for n in range(20)]
    async with outage_after(30, 1.2, down) as (url, sent), Client(url, KEY, timeout=0.5) as client:
        began = time.monotonic()
        found = Counter([job_id async for job_id, _ in client.iter_runs_for(job_ids, page_size=5)])
        seconds = time.monotonic() - began
    assert found == dict.fromkeys(job_ids, 20)
    assert seconds < 30
    assert len(sent) < 20 * 7 + 100


async def test_after_an_outage_the_client_is_back_to_speed_without_a_burst() -> None:
    """Few probes while it lasts, however many requests wait; then twice as many requests with each round."""
    in_flight = 0
    at_once: list[int] = []
    recovers_at = math.inf

    async def reply(request: Request) -> Reply:
        nonlocal in_flight, recovers_at
        recovers_at = min(recovers_at, time.monotonic() + 1.0)
        if time.monotonic() < recovers_at:
            return refuses(request)
        in_flight += 1
        at_once.append(in_flight)
        await asyncio.sleep(0.005)
        in_flight -= 1
        return ONE_RUN

    async with serve(reply) as (url, requests), Client(url, KEY, max_concurrency=8) as client:
        assert await asyncio.gather(*(client.count_runs(f"job-{n}") for n in range(100))) == [1] * 100
    assert max(at_once) == 8
    assert at_once[0] == 1
    assert at_once.index(8) >= 7
    assert len(requests) - len(at_once) < 60


async def test_an_outage_ends_all_calls_together_when_the_patience_is_over() -> None:
    """A hundred requests in flight and waiting: none ends it early, and none outlives it by long."""
    sent: list[float] = []

    def reply(request: Request) -> Reply:
        sent.append(time.monotonic())
        return refuses(request)

    async with serve(reply) as (url, _), Client(url, KEY, retry=RetryPolicy(patience=1)) as client:
        began = time.monotonic()
        errors = await asyncio.gather(*(client.count_runs(f"job-{n}") for n in range(100)), return_exceptions=True)
        seconds = time.monotonic() - began
        assert client.stats().waiting == client.stats().in_flight == 0
    assert 0.8 <= seconds < 20
    assert {type(error) for error in errors} == {tfruns.APIConnectionError, tfruns.InternalServerError}
    assert all("the retry policy's patience" in str(error) for error in errors)
    assert len(sent) < 70
    unsent = next(str(error) for error in errors if type(error) is tfruns.APIConnectionError)
    assert "not sent: no good response from " in unsent
    assert "the last failure: 503" in unsent


async def test_where_a_proxy_sends_its_own_page_to_all_that_is_an_outage_too() -> None:
    """After a good page: only probes are sent, and nobody waits for longer than the patience."""
    sent: list[float] = []

    def reply(request: Request) -> Reply:
        sent.append(time.monotonic())
        return response(200, b" <html>back soon</html>\n") if request.number else ONE_RUN

    async with serve(reply) as (url, _), Client(url, KEY, retry=RetryPolicy(patience=1)) as client:
        await client.count_runs("job")
        errors = await asyncio.gather(*(client.count_runs(f"job-{n}") for n in range(100)), return_exceptions=True)
    assert {type(error) for error in errors} == {tfruns.APIConnectionError, tfruns.DecodeError}
    assert len(sent) < 70


@pytest.mark.parametrize("before", [b"", b"\n\t ", b"\xef\xbb\xbf"], ids=repr)
async def test_a_page_with_white_space_around_it_is_no_outage(before: bytes) -> None:
    body = before + ONE_RUN.partition(b"\r\n\r\n")[2] + b" \r\n"
    async with serve(lambda _: response(200, body)) as (url, requests), Client(url, KEY) as client:
        assert await asyncio.gather(*(client.count_runs(f"job-{n}") for n in range(30))) == [1] * 30
        assert not client._transport._pace.in_outage
    assert len(requests) == 30


async def test_a_call_with_a_deadline_does_not_wait_for_the_end_of_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while a probe brings no response."""
    monkeypatch.setattr(pace, "_IN_OUTAGE", 2)
    async with serve(lambda r: refuses(r) if r.number < 2 else Stall()) as (url, requests), Client(url, KEY) as client:
        waiting = asyncio.create_task(client.count_runs("waits"))
        await until(lambda: len(requests) == 3)
        began = time.monotonic()
        with pytest.raises(
            tfruns.APITimeoutError,
            match=r"not sent: no good response from .* s, and 0 s are left of the retry policy's deadline of 0.2 s",
        ):
            await client.count_runs("in-a-hurry", retry=RetryPolicy(deadline=0.2))
        assert time.monotonic() - began < 20
        waiting.cancel()


async def test_calls_without_retries_share_the_probes_of_an_outage() -> None:
    """Each would else wait until it is sent itself: hundreds of them, one after another."""
    once = RetryPolicy(max_attempts=1)
    async with serve(refuses) as (url, requests), Client(url, KEY, retry=once, max_concurrency=4) as client:
        errors = await asyncio.gather(*(client.count_runs(f"job-{n}") for n in range(300)), return_exceptions=True)
    assert {type(error) for error in errors} == {tfruns.APIConnectionError, tfruns.InternalServerError}
    assert len(requests) < 20
    assert "the retry policy allows no more attempts; the last failure: 503" in str(errors[-1])


async def test_going_away_and_coming_back_are_logged_once_each(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_LOGGED_AFTER", 0.0)
    async with serve(lambda r: refuses(r) if r.number < 25 else ONE_RUN) as (url, _), Client(url, KEY) as client:
        await asyncio.gather(*(client.count_runs(f"job-{n}") for n in range(30)))
    logged = [record.getMessage() for record in caplog.records if "attempt" not in record.getMessage()]
    assert logged[0] == f"no good response from {url}: only probes are sent until there is one"
    assert logged[1].startswith(f"{url} responds again, after ")
    assert len(logged) == 2
    assert all(record.levelno == logging.WARNING for record in caplog.records)


async def test_a_host_that_was_never_reached_is_given_up_soon(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """A typo is no outage."""
    monkeypatch.setattr(retry, "_FIRST_CONTACT", 0.5)
    async with Client(f"http://127.0.0.1:{unused_tcp_port}", KEY) as client:
        began = time.monotonic()
        calls = (client.count_runs(f"job-{n}") for n in range(30))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < 20
    assert {type(error) for error in errors} == {tfruns.APIConnectionError}
    assert any("could not connect" in str(error) and "has never responded" in str(error) for error in errors)
    assert retry._FIRST_CONTACT == 0.5


async def test_a_host_that_was_reached_once_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same connection errors later are an outage."""
    monkeypatch.setattr(retry, "_FIRST_CONTACT", 0.1)
    async with outage_after(1, 0.6, resets) as (url, sent), Client(url, KEY) as client:
        assert await client.count_runs("job") == 20
        assert await client.count_runs("job") == 20
    assert len(sent) > 3


async def test_a_probe_that_is_cancelled_holds_back_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_IN_OUTAGE", 2)
    monkeypatch.setattr(pace, "_PROBE_LOST_AFTER", 60)

    def reply(request: Request) -> Reply:
        return refuses(request) if request.number < 2 else Stall() if request.number == 2 else ONE_RUN

    async with serve(reply) as (url, requests), Client(url, KEY) as client:
        first = asyncio.create_task(client.count_runs("first"))
        await until(lambda: len(requests) == 3)
        second = asyncio.create_task(client.count_runs("second"))
        await until(lambda: client.stats().waiting == 1)
        first.cancel()
        async with asyncio.timeout(30):
            assert await second == 1


async def test_an_outage_and_a_slow_server_cost_ten_tasks_on_one_client_nothing() -> None:
    """Responses that take long are no failures, before the outage or after it."""

    async def slow(request: Request) -> Reply:
        await asyncio.sleep(0.1)
        return pages_of(20)(request)

    handler: Handler = slow
    async with serve(lambda request: handler(request)) as (url, requests), Client(url, KEY, timeout=1) as client:

        async def walk(number: int) -> int:
            return len([one async for one in client.iter_runs(f"job-{number}", page_size=5)])

        tasks = [asyncio.create_task(walk(number)) for number in range(10)]
        await until(lambda: len(requests) > 20)
        handler = refuses
        await until(lambda: client.stats().retries > 20)
        handler = slow
        assert await asyncio.gather(*tasks) == [20] * 10


# --- turns ---


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
async def test_jobs_of_one_to_fifty_pages_are_complete_fair_and_within_the_limit(count: int) -> None:
    in_flight = most_in_flight = 0
    sizes = {f"job-{n}": 50 if n == 0 else 1 + (n * 7919) % 4 if n % 50 else 25 for n in range(count)}
    runs_a_page = 3

    async def reply(request: Request) -> Reply:
        nonlocal in_flight, most_in_flight
        in_flight += 1
        most_in_flight = max(most_in_flight, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        runs = sizes[job_of(request)] * (runs_a_page - 1)
        rows = range(request.offset, min(runs, request.offset + request.limit))
        return response(200, page([run(n) for n in rows], runs))

    async with serve(reply) as (url, _), Client(url, KEY, max_concurrency=12) as client:
        found = [job_id async for job_id, _ in client.iter_runs_for(sizes, page_size=runs_a_page)]
    assert Counter(found) == {job_id: pages * (runs_a_page - 1) for job_id, pages in sizes.items()}
    assert 1 < most_in_flight <= 12
    last_small = [job_id for job_id, pages in sizes.items() if pages == 1][-1]
    assert found.index(last_small) < len(found) - 1 - found[::-1].index("job-0")
