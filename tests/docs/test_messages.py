"""What errors say to whoever gets them: what happened, to which job and where, and what to do next."""

import asyncio
import json
import re
import ssl
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import aiohttp
import pytest
import trustme

import tfruns
from tests.support.cli import invoke
from tests.support.hostile import Raw, Reply, Stall, answer, page, serve
from tests.support.hostile import run as run_of
from tfruns.sandbox import Sandbox

KEY = "tfy-secret-key-1234567890"
ONCE = tfruns.RetryPolicy(max_attempts=1)
TWICE = tfruns.RetryPolicy(max_attempts=2, initial_backoff=0)
RUNS = page([run_of(0)])


async def said(url: str, kind: type[Exception], **arguments: object) -> str:
    """What the error for one page of job `j` says, which must not hold the key."""
    async with tfruns.Client(url, KEY, **{"retry": ONCE} | arguments) as client:  # type: ignore[arg-type]
        with pytest.raises(kind) as caught:
            await client.list_runs("j", limit=10, offset=20)
    text = str(caught.value)
    assert KEY not in text
    return text


@pytest.fixture
def refusal() -> Reply:
    return answer(401, {"statusCode": 401, "message": "no"})


# --- the server's answers ---------------------------------------------------------------------------------------------


async def test_a_refused_key_is_told_by_where_it_came_from(
    refusal: Reply, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with serve(lambda _: refusal) as (url, _):
        monkeypatch.setenv("TFY_HOST", url)
        sources: dict[str, Callable[[], object]] = {
            "the argument api_key": lambda: tfruns.Client(api_key=KEY),
            "the function given as api_key": lambda: tfruns.Client(api_key=lambda: KEY),
            "TFY_API_KEY": lambda: monkeypatch.setenv("TFY_API_KEY", KEY),
        }
        for origin, make in sources.items():
            client = make() or tfruns.Client()
            assert isinstance(client, tfruns.Client)
            async with client:
                with pytest.raises(tfruns.AuthenticationError) as caught:
                    await client.count_runs("j")
            asked = f"(the key from {origin} was refused: is it right, in date, and of {url}?)"
            assert str(caught.value) == f"job 'j', offset 0: 401 Whatever: no {asked}"
        monkeypatch.delenv("TFY_API_KEY")
        folder = tmp_path / ".truefoundry"
        folder.mkdir()
        (folder / "credentials.json").write_text(json.dumps({"host": url, "access_token": KEY}))
        async with tfruns.Client() as client:
            with pytest.raises(tfruns.AuthenticationError, match=r"`access_token` in .*credentials\.json was refused"):
                await client.count_runs("j")


@pytest.mark.parametrize(
    ("status", "kind", "asked"),
    [
        (403, tfruns.PermissionDeniedError, "may the owner of the key from the argument api_key see this job?"),
        (404, tfruns.NotFoundError, "is the job's id right, and {url} its control plane?"),
    ],
)
async def test_a_refusal_says_what_to_look_at(status: int, kind: type[Exception], asked: str) -> None:
    async with serve(lambda _: answer(status, {"statusCode": status, "message": "no"})) as (url, _):
        text = await said(url, kind)
    assert text == f"job 'j', offset 20: {status} Whatever: no ({asked.format(url=url)})"


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (429, tfruns.RateLimitError, "try again later, or send fewer requests at once"),
        (503, tfruns.InternalServerError, "try again later"),
    ],
)
async def test_retries_in_vain_are_counted_with_what_to_do(status: int, kind: type[Exception], advice: str) -> None:
    async with serve(lambda _: answer(status, {"statusCode": status, "message": "busy"})) as (url, _):
        text = await said(url, kind, retry=TWICE)
    assert text == f"job 'j', offset 20: {status} Whatever: busy (after 2 attempts; {advice})"


async def test_an_answer_that_is_not_understood_names_the_field_and_that_the_server_may_be_newer() -> None:
    async with serve(lambda _: answer(200, page([run_of(0, status=5)]))) as (url, _):
        text = await said(url, tfruns.DecodeError)
    assert text == (
        "job 'j', offset 20: the response can't be understood: run 'run-0' at 20: status: expected a string, got 5"
        f" (a newer server may need a newer tfruns than {tfruns.__version__})"
    )


async def test_a_list_that_cannot_be_walked_says_how_far_it_came_and_what_may_help() -> None:
    async with serve(lambda _: answer(200, page([run_of(0)], 50))) as (url, _), tfruns.Client(url, KEY) as client:
        with pytest.raises(tfruns.IncompleteWalkError) as caught:
            await client.iter_runs("j", page_size=10).collect()
    text = str(caught.value)
    assert text.startswith("job 'j': the walk failed after 1 run: the server says there are 50, but ")
    assert text.endswith("or the server contradicts itself: try again, or with larger pages")


# --- no answer --------------------------------------------------------------------------------------------------------


async def test_a_refused_connection_is_told_in_the_words_of_the_system() -> None:
    text = await said("http://127.0.0.1:9", tfruns.APIConnectionError, retry=TWICE)
    assert text == (
        "job 'j', offset 20: no complete response from http://127.0.0.1:9: could not connect: Connection refused"
        " (after 2 attempts; is the host right, and the network in order?)"
    )


async def test_an_unknown_host_is_named() -> None:
    text = await said("https://no-such-host.invalid", tfruns.APIConnectionError)
    assert re.match(
        r"job 'j', offset 20: no complete response from https://no-such-host.invalid: could not connect: .", text
    )


