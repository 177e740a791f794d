"""What errors say to whoever gets them: what happened, to which job and where, and what to do next."""

import asyncio
import json
import re
import ssl
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
import trustme

import tfruns
from tests.support.cli import invoke, invoke_process
from tests.support.hostile import Raw, Reply, Stall, page, response, serve
from tests.support.hostile import run as run_of
from tfruns.sandbox import Sandbox

KEY = "tfy-secret-key-1234567890"
ONCE = tfruns.RetryPolicy(max_attempts=1)
TWICE = tfruns.RetryPolicy(max_attempts=2, initial_backoff=0)
RUNS = page([run_of(0)])
Error = TypeVar("Error", bound=Exception)


async def failed(url: str, kind: type[Error], **arguments: Any) -> Error:
    """The error for one page of job `j`, whose text must not hold the key."""
    async with tfruns.Client(url, KEY, **{"retry": ONCE} | arguments) as client:
        with pytest.raises(kind) as caught:
            await client.list_runs("j", limit=10, offset=20)
    assert KEY not in str(caught.value)
    return caught.value


# --- the server's responses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "arguments", "environment"),
    [
        ("the argument api_key", {"api_key": KEY}, {}),
        ("the function given as api_key", {"api_key": lambda: KEY}, {}),
        ("TFY_API_KEY", {}, {"TFY_API_KEY": KEY}),
        ("credentials.json", {}, {}),
    ],
)
async def test_a_refused_key_is_named_by_where_it_came_from(
    origin: str, arguments: dict[str, Any], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with serve(lambda _: response(401, {"statusCode": 401, "message": "no"})) as (url, _):
        folder = tmp_path / ".truefoundry"
        folder.mkdir()
        (folder / "credentials.json").write_text(json.dumps({"host": url, "access_token": KEY}))
        for name, value in {"TFY_HOST": url, **environment}.items():
            monkeypatch.setenv(name, value)
        async with tfruns.Client(**arguments) as client:
            with pytest.raises(tfruns.AuthenticationError) as caught:
                await client.count_runs("j")
    assert origin in str(caught.value)
    assert (caught.value.status_code, caught.value.message, caught.value.job_id) == (401, "no", "j")


@pytest.mark.parametrize(
    ("status", "kind", "helps"),
    [
        (403, tfruns.PermissionDeniedError, "may the owner of the key from the argument api_key see this job?"),
        (404, tfruns.NotFoundError, "is the job's id right"),
        (429, tfruns.RateLimitError, "after 2 attempts; try again later, or send fewer requests at once"),
        (503, tfruns.InternalServerError, "after 2 attempts; try again later"),
    ],
)
async def test_a_refusal_says_what_may_help(status: int, kind: type[tfruns.APIStatusError], helps: str) -> None:
    async with serve(lambda _: response(status, {"statusCode": status, "message": "no"})) as (url, _):
        error = await failed(url, kind, retry=TWICE)
    assert helps in str(error)
    assert (error.status_code, error.message, error.job_id, error.offset) == (status, "no", "j", 20)


async def test_a_response_that_is_not_understood_names_the_field_and_that_the_server_may_be_newer() -> None:
    async with serve(lambda _: response(200, page([run_of(0, status=5)]))) as (url, _):
        error = await failed(url, tfruns.DecodeError)
    assert "status: expected a string, got 5" in str(error)
    assert "a newer server may need a newer tfruns" in str(error)
    assert [problem.field for problem in error.problems] == ["status"]


async def test_a_list_that_cannot_be_walked_says_how_far_it_came_and_what_may_help() -> None:
    async with serve(lambda _: response(200, page([run_of(0)], 50))) as (url, _), tfruns.Client(url, KEY) as client:
        with pytest.raises(tfruns.IncompleteWalkError, match="try again, or with larger pages") as caught:
            await client.iter_runs("j", page_size=10).collect()
    assert (caught.value.job_id, caught.value.seen) == ("j", 1)


# --- no response ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9", "could not connect: Connection refused"),
        ("https://no-such-host.invalid", "could not connect: "),
    ],
)
async def test_a_connection_that_fails_names_the_host_and_the_systems_reason(url: str, says: str) -> None:
    error = await failed(url, tfruns.APIConnectionError, retry=TWICE)
    assert f"{url}: {says}" in str(error)
    assert (error.job_id, error.offset) == ("j", 20)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Raw(response(200, RUNS)[:-9]), ""),
        (
            Raw(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"da'),
            " or garbled: Not enough data to satisfy transfer length header",
        ),
        (response(200, RUNS, content_encoding="gzip"), " or garbled: Can not decode content-encoding: gzip"),
    ],
    ids=["length", "chunks", "coding"],
)
async def test_a_response_that_breaks_off_is_named_as_that(reply: Reply, says: str) -> None:
    """And what can't be unpacked isn't a 400 of the server, as aiohttp's text has it."""
    async with serve(lambda _: reply) as (url, _):
        error = await failed(url, tfruns.APIConnectionError)
    assert f"the response was cut off{says} (" in f"{error} ("
    assert "400" not in str(error)


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"timeout": 0.05}, "within 0.05 s, the timeout"),
        ({"retry": tfruns.RetryPolicy(deadline=0.05)}, "the retry policy's deadline"),
    ],
)
async def test_a_timeout_says_which_setting_it_was(arguments: dict[str, Any], setting: str) -> None:
    async with serve(lambda _: Stall()) as (url, _):
        error = await failed(url, tfruns.APITimeoutError, **arguments)
    assert setting in str(error)


