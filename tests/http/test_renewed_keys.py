"""A key that is refused (401): what replaces it, how often, and what if there is no other."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tfruns
from tests.support.hostile import Reply, Request, pages_of, response, serve
from tfruns import Client, RetryPolicy
from tfruns._http.credentials import CredentialsFile

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

OLD, NEW = "an-old-key-of-the-file", "a-new-key-of-the-file"
REFUSAL = response(401, {"statusCode": 401, "message": "expired"})
NEVER = RetryPolicy(max_attempts=1)


class ControlPlane:
    """Takes one key at a time, and calls a function when it has refused another."""

    def __init__(self, key: str, runs: int = 1) -> None:
        self.key = key
        self.on_refusal: Callable[[], object] = lambda: None
        self.refused = 0
        self._pages = pages_of(runs)

    def __call__(self, request: Request) -> Reply:
        if request.headers["authorization"] == f"Bearer {self.key}":
            return self._pages(request)
        self.refused += 1
        self.on_refusal()
        return REFUSAL


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One item for each time that the file is read again."""
    found: list[str] = []
    read = CredentialsFile.read

    def counted(path: Path, *, again: bool = False) -> CredentialsFile:
        file = read(path, again=again)
        if again:
            found.append(file.token.value)
        return file

    monkeypatch.setattr(CredentialsFile, "read", counted)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / ".truefoundry" / "credentials.json"
    path.parent.mkdir()
    return path


def content(host: str, key: Any) -> str:
    return json.dumps({"host": host, "access_token": key, "refresh_token": "x"})


async def test_a_walk_goes_on_when_the_file_is_rewritten_under_it(path: Path, reads: list[str]) -> None:
    """Each of the many requests in flight with the old key gets the new one, by one reading of the file."""
    plane = ControlPlane(OLD, runs=300)
    async with serve(plane) as (url, requests):
        path.write_text(content(url, OLD))
        async with Client(retry=NEVER) as client:
            seen = []
            async for run in client.iter_runs("job", page_size=5):
                seen.append(run.id)
                if len(seen) == 20:
                    plane.key = NEW
                    path.write_text(content(url, NEW))
    assert seen == [f"run-{n}" for n in range(300)]
    assert reads == [NEW]
    assert plane.refused >= 1
    assert len(requests) <= 300 / 3 + 2 + plane.refused


async def test_many_jobs_whose_key_is_refused_at_once_read_the_file_once(path: Path, reads: list[str]) -> None:
    """Sixteen requests that are refused together wait for one reading."""
    plane = ControlPlane(NEW)
    together = asyncio.Event()

    async def reply(request: Request) -> Reply:
        if request.number < 16:
            if request.number == 15:
                together.set()
            await together.wait()
        return plane(request)

    async with serve(reply) as (url, _):
        path.write_text(content(url, OLD))
        async with Client(retry=NEVER) as client:
            path.write_text(content(url, NEW))
            assert await asyncio.gather(*(client.count_runs(f"job-{n}") for n in range(16))) == [1] * 16
            assert (reads, plane.refused) == ([NEW], 16)
            plane.key = "a-third-key-of-the-file"
            path.write_text(content(url, plane.key))
            assert await client.count_runs("job") == 1
    assert reads == [NEW, plane.key]


@pytest.mark.parametrize("broken", ["", '{"host": "http', "[", None], ids=repr)
async def test_a_file_that_is_just_being_rewritten_is_read_again_a_moment_later(path: Path, broken: str | None) -> None:
    """At the start, and after a 401, a file that isn't complete is given the time to become so."""
    plane = ControlPlane(NEW)
    async with serve(plane) as (url, _):
        path.write_text(content(url, OLD))

        def rewrite() -> None:
            path.unlink() if broken is None else path.write_text(broken)
            asyncio.get_running_loop().call_later(0.06, path.write_text, content(url, NEW))

        plane.on_refusal = rewrite
        async with Client(retry=NEVER) as client:
            assert await client.count_runs("job") == 1
    assert plane.refused == 1


