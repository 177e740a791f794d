"""What a client tells of its requests: hooks, counts and logs; and the options of a single call."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

import tfruns
from tests.support.hostile import Raw, Reply, Request, Stall, pages_of, response, serve
from tfruns import Client, FailureEvent, RequestEvent, ResponseEvent, RetryEvent, RetryPolicy

KEY = "a-long-enough-key"
QUICK = RetryPolicy(initial_backoff=0.0)
NEVER = RetryPolicy(max_attempts=1)


async def test_hooks_see_each_request_response_and_retry_in_their_order() -> None:
    def reply(request: Request) -> Reply:
        if request.number == 0:
            return response(503, {"statusCode": 503, "message": "later"}, x_request_id="req-0")
        return pages_of(2)(request)

    events: list[Any] = []
    async with serve(reply) as (url, _):
        async with Client(
            url, KEY, retry=QUICK, on_request=events.append, on_response=events.append, on_retry=events.append
        ) as client:
            assert await client.count_runs("job") == 2
    kinds = [type(event) for event in events]
    assert kinds == [RequestEvent, ResponseEvent, RetryEvent, RequestEvent, ResponseEvent]
    assert {(event.job_id, event.offset, event.limit) for event in events} == {("job", 0, 1)}
    assert [event.attempt for event in events] == [1, 1, 1, 2, 2]
    _, refused, retry, _, good = events
    assert (refused.status_code, refused.request_id, refused.size > 0) == (503, "req-0", True)
    assert isinstance(retry.error, tfruns.InternalServerError)
    assert retry.wait == 0.0
    assert (good.status_code, good.request_id) == (200, None)
    assert 0 < good.seconds < 60


async def test_added_hooks_are_called_after_those_that_are_there_in_their_order() -> None:
    calls: list[str] = []

    def note(name: str) -> Callable[[object], None]:
        return lambda event: calls.append(f"{name} {type(event).__name__}")

    replies = {0: response(503, {}), 2: REFUSED}
    async with serve(lambda r: replies.get(r.number) or pages_of(1)(r)) as (url, _):
        async with Client(url, KEY, retry=QUICK, on_request=note("own"), on_failure=note("own")) as client:
            for name in ("first", "second"):
                client.add_hooks(on_request=note(name), on_retry=note(name), on_failure=note(name))
            client.add_hooks()
            await client.count_runs("job")
            client.add_hooks(on_response=note("late"))
            with pytest.raises(tfruns.PermissionDeniedError):
                await client.count_runs("job")
    sent = [f"{name} RequestEvent" for name in ("own", "first", "second")]
    retried = [f"{name} RetryEvent" for name in ("first", "second")]
    failed = [f"{name} FailureEvent" for name in ("own", "first", "second")]
    assert calls == [*sent, *retried, *sent, *sent, "late ResponseEvent", *failed]


async def test_a_hook_that_raises_keeps_the_event_from_those_after_it() -> None:
    def fails(event: object) -> None:
        raise LookupError("a bug in the hook")

    calls: list[object] = []
    async with serve(pages_of(1)) as (url, requests), Client(url, KEY, on_request=calls.append) as client:
        client.add_hooks(on_request=fails)
        client.add_hooks(on_request=calls.append)
        with pytest.raises(LookupError):
            await client.count_runs("job")
    assert (len(calls), requests) == (1, [])


async def test_wrong_hooks_are_refused_and_none_of_them_is_added() -> None:
    calls: list[object] = []
    async with serve(pages_of(1)) as (url, _), Client(url, KEY) as client:
        with pytest.raises(TypeError, match="on_failure must be a function, got 5"):
            client.add_hooks(on_request=calls.append, on_failure=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="on_retry must be a plain function, not an async one"):
            client.add_hooks(on_request=calls.append, on_retry=asyncio.sleep)  # type: ignore[arg-type]
        await client.count_runs("job")
    assert calls == []


async def test_a_hook_may_add_hooks_which_are_called_from_the_next_event_on() -> None:
    calls: list[int] = []
    async with serve(pages_of(1)) as (url, _), Client(url, KEY) as client:
        client.add_hooks(on_request=lambda _: client.add_hooks(on_request=lambda _: calls.append(1)))
        for expected in (0, 1, 3):
            await client.count_runs("job")
            assert len(calls) == expected


BAD = response(200, {"data": [{"id": 5}]}, x_request_id="req-7")
REFUSED = response(403, {"statusCode": 403, "message": "no"}, x_request_id="req-8")
BUSY = response(503, {"statusCode": 503, "message": "later"}, x_request_id="req-9")


@pytest.mark.parametrize(
    ("reply", "error", "attempts", "request_id"),
    [
        (REFUSED, tfruns.PermissionDeniedError, 1, "req-8"),
        (BUSY, tfruns.InternalServerError, 3, "req-9"),
        (BAD, tfruns.DecodeError, 1, "req-7"),
        (response(200, b"no JSON"), tfruns.DecodeError, 1, None),
        (Raw(b""), tfruns.APIConnectionError, 3, None),
        (Stall(), tfruns.APITimeoutError, 3, None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_a_request_that_failed_for_good_is_reported_once_with_its_error(
    reply: Reply, error: type[Exception], attempts: int, request_id: str | None
) -> None:
    """By every way to list runs, and with the error that is raised."""
    events: list[FailureEvent] = []
    retry = RetryPolicy(max_attempts=3, initial_backoff=0)
    calls: dict[str, Callable[[Client], Awaitable[object]]] = {
        "list_runs": lambda client: client.list_runs("job", limit=7, offset=3),
        "count_runs": lambda client: client.count_runs("job"),
        "iter_runs": lambda client: client.iter_runs("job").collect(),
        "iter_runs_for": lambda client: anext(aiter(client.iter_runs_for(["job"]))),
    }
    timeout = 0.05 if isinstance(reply, Stall) else 60
    async with serve(lambda _: reply) as (url, _):
        for name, call in calls.items():
            events.clear()
            async with Client(url, KEY, retry=retry, timeout=timeout, on_failure=events.append) as client:
                with pytest.raises(error) as caught:
                    await call(client)
            (event,) = events
            assert event.error is caught.value
            assert (event.job_id, event.attempts, event.request_id) == ("job", attempts, request_id)
            assert isinstance(caught.value, tfruns.APIError)
            assert (caught.value.attempts, caught.value.job_id) == (attempts, "job")
            assert 0 < event.seconds < 60
            assert name != "list_runs" or (event.limit, event.offset) == (7, 3)


async def test_what_is_cancelled_closed_or_recovers_is_no_failure() -> None:
    """A walk that is left early, a client that is closed, a retry that helps: on_failure isn't called."""
    events: list[FailureEvent] = []

    def reply(request: Request) -> Reply:
        if "/stalls/" in request.target:
            return Stall()
        return pages_of(500)(request) if request.number else response(503, {})

    async with serve(reply) as (url, _):
        client = Client(url, KEY, retry=QUICK, on_failure=events.append)
        async for _run in client.iter_runs("job", page_size=5):
            break
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.count_runs("stalls")
        stalled = asyncio.create_task(client.count_runs("stalls"))
        await asyncio.sleep(0.02)
        await client.aclose()
        with pytest.raises(tfruns.ClientClosedError):
            await stalled
        with pytest.raises(tfruns.ClientClosedError):
            await client.count_runs("job")
    assert events == []


