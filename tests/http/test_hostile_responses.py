"""Answers as a hostile or broken server would make them: a typed error or what is documented, and no harm to memory."""

import gzip
import importlib
import json
import sys
import tracemalloc
import zlib
from typing import Any

import pytest

import tfruns
from tests.support.hostile import Request, page, response, run, serve
from tfruns import Client, RetryPolicy

KEY = "tfy-secret-key-1234567890"
NEVER = RetryPolicy(max_attempts=1)
GOOD = json.dumps(page([run(0), run(1)])).encode()


async def collect(data: bytes, status: int = 200, **headers: str) -> tuple[tfruns.JobRun, ...]:
    """The result of that response."""
    async with serve(lambda _: response(status, data, **headers)) as (url, _):
        async with Client(url, KEY, retry=NEVER) as client:
            return (await client.list_runs("job", limit=1000)).data


def zeros(megabytes: int, coding: str) -> bytes:
    """So many MB of white space before a page, compressed to next to nothing."""
    blank = b" " * 2**20
    if coding == "br":
        brotli = pytest.importorskip("brotli")
        packer = brotli.Compressor(quality=1)
        return b"".join(packer.process(blank) for _ in range(megabytes)) + packer.process(GOOD) + packer.finish()
    if coding == "zstd":
        module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
        squeezer = importlib.import_module(module).ZstdCompressor()
        return b"".join(squeezer.compress(blank) for _ in range(megabytes)) + squeezer.compress(GOOD) + squeezer.flush()
    deflater = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    return b"".join(deflater.compress(blank) for _ in range(megabytes)) + deflater.compress(GOOD) + deflater.flush()


@pytest.mark.parametrize(
    "coding", ["zstd", *(pytest.param(coding, marks=pytest.mark.slow) for coding in ("gzip", "deflate", "br"))]
)
async def test_a_compression_bomb_is_refused_before_it_fills_the_memory(coding: str) -> None:
    bomb = zeros(1000, coding)
    tracemalloc.start()
    try:
        with pytest.raises((tfruns.DecodeError, tfruns.APIConnectionError)) as caught:
            await collect(bomb, content_encoding=coding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400 * 2**20
    if isinstance(caught.value, tfruns.DecodeError):  # else it is a coding that wasn't accepted, and can't be read here
        assert "longer than 104,857,600 bytes" in str(caught.value)


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", b"this is no gzip"),
        ("gzip", gzip.compress(GOOD)[:-8] + b"\0" * 8),
        ("deflate", zlib.compress(GOOD)[:20]),
        ("br", GOOD),
        ("snappy", GOOD),
        ("gzip, gzip", gzip.compress(gzip.compress(GOOD))),
    ],
)
async def test_a_body_that_isnt_in_its_coding_is_a_typed_error_or_the_page(coding: str, data: bytes) -> None:
    try:
        runs = await collect(data, content_encoding=coding)
    except (tfruns.DecodeError, tfruns.APIConnectionError):
        runs = []  # type: ignore[assignment]
    assert [each.id for each in runs] in ([], ["run-0", "run-1"])


@pytest.mark.parametrize(
    "content_type",
    ["", "text/html", "application/json; charset=utf-16", "text/plain; charset=nonsense", "image/png", "nonsense"],
)
async def test_the_body_counts_whatever_its_type_is_said_to_be(content_type: str) -> None:
    assert len(await collect(GOOD, content_type=content_type)) == 2


def with_run(**fields: Any) -> bytes:
    return json.dumps(page([run(0), run(1, **fields)])).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        GOOD[:-1],
        GOOD + b"{}",
        GOOD.replace(b"1700000000000", b"NaN"),
        GOOD.replace(b"1700000000000", b"Infinity"),
        GOOD.replace(b"1700000000000", b"1" * 5_000),
        GOOD.replace(b"1700000000000", b"1e999"),
        GOOD.replace(b'"run-1"', b"null"),
        GOOD.replace(b'"run-1"', b"17"),
        with_run(status=None),
        with_run(totalRetries="many"),
        b"\xff" + GOOD,
        GOOD.replace(b"run-1", b"run-\xff"),
        b"<html>" + b"x" * 10_000_000,
    ],
    ids=lambda body: repr(body[:30]),
)
async def test_what_is_no_page_is_one_error_that_names_the_job_and_is_short(body: bytes) -> None:
    with pytest.raises(tfruns.DecodeError, match="^job 'job', offset 0: ") as caught:
        await collect(body)
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b'"data"', b'"data": 5, "data"', 1),
        GOOD.replace(b'"name-1"', b'"a", "name": "name-1"'),
        GOOD.replace(b'"name-1"', b'"\\ud800"'),
        GOOD.replace(b'"total": 2', b'"total": 2.0'),
        b"\n\t " + GOOD + b"\r\n",
        json.dumps({**json.loads(GOOD), "more": {"a": [1, {"b": None}]}}).encode(),
    ],
    ids=lambda body: repr(body[:30]),
)
async def test_oddities_that_harm_nothing_are_taken(body: bytes) -> None:
    assert [each.id for each in await collect(body)] == ["run-0", "run-1"]


async def test_strings_of_50_megabytes_are_taken_and_larger_responses_refused() -> None:
    (first, second) = await collect(with_run(command="x" * 50_000_000, error="\U0001f40d"))
    assert (len(second.command), second.error, first.id) == (50_000_000, "\U0001f40d", "run-0")
    with pytest.raises(tfruns.DecodeError, match="longer than"):
        await collect(with_run(command="x" * 110_000_000))


async def test_a_page_of_far_more_runs_than_were_requested_is_taken_whole() -> None:
    rows = [run(number) for number in range(20_000)]
    found = await collect(json.dumps(page(rows)).encode())
    assert [each.id for each in found] == [row["id"] for row in rows]


@pytest.mark.parametrize("order", [[0, 1, 0, 1, 2], [0, 0, 0], [0, 1, 2, 2], [0, 0, 1, 2]])
async def test_runs_that_come_twice_in_a_list_are_yielded_once_or_the_walk_says_that_it_cant_be_made(
    order: list[int],
) -> None:
    def reply(request: Request) -> bytes:
        rows = [run(number) for number in order][request.offset : request.offset + request.limit]
        return response(200, page(rows, len(order)))

    found = []
    async with serve(reply) as (url, _), Client(url, KEY, retry=NEVER) as client:
        try:
            async for each in client.iter_runs("job"):
                found.append(each.id)  # noqa: PERF401  # those before the error count, too
        except tfruns.IncompleteWalkError:
            pass
    assert found == [f"run-{number}" for number in dict.fromkeys(order)]


@pytest.mark.parametrize("status", [201, 202, 203, 204, 206, 226, 300, 304])
async def test_a_success_that_isnt_200_is_an_error_and_never_an_empty_list(status: int) -> None:
    body = b"" if status in (204, 304) else GOOD
    with pytest.raises(tfruns.APIStatusError) as caught:
        await collect(body, status)
    assert caught.value.status_code == status
