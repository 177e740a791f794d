"""Traces and metrics of a client for OpenTelemetry (extra `otel`): a span for each attempt, a histogram, two counters.

Example:
    >>> import tfruns.otel
    >>> tfruns.otel.instrument(client)
"""

import asyncio
import time
from typing import Any

import attrs
from yarl import URL

from tfruns._checks import checked_kind
from tfruns._extras import install
from tfruns._http.events import FailureEvent, RequestEvent, ResponseEvent, RetryEvent
from tfruns.client import Client
from tfruns.errors import APIStatusError
from tfruns.version import __version__

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError(f"tfruns.otel needs opentelemetry-api: {install('otel')}") from error

__all__ = ["instrument"]

_TEMPLATE = "/api/svc/v1/jobs/{jobId}/runs"
_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


def instrument(
    client: Client,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Report each attempt of the client's requests to OpenTelemetry, from now on.

    The names are those of OpenTelemetry's HTTP conventions. No attribute holds a query string, which may contain e-mail
    addresses, or the text of an error.

    - A CLIENT span for each attempt, from sending it to the last byte of its response. It is an error if the status is
      400 or more, or no complete response has arrived. A span that is cancelled, or ends because the client is closed
      or a hook raises, isn't an error: its attribute `tfruns.cancelled` is true.
    - `http.client.request.duration`: a histogram of seconds, of all attempts but those that are cancelled.
    - `tfruns.client.retries`: a counter of failed attempts that are retried.
    - `tfruns.client.runs`: a counter of the runs yielded.

    Args:
        client: the client. (`opentelemetry-instrumentation-aiohttp-client` would add its own spans to these.)
        tracer_provider: where the spans go; None for the provider of the process.
        meter_provider: where the metrics go; None for the provider of the process.

    Raises:
        TypeError: it isn't a client.
        ValueError: the client is instrumented already: everything would be counted twice.

    Example:
        >>> import tfruns.otel
        >>> async with tfruns.Client() as client:
        ...     tfruns.otel.instrument(client)
        ...     page = await client.list_runs("my-job-id")
    """
    checked_kind(client, "client", "a tfruns.Client", Client)
    hooks = client._transport.hooks  # pyright: ignore[reportPrivateUsage]
    if "on_runs" in hooks:
        raise ValueError(f"{client!r} is instrumented already: call instrument once for each client")
    url = URL(client.base_url)
    server = {"server.address": url.host, "server.port": url.port}
    tracer = trace.get_tracer("tfruns", __version__, tracer_provider)
    meter = metrics.get_meter("tfruns", __version__, meter_provider)
    attempts = _Attempts(server, tracer, meter)
    hooks.add(**{name: getattr(attempts, name) for name in dir(attempts) if name.startswith("on_")})


@attrs.define
class _Attempt:
    """The newest attempt of a page request."""

    span: trace.Span
    resends: int
    began: float = attrs.field(factory=time.monotonic)
    has_ended: bool = False


class _Attempts:
    """The hooks of one client, by their names. The task in which they are called sends the request, and is its key."""

    def __init__(self, server: dict[str, Any], tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._server = server
        self._attributes = {"http.request.method": "GET", "url.template": _TEMPLATE, **server}
        self._tracer = tracer
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        self._retries = meter.create_counter(
            "tfruns.client.retries", unit="{retry}", description="Attempts that failed and are made again."
        )
        self._runs = meter.create_counter("tfruns.client.runs", unit="{run}", description="Runs yielded.")
        self._newest: dict[asyncio.Task[Any] | None, _Attempt] = {}

    def on_request(self, event: RequestEvent) -> None:
        task = asyncio.current_task()
        last = self._newest.get(task)  # an attempt has a second request if the key was renewed, after a 401
        resends = event.attempt - 1 if last is None else last.resends + 1
        attributes = {
            **self._attributes,
            "tfruns.job_id": event.job_id,
            "tfruns.offset": event.offset,
            "tfruns.limit": event.limit,
        }
        if resends:
            attributes["http.request.resend_count"] = resends
        span = self._tracer.start_span(f"GET {_TEMPLATE}", kind=trace.SpanKind.CLIENT, attributes=attributes)
        self._newest[task] = _Attempt(span, resends)

    def on_response(self, event: ResponseEvent) -> None:
        found: dict[str, Any] = {"http.response.status_code": event.status_code}
        if event.status_code >= 400:
            found["error.type"] = str(event.status_code)
        self._end(found)

    def on_retry(self, event: RetryEvent) -> None:
        found = {"error.type": _type_of(event.error)}
        self._retries.add(1, {**self._server, **found})
        self._end(found)

    def on_failure(self, event: FailureEvent) -> None:
        self._end({"error.type": _type_of(event.error)})

    def on_end(self) -> None:
        """The page request is over: an attempt that no event has ended was cancelled."""
        attempt = self._newest.pop(asyncio.current_task(), None)
        if attempt is not None and not attempt.has_ended:
            attempt.span.set_attribute("tfruns.cancelled", True)
            attempt.span.end()

    def on_runs(self, count: int) -> None:
        self._runs.add(count, self._server)

    def _end(self, found: dict[str, Any]) -> None:
        """End the span of the newest attempt, unless a response has ended it."""
        attempt = self._newest.get(asyncio.current_task())
        if attempt is None or attempt.has_ended:
            return
        attempt.has_ended = True
        span, taken = attempt.span, time.monotonic() - attempt.began
        self._duration.record(taken, {**self._attributes, **found}, trace.set_span_in_context(span))
        span.set_attributes(found)
        if "error.type" in found:
            span.set_status(trace.StatusCode.ERROR)
        span.end()


def _type_of(error: Exception) -> str:
    """The `error.type` of the conventions: the status, or the class of the error."""
    if isinstance(error, APIStatusError):
        return str(error.status_code)
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