async def test_each_job_that_is_skipped_is_one_failure() -> None:
    """Where the walk goes on without a job, the hook is how one hears of it at once."""
    events: list[FailureEvent] = []
    async with serve(lambda r: REFUSED if "/bad" in r.target else pages_of(3)(r)) as (url, _):
        async with Client(url, KEY, on_failure=events.append) as client:
            runs = client.iter_runs_for(["a", "bad-1", "b", "bad-2"], on_error="skip")
            assert len([run async for _, run in runs]) == 6
    assert sorted(event.job_id for event in events) == ["bad-1", "bad-2"]


async def test_what_a_hook_raises_ends_the_walk_and_leaves_the_client_well() -> None:
    def fails(event: object) -> None:
        raise LookupError("a bug in the hook")

    for name in ("on_request", "on_response", "on_retry", "on_failure"):
        replies = {"on_retry": [response(500, {})], "on_failure": [REFUSED]}.get(name, [])
        async with serve(lambda r, replies=replies: replies.pop() if replies else pages_of(1)(r)) as (url, _):  # type: ignore[misc]
            async with Client(url, KEY, retry=QUICK, max_concurrency=1, **{name: fails}) as client:  # type: ignore[arg-type]
                with pytest.raises(LookupError, match="a bug in the hook"):
                    await client.iter_runs("job").collect()
                assert client.stats().in_flight == 0
                if replies == [] and name in ("on_retry", "on_failure"):
                    assert await client.count_runs("job") == 1


