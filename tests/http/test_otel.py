"""Spans and metrics of OpenTelemetry: what each attempt is reported as, and what is never in a report."""

import asyncio
import contextlib
import gc
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tfruns
from tests.support.hostile import Raw, Reply, Request, Stall, pages_of, response, serve
from tfruns.otel import instrument
from tfruns.sandbox import Fault, Sandbox

KEY = "a-long-enough-key"
QUICK = tfruns.RetryPolicy(initial_backoff=0.0)
NAME = "GET /api/svc/v1/jobs/{jobId}/runs"


@attrs.define
class Telemetry:
    """Providers of OpenTelemetry's SDK, and what they have been given."""

    exporter: InMemorySpanExporter = attrs.field(factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = attrs.field(factory=InMemoryMetricReader)
    tracer_provider: TracerProvider = attrs.field(factory=TracerProvider)
    meter_provider: MeterProvider = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meter_provider = MeterProvider([self.reader])

    def instrument(self, client: tfruns.Client) -> None:
        instrument(client, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, in the order of their beginnings."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def attributes(self, name: str) -> list[Any]:
        """One attribute of all spans."""
        return [(span.attributes or {}).get(name) for span in self.spans]

    @property
    def codes(self) -> list[str]:
        return [span.status.status_code.name for span in self.spans]

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data = self.reader.get_metrics_data()
        metrics = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def everything(self) -> str:
        """All that would leave the process, as text."""
        data = self.reader.get_metrics_data()
        return "\n".join([*(span.to_json() for span in self.spans), "" if data is None else data.to_json()])


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(["job"], 250) as sandbox:
        yield sandbox


@asynccontextmanager
async def given_up_once(is_so: Callable[[], bool]) -> AsyncIterator[None]:
    """Cancel the block, but not its task, as soon as something is so."""

    async def watch(limit: asyncio.Timeout) -> None:
        while not is_so():
            await asyncio.sleep(0.01)
        limit.reschedule(0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
            tasks.create_task(watch(limit))
            yield


async def test_each_attempt_is_a_span_with_the_names_of_the_http_conventions(
    sandbox: Sandbox, telemetry: Telemetry
) -> None:
    sandbox.faults.append(Fault(status=503, nth=1))
    async with tfruns.Client(sandbox.url, sandbox.api_key, retry=QUICK) as client:
        telemetry.instrument(client)
        await client.list_runs("job", limit=10, offset=20)
    host, port = sandbox.url.removeprefix("http://").split(":")
    common = {
        "http.request.method": "GET",
        "url.template": "/api/svc/v1/jobs/{jobId}/runs",
        "server.address": host,
        "server.port": int(port),
        "tfruns.job_id": "job",
        "tfruns.offset": 20,
        "tfruns.limit": 10,
    }
    bad, good = telemetry.spans
    assert (bad.name, bad.kind, bad.status.status_code) == (NAME, trace.SpanKind.CLIENT, trace.StatusCode.ERROR)
    assert dict(bad.attributes or {}) == {**common, "http.response.status_code": 503, "error.type": "503"}
    assert (good.name, good.kind, good.status.status_code) == (NAME, trace.SpanKind.CLIENT, trace.StatusCode.UNSET)
    assert dict(good.attributes or {}) == {**common, "http.response.status_code": 200, "http.request.resend_count": 1}
    assert all(not span.events and span.status.description is None for span in (bad, good))
    assert bad.start_time is not None
    assert bad.end_time is not None
    assert good.start_time is not None
    assert bad.start_time < bad.end_time <= good.start_time < (good.end_time or 0)


async def test_metrics_count_attempts_retries_and_runs(sandbox: Sandbox, telemetry: Telemetry) -> None:
    sandbox.faults.append(Fault(status=503, nth=1))
    async with tfruns.Client(sandbox.url, sandbox.api_key, retry=QUICK) as client:
        telemetry.instrument(client)
        assert len(await client.iter_runs("job", page_size=100).collect()) == 250
        requests = client.stats().requests
    durations = {
        point.attributes["http.response.status_code"]: point
        for point in telemetry.points("http.client.request.duration")
    }
    assert {status: point.count for status, point in durations.items()} == {503: 1, 200: requests - 1}
    assert 0 < durations[200].sum < 60
    assert durations[200].explicit_bounds == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    assert "error.type" not in durations[200].attributes
    [exemplar] = durations[503].exemplars  # the span to which this measurement belongs
    assert exemplar.span_id in {span.context.span_id for span in telemetry.spans if span.context}
    assert durations[503].attributes["error.type"] == "503"
    assert not [name for name in durations[503].attributes if name.startswith("tfruns.")]  # as many series as jobs
    [retries] = telemetry.points("tfruns.client.retries")
    assert (retries.value, retries.attributes["error.type"]) == (1, "503")
    [runs] = telemetry.points("tfruns.client.runs")
    assert (runs.value, set(runs.attributes)) == (250, {"server.address", "server.port"})


@pytest.mark.parametrize(
    ("fault", "error", "seconds"),
    [
        (Fault(breaks="stall"), tfruns.APITimeoutError, 0.2),
        (Fault(breaks="reset"), tfruns.APIConnectionError, 60),
        (Fault(breaks="cut"), tfruns.APIConnectionError, 60),
    ],
    ids=["timeout", "reset", "cut"],
)
async def test_an_attempt_without_a_response_has_the_error_s_class_as_its_type(
    fault: Fault, error: type[Exception], seconds: float, sandbox: Sandbox, telemetry: Telemetry
) -> None:
    """Those that are retried as well as the last."""
    sandbox.faults.append(fault)
    retry = tfruns.RetryPolicy(max_attempts=3, initial_backoff=0.0)
    async with tfruns.Client(sandbox.url, sandbox.api_key, retry=retry, timeout=seconds) as client:
        telemetry.instrument(client)
        with pytest.raises(error):
            await client.count_runs("job")
        assert len(telemetry.spans) == 3  # all have ended, though the task lives
    kind = f"{error.__module__}.{error.__qualname__}"
    assert telemetry.codes == ["ERROR"] * 3
    assert telemetry.attributes("error.type") == [kind] * 3
    assert telemetry.attributes("http.request.resend_count") == [None, 1, 2]
    assert telemetry.attributes("http.response.status_code") == [None] * 3
    [duration] = telemetry.points("http.client.request.duration")
    assert (duration.count, duration.attributes["error.type"]) == (3, kind)
    [retries] = telemetry.points("tfruns.client.retries")
    assert retries.value == 2


async def test_a_response_that_is_too_large_ends_its_span_and_one_that_is_no_json_has_ended(
    telemetry: Telemetry,
) -> None:
    """A page that can't be decoded is no failure of HTTP: its span says 200."""
    replies = [response(200, b"x" * 2000), response(200, b"no JSON"), pages_of(1)]
    async with serve(lambda r: replies[r.number] if r.number < 2 else replies[2](r)) as (url, _):  # type: ignore[operator, return-value]
        async with tfruns.Client(url, KEY) as client:
            telemetry.instrument(client)
            for _ in range(2):
                with pytest.raises(tfruns.DecodeError):
                    await client.iter_runs("job", max_response_bytes=1000).collect()
            assert await client.count_runs("job") == 1
    too_large = f"{tfruns.ResponseTooLargeError.__module__}.ResponseTooLargeError"
    assert telemetry.attributes("error.type") == [too_large, None, None]
    assert telemetry.attributes("http.response.status_code") == [None, 200, 200]
    assert telemetry.attributes("http.request.resend_count") == [None] * 3


async def test_a_request_of_a_cancelled_task_ends_as_cancelled_and_not_as_an_error(
    sandbox: Sandbox, telemetry: Telemetry
) -> None:
    sandbox.faults.append(Fault(breaks="stall"))
    async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        telemetry.instrument(client)
        task = asyncio.create_task(client.count_runs("job"))
        while not sandbox.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        [span] = telemetry.spans
    assert (span.attributes or {})["tfruns.cancelled"] is True
    assert telemetry.codes == ["UNSET"]
    assert telemetry.attributes("error.type") == [None]
    assert not telemetry.points("http.client.request.duration")


async def test_a_cancelled_request_s_span_ends_at_once(sandbox: Sandbox, telemetry: Telemetry) -> None:
    """Its task may live on: the span has ended before the next request, and hasn't the time between them."""
    sandbox.faults.append(Fault(breaks="stall", nth=1))
    async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        telemetry.instrument(client)
        async with given_up_once(lambda: bool(sandbox.requests)):
            await client.count_runs("job")
        assert telemetry.attributes("tfruns.cancelled") == [True]
        left = time.time_ns()
        assert telemetry.spans[0].end_time is not None
        assert telemetry.spans[0].end_time <= left
        assert await client.count_runs("job") == 250
    assert telemetry.attributes("tfruns.cancelled") == [True, None]
    assert telemetry.attributes("http.request.resend_count") == [None, None]


async def test_a_client_that_is_closed_ends_the_spans_of_its_requests(sandbox: Sandbox, telemetry: Telemetry) -> None:
    """As cancelled ones, while the task that made them lives on."""
    sandbox.faults.append(Fault(breaks="stall"))
    client = tfruns.Client(sandbox.url, sandbox.api_key)
    telemetry.instrument(client)

    async def close() -> None:
        while not sandbox.requests:
            await asyncio.sleep(0.01)
        await client.aclose()

    closing = asyncio.create_task(close())
    with pytest.raises(tfruns.ClientClosedError):
        await client.count_runs("job")
    assert telemetry.attributes("tfruns.cancelled") == [True]
    await closing


async def test_a_failure_ends_no_span_of_another_page(telemetry: Telemetry) -> None:
    """A walk's pages are decoded in the caller's task, which may have given up a request before."""

    def reply(request: Request) -> Reply:
        return Stall() if "/stalls/" in request.target else response(200, {"data": [{"id": 5}]})

    async with serve(reply) as (url, requests), tfruns.Client(url, KEY) as client:
        telemetry.instrument(client)

        async def walk() -> None:
            async with given_up_once(lambda: bool(requests)):
                await client.count_runs("stalls")
            with pytest.raises(tfruns.DecodeError):
                await client.iter_runs("job").collect()

        await asyncio.create_task(walk())
        await asyncio.sleep(0)
    assert telemetry.attributes("tfruns.cancelled") == [True, None]
    assert telemetry.attributes("error.type") == [None, None]


async def test_a_request_given_up_while_the_key_is_renewed_is_resent_only_for_its_own_page(
    telemetry: Telemetry,
) -> None:
    keys = 0

    async def key() -> str:
        nonlocal keys
        keys += 1
        if keys == 2:  # the renewal
            await asyncio.sleep(3600)
        return KEY

    async with serve(lambda r: pages_of(1)(r) if r.number else response(401, {})) as (url, _):
        async with tfruns.Client(url, key) as client:
            telemetry.instrument(client)
            async with given_up_once(lambda: keys == 2):
                await client.list_runs("job", limit=7)
            await client.list_runs("job", limit=8)
    assert telemetry.attributes("http.response.status_code") == [401, 200]
    assert telemetry.attributes("http.request.resend_count") == [None, None]


async def test_a_walk_that_is_left_leaves_no_span_open(sandbox: Sandbox, telemetry: Telemetry) -> None:
    sandbox.faults.append(Fault(breaks="stall", nth=4))
    async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        telemetry.instrument(client)
        async with contextlib.aclosing(aiter(client.iter_runs("job", page_size=20))) as walk:  # type: ignore[type-var]
            async for _ in walk:
                if client.stats().requests > len(telemetry.spans):  # one is in flight
                    break
        await asyncio.sleep(0)
        assert len(telemetry.spans) == client.stats().requests > 1
    assert True in telemetry.attributes("tfruns.cancelled")
    assert set(telemetry.codes) == {"UNSET"}


async def test_two_requests_for_the_same_page_at_once_have_a_span_each(sandbox: Sandbox, telemetry: Telemetry) -> None:
    """Each task's events end its own span: the one that is refused, or cancelled, isn't the other."""
    sandbox.faults.extend([Fault(latency=0.05), Fault(status=503, nth=1), Fault(breaks="stall", nth=2)])
    tracer = telemetry.tracer_provider.get_tracer("test")
    async with tfruns.Client(sandbox.url, sandbox.api_key, retry=QUICK, timeout=1) as client:
        telemetry.instrument(client)

        async def one(name: str) -> int:
            with tracer.start_as_current_span(name):
                return await client.count_runs("job")

        assert await asyncio.gather(one("a"), one("b")) == [250, 250]  # type: ignore[comparison-overlap]
    parents = {span.context.span_id: span.name for span in telemetry.spans if span.context and span.name != NAME}
    found: dict[str, list[Any]] = {"a": [], "b": []}
    for span in telemetry.spans:
        if span.name == NAME:
            assert span.parent is not None
            found[parents[span.parent.span_id]].append((span.attributes or {}).get("error.type"))
    timeout = f"{tfruns.APITimeoutError.__module__}.APITimeoutError"
    assert sorted(found.values(), key=str) == [["503", None], [timeout, None]]


async def test_a_request_sent_again_with_a_renewed_key_is_a_span_of_its_own(
    sandbox: Sandbox, telemetry: Telemetry
) -> None:
    async with tfruns.Client(sandbox.url, lambda: sandbox.api_key, retry=QUICK) as client:
        telemetry.instrument(client)
        await client.count_runs("job")
        sandbox.new_key()
        await client.count_runs("job")
        await client.count_runs("job")
    assert telemetry.attributes("http.response.status_code") == [200, 401, 200, 200]
    assert telemetry.attributes("http.request.resend_count") == [None, None, 1, None]
    assert telemetry.codes == ["UNSET", "ERROR", "UNSET", "UNSET"]
    assert not telemetry.points("tfruns.client.retries")


async def test_a_request_after_one_that_was_refused_is_no_resend(telemetry: Telemetry) -> None:
    async with serve(lambda _: response(401, {"statusCode": 401, "message": "no"})) as (url, _):
        async with tfruns.Client(url, KEY) as client:
            telemetry.instrument(client)
            for _ in range(2):
                with pytest.raises(tfruns.AuthenticationError):
                    await client.count_runs("job")
    assert telemetry.attributes("http.request.resend_count") == [None, None]


async def test_no_report_holds_the_key_an_address_or_a_query_string(telemetry: Telemetry) -> None:
    """Nor the server's text, which may repeat them: in all ways in which a request can end."""
    email = "ada@example.com"

    def reply(request: Request) -> Reply:
        said = {"statusCode": 422, "message": f"no {email} for {KEY} in {request.target}"}
        ends: list[Reply] = [response(503, said), response(429, said), Raw(b""), Stall(), response(401, said)]
        return ends[request.number] if request.number < len(ends) else response(422, said)

    async with serve(reply) as (url, requests):
        async with tfruns.Client(url, lambda: KEY, retry=QUICK, timeout=0.2) as client:
            telemetry.instrument(client)
            with pytest.raises(tfruns.APIError):
                await client.iter_runs("job", triggered_by=email, search_prefix="secret-prefix").collect()
            with pytest.raises(tfruns.UnprocessableEntityError):
                await client.count_runs("job", triggered_by=email, search_prefix="secret-prefix")
            sent = client.stats().requests
    assert "secret-prefix" in requests[0].target
    reported = telemetry.everything()
    assert len(telemetry.spans) == sent > 4
    assert telemetry.points("http.client.request.duration")
    for secret in (KEY, email, "example.com", "secret-prefix", "triggeredBy", "limit=", "?"):
        assert secret not in reported


async def test_a_span_is_part_of_the_caller_s_trace_also_in_a_walk_s_own_tasks(
    sandbox: Sandbox, telemetry: Telemetry
) -> None:
    tracer = telemetry.tracer_provider.get_tracer("test")
    async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        telemetry.instrument(client)
        with tracer.start_as_current_span("report") as span:
            assert len(await client.iter_runs("job", page_size=20).collect()) == 250
    sent = [one for one in telemetry.spans if one.name == NAME]
    assert len(sent) > 10
    assert {one.parent.span_id for one in sent if one.parent} == {span.get_span_context().span_id}
    assert all(one.parent for one in sent)


async def test_the_client_s_own_hooks_are_called_as_before(sandbox: Sandbox, telemetry: Telemetry) -> None:
    """When one of them raises, the walk ends with that, and the span of its request is left as cancelled."""

    def fails(event: tfruns.ResponseEvent) -> None:
        raise LookupError("a bug in the hook")

    async with tfruns.Client(sandbox.url, sandbox.api_key, on_response=fails) as client:
        telemetry.instrument(client)
        with pytest.raises(LookupError):
            await asyncio.create_task(client.count_runs("job"))
        await asyncio.sleep(0)
    assert telemetry.attributes("tfruns.cancelled") == [True]


async def test_counting_runs_adds_none_to_the_counter(sandbox: Sandbox, telemetry: Telemetry) -> None:
    """The counter has the runs that were yielded: a count yields none, whether the server counts or the client."""
    async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        telemetry.instrument(client)
        assert await client.count_runs("job") == 250
        assert await client.iter_runs("job", offset=50).count() == 200
        assert await client.count_runs("job", created_after=0) == 250
        assert client.stats().runs == 0
        await client.list_runs("job", limit=10)
        assert client.stats().runs == 10
    assert [point.value for point in telemetry.points("tfruns.client.runs")] == [10]


async def test_runs_of_clients_that_are_gone_stay_counted(sandbox: Sandbox, telemetry: Telemetry) -> None:
    """One counter for all clients of a server, which never falls, and keeps no client alive."""
    for number in range(1, 4):
        async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
            telemetry.instrument(client)
            await client.list_runs("job", limit=100)
        del client
        gc.collect()
        [runs] = telemetry.points("tfruns.client.runs")
        assert runs.value == 100 * number
    async with tfruns.Client(sandbox.url, sandbox.api_key) as one, tfruns.Client(sandbox.url, sandbox.api_key) as two:
        telemetry.instrument(one)
        telemetry.instrument(two)
        await one.list_runs("job", limit=10)
        await two.list_runs("job", limit=10)
        [runs] = telemetry.points("tfruns.client.runs")
        assert runs.value == 320


async def test_a_walk_that_outlives_its_client_is_counted_to_its_end(sandbox: Sandbox, telemetry: Telemetry) -> None:
    client = tfruns.Client(sandbox.url, sandbox.api_key)
    telemetry.instrument(client)
    walk = aiter(client.iter_runs("job", page_size=50))
    await anext(walk)
    another = tfruns.Client(sandbox.url, sandbox.api_key)
    close, client = client.aclose, another
    telemetry.instrument(another)  # clients that are gone are forgotten here
    assert len([run async for run in walk]) == 249
    assert [point.value for point in telemetry.points("tfruns.client.runs")] == [250]
    await close()
    await another.aclose()


async def test_a_client_is_instrumented_once(sandbox: Sandbox, telemetry: Telemetry) -> None:
    """A second time would count everything twice, so it is refused, and changes nothing."""
    async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        telemetry.instrument(client)
        with pytest.raises(ValueError, match="is instrumented already: call instrument once for each client"):
            instrument(client)
        await client.count_runs("job")
    assert len(telemetry.spans) == 1
    with pytest.raises(TypeError, match=r"client must be a tfruns\.Client, got 'client'"):
        instrument("client")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["tracer_provider", "meter_provider"])
async def test_a_provider_that_is_none_leaves_the_client_as_it_was(
    sandbox: Sandbox, telemetry: Telemetry, wrong: str
) -> None:
    """So the call can be made again with the right one."""
    async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        with pytest.raises(AttributeError):
            instrument(client, **{wrong: "console"})  # type: ignore[arg-type]
        telemetry.instrument(client)
        await client.count_runs("job")
    assert len(telemetry.spans) == 1


async def test_without_providers_it_reports_to_those_of_the_process() -> None:
    """Also where they are set after the client was instrumented, and for clients on both sides of that.

    What a client did before isn't reported.
    """
    code = """
import asyncio, sys, tfruns, tfruns.otel
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

async def main():
    first = tfruns.Client(*sys.argv[1:])
    tfruns.otel.instrument(first)
    await first.list_runs("job", limit=5)
    exporter, reader, provider = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    second, third = tfruns.Client(*sys.argv[1:]), tfruns.Client(*sys.argv[1:])
    tfruns.otel.instrument(second)
    tfruns.otel.instrument(third, meter_provider=metrics.get_meter_provider())
    for client in (first, second, third):
        await client.list_runs("job", limit=5)
        await client.aclose()
    found = {m.name: m.data.data_points for m in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics}
    print(len(exporter.get_finished_spans()), [point.value for point in found["tfruns.client.runs"]],
          [point.count for point in found["http.client.request.duration"]])

asyncio.run(main())
"""
    with Sandbox(["job"], 10) as sandbox:
        command = [sys.executable, "-W", "error", "-c", code, sandbox.url, sandbox.api_key]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", "3 [15] [3]\n")


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import tfruns; tfruns.Client; import tfruns.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    says = r"ImportError: tfruns.otel needs opentelemetry-api: (uv )?pip install --editable '\.\[otel\]'"
    assert re.fullmatch(says, done.stderr.splitlines()[-1])