async def _tls(certificate: trustme.LeafCert) -> AsyncGenerator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_private_certificate_is_reported_with_the_variable_that_names_its_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    authority = trustme.CA()
    async for url in _tls(authority.issue_cert("127.0.0.1")):
        error = await failed(url, tfruns.APIConnectionError)
        assert "its certificate isn't trusted" in str(error)
        assert "the file of a private CA can be named by SSL_CERT_FILE" in str(error)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        code = "import asyncio, tfruns\nonce = tfruns.RetryPolicy(max_attempts=1)\n"
        code += f"asyncio.run(tfruns.Client({url!r}, 'k', retry=once).count_runs('j'))"
        ended = await invoke_process(command=(sys.executable, "-c", code), SSL_CERT_FILE=str(tmp_path / "ca.pem"))
        assert "the connection was closed" in ended.err  # by that server: the certificate holds


async def test_tls_with_a_server_that_has_none_is_reported_as_that() -> None:
    async with Sandbox(jobs=1, runs=1) as sandbox:
        error = await failed(sandbox.url.replace("http:", "https:"), tfruns.APIConnectionError)
    assert "TLS failed" in str(error)
    assert "does it speak plain http?" in str(error)


async def test_a_session_that_is_closed_or_of_another_loop_says_what_to_do() -> None:
    async with Sandbox(jobs=1, runs=1) as sandbox:
        async with aiohttp.ClientSession() as session:
            client = tfruns.Client(sandbox.url, sandbox.api_key, session=session)
        with pytest.raises(tfruns.ClientClosedError, match="is closed: keep it open meanwhile"):
            await client.count_runs("j")


# --- in the words of the command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "helps"),
    [
        ("list j", 1, "pass --host, set TFY_HOST, or log in"),
        ("list j --host https://x.example", 1, "set TFY_API_KEY, or log in"),
        ("list j --host x.example", 2, "--host must begin with https:// (or http://)"),
        ("wait j r --host http://x.example", 2, "use https, or allow it with --allow-http"),
        ("list .. --host {url}", 2, "JOB can't be '..'"),
        ("count j --version-number inf --host {url}", 2, "--version-number must be finite numbers, got inf"),
        ("wait j r --timeout inf --host {url}", 2, "--timeout must be a number of seconds above 0, got inf"),
        ("watch j --interval 5 2 --host {url}", 2, "--interval must be the least seconds and then the most"),
        ("sandbox --clock-rate nan", 2, "--clock-rate must be a number from 0 to 1e9, got nan"),
        ("sandbox --fault status=9", 2, "status must be a whole number from 400 to 599, got 9"),
        ("sandbox --rate-limit 0", 2, "per_second must be above 0, got 0"),
        ("export j -o nowhere/runs.csv --host {url}", 1, "make it first"),
        ("export j -o runs.csv --state state.json --order asc --host {url}", 2, "goes with no --sort-by, --order"),
    ],
)
async def test_a_complaint_of_the_command_line_speaks_of_its_options(
    line: str, status: int, helps: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    key = {"TFY_API_KEY": KEY} if "{url}" in line else {}
    ended = await invoke(*line.format(url="http://127.0.0.1:9").split(), **key)
    assert ended.status == status
    assert helps in ended.complaint
    assert (f"(see tfruns {line.split()[0]} --help)" in ended.complaint) == (status == 2)


async def test_no_complaint_of_the_command_line_names_an_argument_of_python() -> None:
    async with Sandbox(jobs=["j"], runs=3) as sandbox:
        commands = [
            (*command.split(), "--host", host)
            for command in ("list j", "count j", "watch j", "wait j r", "export j -o runs.csv")
            for host in (
                "",
                " ",
                "x.example",
                "https://",
                "https://u:p@x",
                "https://x?y",
                "http://x.example",
                "ftp://x",
            )
        ]
        ends = await asyncio.gather(*(invoke(*words, TFY_API_KEY=sandbox.api_key) for words in commands[::5]))
    for ended in ends:
        assert ended.status == 2
        assert "--host" in ended.complaint
        assert not re.search(r"base_url|api_key|allow_http|Client", ended.complaint)