@pytest.mark.parametrize("error", [OSError("disk full"), TimeoutError("late"), ValueError("AUTH"), LookupError("bug")])
@pytest.mark.parametrize("name", ["on_request", "on_response"])
async def test_what_a_hook_raises_is_never_taken_for_a_failure_of_the_network(name: str, error: Exception) -> None:
    def fails(event: object) -> None:
        raise error

    async with serve(pages_of(1)) as (url, requests), Client(url, KEY, retry=QUICK, **{name: fails}) as client:  # type: ignore[arg-type]
        with pytest.raises(type(error), match=str(error)):
            await client.count_runs("job")
        assert len(requests) <= 1
        assert client.stats().retries == 0


@pytest.mark.parametrize("error", [StopAsyncIteration, GeneratorExit])
@pytest.mark.parametrize("name", ["on_request", "on_response", "on_retry", "on_failure", "api_key"])
async def test_no_function_of_the_callers_can_end_a_walk_as_if_it_were_whole(
    name: str, error: type[BaseException]
) -> None:
    """Nor the task of one, for which the walk would wait for ever."""

    async def ends(*_: object) -> str:
        raise error

    def end(_: object) -> None:
        raise error

    reply = response(500, {}) if name in ("on_retry", "on_failure") else pages_of(1)
    arguments: dict[str, Any] = {"api_key": KEY, "retry": QUICK, name: ends if name == "api_key" else end}
    async with serve(reply if callable(reply) else lambda _: reply) as (url, _), Client(url, **arguments) as client:
        with pytest.raises(RuntimeError, match=f"a function given to the client raised {error.__name__}"):
            await client.iter_runs("job").collect()
        async with asyncio.timeout(30):
            with pytest.raises(RuntimeError, match=f"a function given to the client raised {error.__name__}"):
                _ = [run async for _, run in client.iter_runs_for(["job"], on_error="skip")]


async def test_stats_count_what_was_sent_received_and_handed_out() -> None:
    def reply(request: Request) -> Reply:
        return response(500, {}) if request.number == 1 else pages_of(25)(request)

    sizes: list[int] = []
    async with serve(reply) as (url, requests):
        client = Client(url, KEY, retry=QUICK, on_response=lambda event: sizes.append(event.size))
        assert client.stats() == tfruns.ClientStats(
            requests=0, retries=0, bytes=0, runs=0, in_flight=0, waiting=0, concurrency=16, rate=None
        )
        async with client:
            assert len(await client.iter_runs("job", page_size=10).collect()) == 25
            await client.list_runs("job", limit=3)
        stats = client.stats()
    assert (stats.requests, stats.retries, stats.runs) == (len(requests), 1, 25 + 3)
    assert stats.bytes == sum(sizes) > 0
    assert stats.in_flight == 0
    assert 1 <= stats.concurrency <= 16


async def test_what_is_under_way_is_counted_while_it_is() -> None:
    async with serve(lambda _: Stall()) as (url, _), Client(url, KEY, retry=NEVER) as client:
        tasks = [asyncio.create_task(client.count_runs(f"job-{n}")) for n in range(20)]
        while client.stats().requests < 16:
            await asyncio.sleep(0.01)
        assert client.stats().in_flight == client.stats().concurrency == 16
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert client.stats().in_flight == 0


