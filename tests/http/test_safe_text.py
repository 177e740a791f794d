"""What the server sends goes into no error and no log as it is: it can forge no record and drive no terminal."""

import json
import logging
from typing import Any

import pytest

import tfruns
from tests.support.hostile import Raw, Reply, page, response, run, serve
from tfruns import Client, RetryPolicy

KEY = "a-long-enough-key"
EVIL = "a\r\nERROR forged\x1b[2J\x1b]0;title\x07\x00\u202egnp\u2066x\u200b\x85\u2028\u2029\x9b31m\udc80"
TWICE = RetryPolicy(max_attempts=2, initial_backoff=0)


def texts(value: Any) -> list[str]:
    """Every string in plain data."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in texts(one)]
    return [text for one in value for text in texts(one)] if isinstance(value, (list, tuple)) else []


def refusal(status: int) -> bytes:
    body = {"statusCode": status, "message": EVIL, "code": EVIL, "details": [{EVIL: [EVIL, {"x": EVIL}]}]}
    return response(
        status, json.dumps(body).encode(), x_request_id="id\x1b[31m\t7", x_other="\x9b\x85", location="/\x1b[1m"
    )


@pytest.mark.parametrize(
    "reply",
    [
        *[refusal(status) for status in (302, 400, 401, 403, 404, 422, 429, 500, 503)],
        response(403, EVIL.encode("utf-8", "replace")),
        response(200, EVIL.encode("utf-8", "replace")),
        response(200, json.dumps(page([run(0, id=EVIL, status=[EVIL], createdAt=EVIL)])).encode()),
        response(200, json.dumps({"data": EVIL, "pagination": {"total": EVIL}, EVIL: EVIL}).encode()),
        response(200, json.dumps({"data": [EVIL, {EVIL: 1}]}).encode()),
        Raw(b"HTTP/1.1 404 gone\x1b[2Jaway\r\nContent-Length: 0\r\n\r\n"),
        Raw(b"HTTP/1.1 2\x1b[2J00 OK\r\n\r\n"),
        Raw(b"HTTP/1.1 200 OK\r\nContent-Length: \x1b[2J\r\n\r\n"),
        Raw(b"\x1b[2J\x1b[31m\n\n\r\n\r\n"),
        Raw(b"HTTP/1.1 200 OK\r\nX\x1b[2J: 1\r\n\r\n"),
    ],
    ids=lambda reply: repr(getattr(reply, "data", reply))[:30],
)
async def test_errors_and_logs_are_one_printable_line_whatever_the_server_sends(
    reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    """The text of an error, of its causes and attributes, and every record with its extras."""
    caplog.set_level(logging.DEBUG, "tfruns")
    events: list[Any] = []
    async with serve(lambda _: reply) as (url, _):
        async with Client(url, KEY, retry=TWICE, on_response=events.append, on_failure=events.append) as client:
            with pytest.raises(tfruns.APIError) as caught:
                await client.list_runs("job")
    error = caught.value
    shown = [str(error), str(error.__cause__), repr(error.__cause__)]
    if isinstance(error, tfruns.APIStatusError):
        shown += texts([error.message, error.code, error.details, error.request_id, [*error.headers.items()]])
    if isinstance(error, tfruns.DecodeError):
        shown += [text for problem in error.problems for text in (str(problem), problem.field, problem.reason)]
    shown += [record.getMessage() for record in caplog.records]
    shown += [str(getattr(record, "request_id", "")) for record in caplog.records]
    shown += [str(getattr(event, "request_id", "")) for event in events]
    assert [text for text in shown if not text.isprintable()] == []
    assert len(events) >= 1


async def test_a_readable_message_stays_readable() -> None:
    """Lines become one, and letters of any language stay."""
    body = {"statusCode": 422, "message": "limit:\n\tmuss h\u00f6chstens 1000 sein \u4ee5\u4e0a", "details": [{"n": 1}]}
    async with serve(lambda _: response(422, body)) as (url, _), Client(url, KEY) as client:
        with pytest.raises(tfruns.UnprocessableEntityError) as caught:
            await client.list_runs("job")
    assert caught.value.message == "limit:  muss h\u00f6chstens 1000 sein \u4ee5\u4e0a"
    assert caught.value.details == [{"n": 1}]