@pytest.mark.parametrize(
    "reply",
    [
        Raw(answer(200, RUNS)[:-9]),
        Raw(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"da'),
    ],
    ids=["length", "chunks"],
)
async def test_an_answer_that_breaks_off_is_told_as_that(reply: Reply) -> None:
    async with serve(lambda _: reply) as (url, _):
        text = await said(url, tfruns.APIConnectionError)
    assert re.fullmatch(
        f"job 'j', offset 20: no complete response from {url}: the response was cut off( or garbled)?", text
    )


async def test_a_timeout_says_how_long_and_which_setting_it_was() -> None:
    async with serve(lambda _: Stall()) as (url, _):
        by_timeout = await said(url, tfruns.APITimeoutError, timeout=0.05, retry=TWICE)
        by_deadline = await said(url, tfruns.APITimeoutError, retry=tfruns.RetryPolicy(deadline=0.05))
    assert by_timeout == (
        f"job 'j', offset 20: no complete response from {url} within 0.05 s, the timeout"
        " (after 2 attempts; a longer timeout or smaller pages may help)"
    )
    assert by_deadline == (
        f"job 'j', offset 20: no complete response from {url} within 0.05 s, what is left of the retry policy's"
        " deadline"
    )


async def _tls(certificate: trustme.LeafCert) -> AsyncGenerator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_private_certificate_is_told_with_the_variable_that_names_its_authority(tmp_path: Path) -> None:
    authority = trustme.CA()
    async for url in _tls(authority.issue_cert("127.0.0.1")):
        text = await said(url, tfruns.APIConnectionError)
        assert "its certificate isn't trusted: unable to get local issuer certificate" in text
        assert text.endswith("(the file of a private CA can be named by SSL_CERT_FILE)")
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        code = "import asyncio, tfruns\nonce = tfruns.RetryPolicy(max_attempts=1)\n"
        code += f"asyncio.run(tfruns.Client({url!r}, 'k', retry=once).count_runs('j'))"
        told = await invoke(command=(sys.executable, "-c", code), SSL_CERT_FILE=str(tmp_path / "ca.pem"))
        assert "the connection was closed" in told.err  # by that server: the certificate holds


async def test_tls_with_a_server_that_has_none_is_told_as_that() -> None:
    async with Sandbox(jobs=1, runs=1) as sandbox:
        text = await said(sandbox.url.replace("http:", "https:"), tfruns.APIConnectionError)
    assert ": TLS failed: " in text
    assert text.endswith("(does it speak plain http?)")


async def test_a_session_that_is_closed_or_of_another_loop_says_what_to_do() -> None:
    async with Sandbox(jobs=1, runs=1) as sandbox:
        async with aiohttp.ClientSession() as session:
            client = tfruns.Client(sandbox.url, sandbox.api_key, session=session)
        with pytest.raises(tfruns.ClientClosedError, match="is closed: keep it open meanwhile"):
            await client.count_runs("j")


# --- in the words of the command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        ("list j", 1, "no host is given: pass --host, set TFY_HOST, or log in with the TrueFoundry CLI (tfy login)"),
        (
            "list j --host https://x.example",
            1,
            "no API key is given: set TFY_API_KEY, or log in with the TrueFoundry CLI (tfy login)",
        ),
        (
            "list j --host x.example",
            2,
            "--host must begin with https:// (or http://), as a URL such as https://acme.truefoundry.cloud does",
        ),
        (
            "wait j r --host http://x.example",
            2,
            "--host is plain http, and anyone on the way could read the API key: use https, or allow it with"
            " --allow-http",
        ),
        ("list .. --host {url}", 2, "JOB can't be '..': in a URL that names another path"),
        ("count j --version-number inf --host {url}", 2, "--version-number must be finite numbers, got inf"),
        ("wait j r --timeout inf --host {url}", 2, "--timeout must be a number of seconds above 0, got inf"),
        (
            "watch j --interval 5 2 --host {url}",
            2,
            "--interval must be the least seconds and then the most, got (5.0, 2.0)",
        ),
        ("sandbox --clock-rate nan", 2, "--clock-rate must be a number from 0 to 1e9, got nan"),
        (
            "sandbox --fault status=9",
            2,
            "Invalid value for '--fault': status must be a whole number from 400 to 599, got 9",
        ),
        (
            "sandbox --rate-limit 0",
            2,
            "Invalid value for '--rate-limit': per_second must be above 0, got 0",
        ),
        (
            "export j -o nowhere/runs.csv --host {url}",
            1,
            "there is no folder {folder} for runs.csv: make it first",
        ),
        (
            "export j -o runs.csv --state state.json --order asc --host {url}",
            2,
            "--state needs the newest runs of any status first: it goes with no --sort-by, --order, --status, --since "
            "or --until",
        ),
    ],
)
async def test_a_complaint_of_the_command_line_speaks_of_its_options(
    line: str, status: int, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    key = {"TFY_API_KEY": KEY} if "{url}" in line else {}
    ended = await invoke(*line.format(url="http://127.0.0.1:9").split(), **key)
    where = f" (see tfruns {line.split()[0]} --help)" if status == 2 else ""
    assert (ended.status, ended.complaint) == (status, f"tfruns: {says.format(folder=tmp_path / 'nowhere')}{where}")


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
