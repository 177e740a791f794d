"""The key goes to its control plane and nowhere else: not over the wire to others, and into no text."""

import asyncio
import logging
import os
import ssl
import sys
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trustme

import tfruns
from tests.support.hostile import Raw, Reply, Request, page, pages_of, response, run, serve
from tfruns import Client, RetryPolicy
from tfruns._http.secret import Secret

KEY = "tfy-secret-key-1234567890"
NEVER = RetryPolicy(max_attempts=1)
GOOD = response(200, page([run(0)]))


@asynccontextmanager
async def over_tls(authority: trustme.CA, *names: str) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """An https server with a certificate for these names: gives its port, and the heads of requests as they come."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    heads: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(GOOD)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        await asyncio.sleep(0.05)  # the connections' ends are seen


async def test_a_certificate_that_nobody_vouches_for_is_refused_before_the_key_is_sent() -> None:
    async with over_tls(trustme.CA(), "localhost") as (port, heads):
        async with Client(f"https://localhost:{port}", KEY, retry=RetryPolicy(initial_backoff=0)) as client:
            with pytest.raises(tfruns.APIConnectionError, match="certificate") as caught:
                await client.count_runs("job")
    assert heads == []
    assert caught.value.attempts == 1


async def test_a_certificate_of_ones_own_authority_is_taken_through_ones_own_session() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with over_tls(authority, "localhost") as (port, heads):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            async with Client(f"https://localhost:{port}", KEY, session=session) as client:
                assert await client.count_runs("job") == 1
            async with Client(f"https://127.0.0.1:{port}", KEY, session=session, retry=NEVER) as client:
                with pytest.raises(tfruns.APIConnectionError, match="certificate"):
                    await client.count_runs("job")
    assert [KEY.encode() in head for head in heads] == [True]


async def test_an_authority_named_by_ssl_cert_file_is_taken(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    code = "import asyncio, sys, tfruns\nasync def main():\n  async with tfruns.Client() as client:\n"
    code += "    print(await client.count_runs('job'))\nasyncio.run(main())"
    async with over_tls(authority, "localhost") as (port, _):
        env = {"TFY_HOST": f"https://localhost:{port}", "TFY_API_KEY": KEY, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, env={**os.environ, **env}, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"1\n")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_host_port_or_scheme_never_gets_the_key(status: int) -> None:
    async with serve(lambda _: GOOD) as (other, stolen):
        port = other.rsplit(":", 1)[1]
        for location in (other, f"http://localhost:{port}/x", f"//127.0.0.1:{port}/y", other.replace("http", "https")):
            async with serve(lambda _, to=location: response(status, {}, location=to)) as (url, _):  # type: ignore[misc]
                async with Client(url, KEY) as client:
                    with pytest.raises(tfruns.APIStatusError, match="redirects") as caught:
                        await client.count_runs("job")
            assert caught.value.status_code == status
        assert stolen == []


async def test_an_https_server_that_redirects_to_http_never_makes_the_key_go_in_the_open() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with serve(lambda _: GOOD) as (plain, stolen):
        server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(server_context)

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response(302, {}, location=plain))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(redirect, "127.0.0.1", 0, ssl=server_context)
        port = server.sockets[0].getsockname()[1]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            async with Client(f"https://localhost:{port}", KEY, session=session) as client:
                with pytest.raises(tfruns.APIStatusError, match="redirects"):
                    await client.count_runs("job")
        server.close()
    assert stolen == []


Respond = Callable[[Request], Reply | Awaitable[Reply]]


def echo(request: Request) -> Reply:
    """A server that shows what it was sent, as some do while debugging."""
    sent = {"statusCode": 500, "message": f"got {request.headers}", "details": [{"headers": request.headers}]}
    return response(500, sent, x_request_id=request.headers["authorization"])


@pytest.mark.parametrize(
    "reply",
    [
        echo,
        lambda _: response(401, {"statusCode": 401, "message": f"the key {KEY} has expired"}),
        lambda _: Raw(f"HTTP/1.1 200 {KEY}\r\nX: {KEY}\r\nContent-Length: {KEY}\r\n\r\n".encode()),
        lambda _: Raw(b"", reset=True),
    ],
)
async def test_no_log_no_error_and_no_traceback_with_its_variables_shows_the_key(
    reply: Respond, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def failure(url: str) -> tfruns.APIError:
        retry = RetryPolicy(max_attempts=2, initial_backoff=0)
        async with Client(url, KEY, retry=retry) as client:
            with pytest.raises(tfruns.APIError) as caught:
                await client.iter_runs("job").collect()
        return caught.value

    async with serve(reply) as (url, _):
        error = await failure(url)
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    text = "".join(shown.format()) + repr(error) + repr(vars(error)) + caplog.text
    text += "".join(repr(vars(record)) for record in caplog.records)
    found = text.find("tfy-secret")
    assert found < 0, text[max(0, found - 200) : found]


@pytest.mark.parametrize("job_id", ["a\r\nX-Evil: 1", "a b", "../../v1/keys", "a?x=1", "a#b", "a%0d%0aX: 1"])
async def test_nothing_in_a_job_id_or_a_filter_gets_out_of_its_place_in_the_request(job_id: str) -> None:
    async with serve(pages_of(0)) as (url, requests), Client(url, KEY) as client:
        await client.count_runs(job_id, search_prefix="x\r\nY: 1&limit=9", triggered_by="a&b=c#d")
    path, _, query = requests[0].target.partition("?")
    assert path.startswith("/api/svc/v1/jobs/")
    assert path.endswith("/runs")
    assert path.count("/") == 6
    assert query.count("&") == 3
    assert "x-evil" not in requests[0].headers


async def test_a_proxy_from_the_environment_is_used_when_it_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(lambda _: GOOD) as (proxy, seen):
        monkeypatch.setenv("http_proxy", proxy)
        async with aiohttp.ClientSession(trust_env=True) as session:
            async with Client("http://control-plane.example", KEY, session=session, allow_http=True) as client:
                assert await client.count_runs("job") == 1
        assert seen[0].target.startswith("http://control-plane.example/api/svc/v1/jobs/job/runs?")
        async with Client("http://control-plane.invalid", KEY, allow_http=True, retry=NEVER) as client:
            with pytest.raises(tfruns.APIConnectionError, match="could not connect"):
                await client.count_runs("job")
        assert len(seen) == 1


async def test_a_netrc_never_takes_the_place_of_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with serve(lambda _: GOOD) as (url, seen), aiohttp.ClientSession(trust_env=True) as session:
        async with Client(url, KEY, session=session, retry=NEVER) as client:
            with pytest.raises(tfruns.ConfigurationError, match=r"the netrc file has a login for .*127\.0\.0\.1"):
                await client.count_runs("job")
        assert seen == []
        netrc.write_text("machine other.example login someone password else\n")
        async with Client(url, KEY, session=session, retry=NEVER) as client:
            assert await client.count_runs("job") == 1
    assert [request.headers["authorization"] for request in seen] == [f"Bearer {KEY}"]


async def test_an_error_of_the_callers_is_no_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine other.example login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    async def fails(*_: object) -> None:
        raise ValueError("a bug")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(fails)
    async with aiohttp.ClientSession(trust_env=True, trace_configs=[trace]) as session:
        async with Client("http://127.0.0.1:9", KEY, session=session, retry=NEVER) as client:
            with pytest.raises(ValueError, match="a bug"):
                await client.count_runs("job")


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"X-Key": f"{KEY}\n"}, [("Authorization", KEY)], {"X-Key": KEY.encode()}],
    ids=["authorization", "newline", "list", "bytes"],
)
def test_a_key_among_the_headers_is_refused_and_not_shown(headers: object) -> None:
    hidden = Secret(headers)
    del headers
    with pytest.raises((TypeError, ValueError)) as caught:
        Client("https://a.example", "another-key", headers=hidden.value)
    own_frame = caught.value.__traceback__
    assert own_frame is not None
    caught.value.__traceback__ = own_frame.tb_next  # ours alone: pytest keeps the parameters in the test's
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert KEY not in "".join(shown.format())
