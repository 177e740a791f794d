"""The key is in nothing that shows an error: for every way a call can fail, and every way to look at it."""

import asyncio
import json
import logging
import math
import os
import pickle
import pprint
import ssl
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from rich.traceback import Traceback

import tfruns
from tests.support.failures import KEY, WAYS, fragments
from tfruns import Client
from tfruns._http.responses import connection_error
from tfruns._http.secret import Redactor, Secret, chain, make_safe
from tfruns.query import PageRequest, RunFilter


def _frames(error: BaseException) -> Iterator[str]:
    """Every variable of every frame that the error leads to, contexts that are suppressed included."""
    for one in chain(error):
        yield repr(vars(one))
        for frame, _line in traceback.walk_tb(one.__traceback__):
            for name, value in frame.f_locals.items():
                try:
                    yield f"{frame.f_code.co_qualname}: {name} = {value!r} {pprint.pformat(value)}"
                except Exception as broken:
                    raise AssertionError(f"{name} in {frame.f_code.co_qualname} has no repr: {broken!r}") from broken


def _pickled(error: BaseException) -> str:
    texts = []
    for one in chain(error):
        try:
            texts.append(pickle.dumps(one).decode("latin-1"))
        except Exception as refusal:
            texts.append(str(refusal))
    return "".join(texts)


def _rich(error: BaseException) -> str:
    """What rich shows of variables, before it lays them out and colours the code around them, which takes long."""
    found = Traceback.extract(type(error), error, error.__traceback__, show_locals=True)
    nodes = [node for stack in found.stacks for frame in stack.frames for node in (frame.locals or {}).values()]
    return "\n".join([*(f"{stack.exc_type}: {stack.exc_value}" for stack in found.stacks), *map(str, nodes)])


LOOKS: dict[str, Callable[[BaseException], str]] = {
    "str": str,
    "repr": repr,
    "attributes": lambda error: repr([(one, vars(one), one.args) for one in chain(error)]),
    "notes": lambda error: str([getattr(one, "__notes__", ()) for one in chain(error)]),
    "pickle": _pickled,
    "traceback": lambda error: "".join(traceback.format_exception(error)),
    "captured locals": lambda error: "".join(
        traceback.TracebackException.from_exception(error, capture_locals=True).format()
    ),
    "frames": lambda error: "\n".join(_frames(error)),
    "rich": _rich,
}


@pytest.mark.usefixtures("tmp_path")  # a home that is there: some ways write a file of credentials
@pytest.mark.parametrize("name", WAYS)
async def test_the_key_is_in_nothing_that_shows_the_error(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Logs of ours, of aiohttp and of asyncio's debug mode, texts, pickles, and the variables of all frames."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    error = await WAYS[name]()
    for look, show in LOOKS.items():
        assert fragments(show(error)) == [], look
    logs = caplog.text + "".join(f"{vars(record)}" for record in caplog.records)
    assert fragments(logs) == []


def test_there_are_all_these_ways() -> None:
    """The table doesn't shrink by accident."""
    assert len(WAYS) >= 100


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_sentry_as_it_comes_gets_nothing_of_the_key(every: int, tmp_path: Path) -> None:
    """In a process of its own: it patches logging, aiohttp and more."""
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.support.with_sentry", str(every)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["leaks"] == {}
    assert report["errors"] == math.ceil((len(WAYS) - 1) / every)
    assert report["with variables"] > 100


@pytest.mark.parametrize("is_in_group", [False, True])
async def test_no_frame_of_the_ssl_module_stays(is_in_group: bool) -> None:
    """It holds the plain text that was to be encrypted; the error may stand in a group, as those of a task group do."""
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="a.example")
    with pytest.raises(ssl.SSLError) as caught:
        tls.write(KEY.encode())  # before the handshake
    error = ExceptionGroup("of a middleware", [caught.value]) if is_in_group else caught.value
    make_safe(error, PageRequest("job", RunFilter(), 1, 0), None)
    assert fragments("\n".join(_frames(caught.value))) == []


def test_no_error_is_kept_as_a_cause_that_quotes_a_part_of_the_key() -> None:
    """Nor is its text, which others have cut: half a key is found no more by its whole."""
    redactor = Redactor()
    redactor.add(Secret(KEY))
    for text in (f"got {KEY[7:31]}…", KEY[-20:], f"\x1b[31m{KEY}"):
        error = connection_error(aiohttp.ClientConnectionError(text), redactor, "https://a.example", handled=None)
        assert error.__cause__ is None
        assert fragments(str(error)) == []
    kept = connection_error(aiohttp.ClientConnectionError("lost"), redactor, "https://a.example", handled=None)
    assert isinstance(kept.__cause__, aiohttp.ClientConnectionError)


def test_a_client_that_is_half_made_has_a_repr() -> None:
    """A traceback of an error in `__init__` shows `self`."""
    assert repr(Client.__new__(Client)) == "<tfruns.Client, not made yet>"


def test_a_client_and_what_it_made_cannot_be_pickled() -> None:
    """They hold the key and connections."""
    client = Client("https://a.example", KEY)
    with pytest.raises(TypeError, match=r"a tfruns\.Client can't be pickled: .*: make one in each process"):
        pickle.dumps(client)
    for one in (client.iter_runs("job"), client.iter_runs_for(["job"]), client._transport._key):
        with pytest.raises(TypeError, match=r"can't be pickled|cannot pickle"):
            pickle.dumps(one)


async def test_errors_can_be_pickled_with_what_they_say() -> None:
    """They cross process borders whole, but for the frames and the causes."""
    error = await WAYS["status 403"]()
    assert isinstance(error, tfruns.PermissionDeniedError)
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copied), copied.job_id, copied.details) == (str(error), "job", error.details)
