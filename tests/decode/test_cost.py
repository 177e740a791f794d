"""What a page costs, counted and not timed: calls and allocations are the same on any machine, however busy.

The bounds are what was measured when they were set, and a little room. Where one is passed for a good reason, raise it.
"""

import gc
import json
import sys
from types import FrameType
from typing import Any

import pytest

from tests.support.hostile import page, pages_of, run, serve
from tfruns import Client
from tfruns._decode.structure import decode_page

SUBJECT = {"subjectId": "s", "subjectType": "user", "subjectSlug": "jane"}


class Calls:
    """Counts the calls, of Python functions and of C functions, that are made within it."""

    def __init__(self) -> None:
        self.count = 0

    def _seen(self, frame: FrameType, event: str, argument: Any) -> None:
        self.count += event in ("call", "c_call")

    def __enter__(self) -> "Calls":
        gc.disable()  # its callbacks are calls too
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        gc.enable()


def calls_to_decode(count: int) -> int:
    body = json.dumps(page([run(n, triggeredBySubject=SUBJECT) for n in range(count)])).encode()
    decode_page(body, job_id="job", offset=0)  # the first time, hooks are looked up
    with Calls() as calls:
        decode_page(body, job_id="job", offset=0)
    return calls.count


def test_a_run_is_decoded_by_one_call() -> None:
    """Which appends it to the page; everything else happens in C, or in the one loop over the runs."""
    assert calls_to_decode(1000) - calls_to_decode(500) == 500


def test_a_decoded_run_takes_few_allocations() -> None:
    body = json.dumps(page([run(n, triggeredBySubject=SUBJECT) for n in range(1000)])).encode()
    decode_page(body, job_id="job", offset=0)
    before = sys.getallocatedblocks()
    kept = decode_page(body, job_id="job", offset=0)
    blocks = (sys.getallocatedblocks() - before) / len(kept.data)
    # The run, its subject, nine strings and a number: what the server sent, and nothing beside.
    assert blocks <= 13


async def calls_to_walk(count: int, page_size: int) -> int:
    async with serve(pages_of(count)) as (url, requests), Client(url, "key", max_concurrency=1) as client:
        await client.list_runs("job", limit=1)
        with Calls() as calls:
            async for _ in client.iter_runs("job", page_size=page_size):
                pass
        assert len(requests) > count // page_size
        return calls.count


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the count differs between versions of Python")
async def test_a_page_of_a_walk_takes_no_more_calls_than_it_did() -> None:
    """Of the client, aiohttp, the event loop, and the test's own server, which is in the same loop."""
    few, many = await calls_to_walk(100, 10), await calls_to_walk(1000, 10)
    assert (many - few) / 100 <= 1150