@pytest.mark.skipif(fcntl is None, reason="the CLI locks files on POSIX alone")
async def test_a_file_under_the_lock_of_the_cli_is_read_when_the_lock_is_released(path: Path) -> None:
    """The token that the CLI is about to replace isn't taken for the new one."""
    plane = ControlPlane(NEW)
    async with serve(plane) as (url, _):
        path.write_text(content(url, OLD))
        with path.with_name("credentials.json.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

            def rewrite() -> None:
                path.write_text(content(url, NEW))
                fcntl.flock(lock, fcntl.LOCK_UN)

            plane.on_refusal = lambda: asyncio.get_running_loop().call_later(0.12, rewrite)
            async with Client(retry=NEVER) as client:
                assert await client.count_runs("job") == 1
    assert plane.refused == 1


@pytest.mark.skipif(fcntl is None, reason="the CLI locks files on POSIX alone")
def test_a_file_that_the_cli_is_writing_is_read_when_it_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes while the file is locked, up to some seconds."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 10:
            path.write_text(content("https://plane.example", NEW))

    monkeypatch.setattr("tfruns._http.credentials.time.sleep", pause)
    path.write_text("{")
    with path.with_name("credentials.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert Client().base_url == "https://plane.example"


@pytest.mark.skipif(fcntl is None, reason="the CLI locks files on POSIX alone")
async def test_a_lock_that_is_never_released_delays_a_request_but_does_not_hold_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CLI that hangs doesn't hang the client."""
    monkeypatch.setattr("tfruns._http.credentials._LOCKED_AT_MOST", 0.1)
    plane = ControlPlane(NEW)
    async with serve(plane) as (url, _):
        path.write_text(content(url, OLD))
        with path.with_name("credentials.json.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            async with Client(retry=NEVER) as client:
                path.write_text(content(url, NEW))
                assert await client.count_runs("job") == 1


@pytest.mark.parametrize(
    ("after", "logged"),
    [
        (lambda url: content(url, OLD), None),
        (lambda _: content("https://other.example", NEW), "is for https://other.example, and its token goes there"),
        (lambda _: json.dumps({"access_token": NEW}), "names no host, so its token goes nowhere"),
        (lambda url: content(url, NEW + "\n"), "holds a newline"),
        (lambda url: content(url, None), "must be a string, not NoneType"),
        (lambda _: "{", "isn't a JSON object"),
        (lambda _: None, "credentials.json is gone"),
    ],
)
async def test_without_another_key_the_refusal_is_raised_and_the_next_request_tries_again(
    after: Callable[[str], str | None], logged: str | None, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that brings no new key for this host changes nothing; once it does, the client is well again."""
    plane = ControlPlane(NEW)
    async with serve(plane) as (url, requests):
        path.write_text(content(url, OLD))
        async with Client(retry=NEVER) as client:
            text = after(url)
            path.unlink() if text is None else path.write_text(text)
            with pytest.raises(tfruns.AuthenticationError, match=r"the key from `access_token` in .* was refused"):
                await client.count_runs("job")
            assert len(requests) == 1
            warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            assert len(warnings) == (logged is not None)
            assert logged is None or logged in warnings[0]
            assert NEW not in caplog.text
            path.write_text(content(url, NEW))
            assert await client.count_runs("job") == 1


async def test_a_log_filter_that_raises_leaves_the_refusal_as_it_is(path: Path) -> None:
    """The filter is the caller's: what it raises takes the place of no error of the server's."""

    def raises(_: logging.LogRecord) -> bool:
        raise ValueError("the filter is broken")

    async with serve(ControlPlane(NEW)) as (url, _):
        path.write_text(content(url, OLD))
        async with Client(retry=NEVER) as client:
            path.unlink()
            logger = logging.getLogger("tfruns")
            logger.addFilter(raises)
            try:
                with pytest.raises(tfruns.AuthenticationError):
                    await client.count_runs("job")
            finally:
                logger.removeFilter(raises)


async def test_a_key_from_the_environment_or_an_argument_is_not_requested_again(
    path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file wasn't the source, it isn't read, not even after a 401."""
    plane = ControlPlane(NEW)
    async with serve(plane) as (url, requests):
        path.write_text(content(url, NEW))
        monkeypatch.setenv("TFY_API_KEY", OLD)
        for arguments in ((url, OLD), (url, None)):
            async with Client(*arguments) as client:
                with pytest.raises(tfruns.AuthenticationError):
                    await client.count_runs("job")
    assert reads == []
    assert len(requests) == 2


async def test_a_key_that_is_mounted_as_a_file_is_followed_by_one_line(tmp_path: Path) -> None:
    """The line that the docstring of `Client` gives."""
    mounted = tmp_path / "key"
    mounted.write_text(OLD + "\n")
    plane = ControlPlane(OLD, runs=100)
    async with serve(plane) as (url, _):
        async with Client(url, api_key=lambda: mounted.read_text().strip(), retry=NEVER) as client:
            seen = 0
            async for _run in client.iter_runs("job", page_size=5):
                seen += 1
                if seen == 10:
                    plane.key = NEW
                    mounted.write_text(NEW + "\n")
    assert seen == 100
    assert "api_key=lambda: Path(" in (Client.__doc__ or "")


@pytest.mark.parametrize("error", [FileNotFoundError("no key"), TimeoutError("late"), LookupError("no such secret")])
async def test_what_the_function_of_the_key_raises_is_raised_as_it_is(error: Exception) -> None:
    """It is no failure of the control plane: it isn't retried, and not reworded as one."""

    def gives() -> str:
        raise error

    failures: list[tfruns.FailureEvent] = []
    async with serve(pages_of(1)) as (url, requests):
        async with Client(url, gives, on_failure=failures.append) as client:
            with pytest.raises(type(error), match=str(error)) as caught:
                await client.count_runs("job")
    assert caught.value is error
    assert requests == []
    assert [(event.error, event.attempts, event.job_id) for event in failures] == [(error, 1, "job")]