async def test_each_response_is_a_debug_record_with_what_a_hook_sees(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tfruns")
    async with serve(pages_of(1)) as (url, _), Client(url, KEY) as client:
        await client.count_runs("job")
    extras = vars(caplog.records[0])
    assert (extras["job_id"], extras["offset"], extras["attempt"], extras["status_code"]) == ("job", 0, 1, 200)
    assert KEY not in caplog.text


async def test_no_more_requests_are_sent_in_a_second_than_max_rate() -> None:
    times: list[float] = []
    async with serve(pages_of(1)) as (url, _):
        async with Client(url, KEY, max_rate=50, on_request=lambda _: times.append(time.monotonic())) as client:
            await asyncio.gather(*(client.count_runs(f"job-{n}") for n in range(30)))
    assert len(times) == 30
    assert all(times[later] - times[0] >= later / 50 - 0.06 for later in range(30))


async def test_trace_configs_see_each_request() -> None:
    seen: list[str] = []

    async def on_start(_: object, __: object, params: aiohttp.TraceRequestStartParams) -> None:
        seen.append(params.url.path)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(on_start)
    async with serve(pages_of(1)) as (url, _), Client(url, KEY, trace_configs=[config]) as client:
        await client.count_runs("job")
    assert seen == ["/api/svc/v1/jobs/job/runs"]


async def test_a_call_has_its_own_timeout_retries_and_headers() -> None:
    def reply(request: Request) -> Reply:
        return (
            Stall()
            if "/slow/" in request.target
            else response(500, {})
            if "/ill/" in request.target
            else pages_of(3)(request)
        )

    async with serve(reply) as (url, requests):
        async with Client(url, KEY, retry=QUICK, headers={"X-Team": "ours", "X-Kept": "yes"}) as client:
            for request_runs in (client.count_runs, client.list_runs):
                with pytest.raises(tfruns.APITimeoutError, match=r"within 0\.05 s"):
                    await request_runs("slow", timeout=0.05, retry=NEVER)
            with pytest.raises(tfruns.APITimeoutError, match=r"within 0\.05 s"):
                await client.iter_runs("slow", timeout=0.05, retry=NEVER).collect()
            with pytest.raises(tfruns.APITimeoutError, match=r"within 0\.05 s"):
                _ = [run async for _, run in client.iter_runs_for(["slow"], timeout=0.05, retry=NEVER)]
            sent = len(requests)
            with pytest.raises(tfruns.InternalServerError):
                await client.count_runs("ill", retry=RetryPolicy(max_attempts=3, initial_backoff=0))
            assert len(requests) == sent + 3
            await client.iter_runs("job", headers={"x-team": "theirs"}).collect()
            assert (requests[-1].headers["x-team"], requests[-1].headers["x-kept"]) == ("theirs", "yes")
            await client.count_runs("job")
            assert (requests[-1].headers["x-team"], requests[-1].headers["x-kept"]) == ("ours", "yes")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"timeout": 0}, ValueError, "timeout must be a number of seconds above 0"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds"),
        ({"retry": 3}, TypeError, "retry must be a RetryPolicy"),
        ({"headers": {"Authorization": "Bearer x"}}, ValueError, "made of api_key"),
        ({"headers": {"X-Bad": "a\r\nb"}}, ValueError, "can't be sent"),
    ],
)
async def test_wrong_options_of_a_call_are_refused_at_the_call(
    arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    async with Client("http://127.0.0.1:1", KEY) as client:
        with pytest.raises(error, match=says):
            client.iter_runs("job", **arguments)
        with pytest.raises(error, match=says):
            client.iter_runs_for(["job"], **arguments)
        with pytest.raises(error, match=says):
            await client.count_runs("job", **arguments)


class AsyncHook:
    async def __call__(self, event: object) -> None:
        pass


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"max_rate": 0}, ValueError, "max_rate must be requests a second"),
        ({"max_rate": float("nan")}, ValueError, "max_rate must be requests a second"),
        ({"max_rate": True}, TypeError, "max_rate must be requests a second"),
        ({"on_request": 5}, TypeError, "on_request must be a function"),
        ({"on_response": asyncio.sleep}, TypeError, "on_response must be a plain function"),
        ({"on_failure": AsyncHook()}, TypeError, "on_failure must be a plain function"),
        ({"trace_configs": [5]}, TypeError, "trace_configs must be"),
        ({"trace_configs": 5}, TypeError, "trace_configs must be a sequence, got 5"),
        ({"allow_http": "no"}, TypeError, "allow_http must be True or False, got 'no'"),
    ],
)
def test_wrong_arguments_of_a_client_are_refused(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Client("http://127.0.0.1:1", KEY, **arguments)


async def test_trace_configs_beside_a_session_of_the_callers_are_refused() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ValueError, match="give yours to your"):
            Client("http://127.0.0.1:1", KEY, session=session, trace_configs=[aiohttp.TraceConfig()])
