"""Compressed responses: the proxy in front of the service prefers zstd, so the client accepts it without an extra."""

import gzip
import json
import sys
import zlib
from collections.abc import Callable

import pytest

from tests.support.hostile import page, response, run, serve
from tfruns import Client

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("coding", CODINGS)
async def test_each_coding_is_accepted_and_read(coding: str) -> None:
    """The request says that the client accepts it, and a page of several MB comes out as it went in."""
    sent = page([run(n, command="x" * 3_000) for n in range(1_000)])
    body = CODINGS[coding](json.dumps(sent).encode())
    async with serve(lambda _: response(200, body, content_encoding=coding)) as (url, requests):
        async with Client(url, "a-long-enough-key") as client:
            got = await client.list_runs("job", limit=1_000)
    assert coding in requests[0].headers["accept-encoding"].split(", ")
    assert [(each.id, each.command) for each in got.data] == [(each["id"], each["command"]) for each in sent["data"]]
