"""Host and key: where they come from, and what is refused."""

import asyncio
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tfruns import Client, ConfigurationError, __version__
from tfruns._http.credentials import credentials_path
from tfruns._http.options import checked_headers
from tfruns._http.secret import Secret

KEY = "tfy-secret-key"


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    path = tmp_path / ".truefoundry" / "credentials.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "https://file.example", "access_token": KEY, "refresh_token": None}))
    return path


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Client(*arguments, **options)
    assert isinstance(caught.value, ValueError)
    assert KEY not in str(caught.value) + repr(caught.value)
    return str(caught.value)


async def key_of(client: Client) -> str:
    key = client._transport._key
    return str((key.known if key.known.value else await key.renew(key.known)).value)


A, B = "https://a.example", "https://b.example"
FILE_OF_A = {"host": A, "access_token": "of-file"}
NO_HOST, NO_KEY = "no host is given", "no API key is given"
ANOTHER = "no API key is given for https://b.example: pass api_key, .* is for https://a.example, and its token"


@pytest.mark.parametrize(
    ("argument", "environment", "file", "used"),
    [  # host and key of each; then what is used, or what the error says
        ((None, None), (None, None), None, NO_HOST),
        ((None, None), (None, None), FILE_OF_A, (A, "of-file")),
        ((None, None), (None, None), {"host": A}, NO_KEY),
        ((None, None), (None, None), {"access_token": "of-file"}, NO_HOST),
        # host and key from elsewhere: the file has no say
        ((B, "argument"), (None, None), FILE_OF_A, (B, "argument")),
        ((B, "argument"), (A, "variable"), FILE_OF_A, (B, "argument")),
        ((None, None), (B, "variable"), FILE_OF_A, (B, "variable")),
        ((B, None), (None, "variable"), FILE_OF_A, (B, "variable")),
        ((B, None), (A, "variable"), FILE_OF_A, (B, "variable")),
        ((None, "argument"), (B, None), FILE_OF_A, (B, "argument")),
        ((None, "argument"), (B, "variable"), FILE_OF_A, (B, "argument")),
        # a host without a key: the file's token goes to the file's host alone
        ((B, None), (None, None), None, NO_KEY),
        ((B, None), (None, None), FILE_OF_A, ANOTHER),
        ((A, None), (None, None), FILE_OF_A, (A, "of-file")),
        ((None, None), (B, None), FILE_OF_A, ANOTHER),
        ((None, None), (A, None), FILE_OF_A, (A, "of-file")),
        ((B, None), (A, None), FILE_OF_A, ANOTHER),
        ((A, None), (B, None), FILE_OF_A, (A, "of-file")),
        ((A, None), (None, None), {"host": A}, NO_KEY),
        ((A, None), (None, None), {"access_token": "of-file"}, "names no host, so its token goes nowhere"),
        # a key without a host: the file's host is for the file's token alone
        ((None, "argument"), (None, None), None, NO_HOST),
        ((None, "argument"), (None, None), FILE_OF_A, NO_HOST),
        ((None, None), (None, "variable"), FILE_OF_A, "no host is given for the API key from TFY_API_KEY"),
        ((None, "argument"), (None, "variable"), FILE_OF_A, "no host is given for the API key from the argument"),
    ],
)
async def test_where_host_and_key_come_from(
    argument: tuple[Any, Any],
    environment: tuple[Any, Any],
    file: dict[str, str] | None,
    used: tuple[str, str] | str,
    monkeypatch: pytest.MonkeyPatch,
    credentials: Path,
) -> None:
    """Each row of the table in the docstring of `Client`, with two control planes and a file for one of them."""
    for name, value in zip(("TFY_HOST", "TFY_API_KEY"), environment, strict=True):
        if value is not None:
            monkeypatch.setenv(name, value)
    credentials.unlink() if file is None else credentials.write_text(json.dumps(file))
    if isinstance(used, tuple):
        client = Client(*argument)
        assert (client.base_url, await key_of(client)) == used
    else:
        assert re.search(used, refusal(*argument))


@pytest.mark.parametrize("file", [None, FILE_OF_A, {"host": A}, {"access_token": "of-file"}])
@pytest.mark.parametrize("environment", [*itertools.product((None, A, B), (None, "variable"))])
async def test_the_files_token_goes_to_the_files_host_and_no_other_key_goes_there_by_the_file(
    environment: tuple[Any, Any],
    file: dict[str, str] | None,
    monkeypatch: pytest.MonkeyPatch,
    credentials: Path,
) -> None:
    """In every combination: the two halves of the file are never parted."""
    for name, value in zip(("TFY_HOST", "TFY_API_KEY"), environment, strict=True):
        if value is not None:
            monkeypatch.setenv(name, value)
    credentials.unlink() if file is None else credentials.write_text(json.dumps(file))
    for argument in itertools.product((None, A, B), (None, "argument")):
        try:
            client = Client(*argument)
        except ConfigurationError:
            has_both = (argument[0] or environment[0]) and (argument[1] or environment[1])
            assert not has_both
            continue
        key = await key_of(client)
        assert client.base_url == (argument[0] or environment[0] or A)
        assert key == (argument[1] or environment[1] or "of-file")
        assert key != "of-file" or (client.base_url == A and file == FILE_OF_A)
        assert argument[0] or environment[0] or key == "of-file"


@pytest.mark.parametrize(
    ("given", "of_file", "is_same"),
    [
        ("https://a.example", "https://a.example/", True),
        ("HTTPS://A.Example:443//", "https://a.example", True),
        ("https://a.example", " https://A.EXAMPLE. ", True),
        ("https://a.example/x", "https://a.example/x/", True),
        ("https://\u00fc.example", "https://xn--tda.example", True),
        ("http://localhost:80", "http://localhost", True),
        ("https://a.example", "http://a.example", False),
        ("https://a.example:8443", "https://a.example", False),
        ("https://a.example/x", "https://a.example", False),
        ("https://a.example/X", "https://a.example/x", False),
        ("https://a.example.evil", "https://a.example", False),
        ("https://evil-a.example", "https://a.example", False),
        ("http://127.0.0.1", "http://localhost", False),
        ("https://a.example", "https://user:x@a.example", False),
        ("https://a.example", "a.example", False),
        ("https://a.example", "", False),
    ],
)
def test_two_urls_name_the_same_host_but_for_their_spelling(
    given: str, of_file: str, is_same: bool, credentials: Path
) -> None:
    """The token of the file is used for the host of the file, however either is spelled."""
    credentials.write_text(json.dumps({"host": of_file, "access_token": KEY}))
    if is_same:
        assert Client(given).base_url == Client(given, "other").base_url
    else:
        assert "no API key is given for" in refusal(given)


def test_an_empty_variable_counts_as_none(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFY_HOST", "")
    monkeypatch.setenv("TFY_API_KEY", "")
    assert Client().base_url == "https://file.example"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
async def test_a_variable_may_end_with_line_breaks(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a Secret of Kubernetes that was made from a file does; one of nothing else counts as none."""
    monkeypatch.setenv("TFY_HOST", A + end)
    monkeypatch.setenv("TFY_API_KEY", KEY + end)
    async with Client() as client:
        assert (client.base_url, await key_of(client)) == (A, KEY)
    monkeypatch.setenv("TFY_API_KEY", end)
    assert NO_KEY in refusal()


def test_no_host_and_no_key_say_what_to_do() -> None:
    assert "no host is given" in refusal()
    assert "TFY_HOST" in refusal(api_key=KEY)
    assert "no API key is given" in refusal("https://a.example")
    assert "TFY_API_KEY" in refusal("https://a.example")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://a.example", "https://a.example"),
        ("https://a.example///", "https://a.example"),
        (" http://localhost:8080/ ", "http://localhost:8080"),
        ("http://127.8.9.10/x", "http://127.8.9.10/x"),
        ("https://a.example/some/prefix/", "https://a.example/some/prefix"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("HTTPS://A.Example", "https://a.example"),
        ("https://\u00fc.example", "https://xn--tda.example"),
        ("https://a.example/\u00fc x/%2F", "https://a.example/%C3%BC%20x/%2F"),
    ],
)
def test_a_host_may_end_with_a_slash_and_have_a_path(given: str, used: str) -> None:
    assert Client(given, KEY).base_url == used


@pytest.mark.parametrize(
    "host",
    [
        *["", " ", "a.example", "a.example:8080", "//a.example", "ftp://a.example", "https://", "http:///path"],
        *["https://a.example?x=1", "https://a.example#top", "https://a.example:99999", "https://a.example:port"],
        *["https://user:" + KEY + "@a.example", "https://" + KEY + "@a.example", "https://:" + KEY + "@a.example"],
        *[
            "https://u:" + KEY + "@a.example:port",
            "https://u:" + KEY + "@a\u2100.example",
            "https://u:" + KEY + "@[::1",
        ],
        *["http://[::1", "https://a.example:0", "https:a.example", "https://?", "https://#", "\x00", "https://a\\b"],
        *["https://a b.example", "https://a\n.example", "https://a\u200b.example", "https://" + "a" * 64 + ".example"],
        *["https://a..example", "https://.example", "https://cafe..beef", "https://" + "a" * 64, "https://."],
        *[5, True, b"https://a.example", ["https://a.example"]],
    ],
)
def test_a_host_that_is_no_full_url_is_refused(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "base_url" in refusal(host, KEY)
    if isinstance(host, str) and host and "\x00" not in host:
        monkeypatch.setenv("TFY_HOST", host)
        assert "TFY_HOST" in refusal(api_key=KEY)


@pytest.mark.parametrize("host", [KEY, "https://a.example?key=" + KEY, "https://a.example#" + KEY])
def test_a_key_given_in_place_of_the_host_is_not_shown(host: str) -> None:
    assert "base_url" in refusal(host, "https://a.example")


def test_no_repr_shows_the_key() -> None:
    client = Client("https://a.example", KEY)
    shown = [client, client._transport, client._transport._key, client.iter_runs("job")]
    assert repr(client) == "<tfruns.Client of https://a.example>"
    assert KEY not in "".join(map(repr, shown))


async def coroutine_key() -> str:
    return KEY


class Vault:
    def __call__(self) -> str:
        return KEY


@pytest.mark.parametrize("source", [lambda: KEY, coroutine_key, Vault()])
async def test_a_key_may_come_from_a_function(source: Any) -> None:
    assert await key_of(Client("https://a.example", source)) == KEY


@pytest.mark.parametrize("returned", [None, "", 5, KEY + "\n", KEY.encode(), lambda: KEY])
async def test_what_a_function_returns_is_checked_when_it_is_called_and_not_shown(returned: Any) -> None:
    client = Client("https://a.example", lambda: returned)
    with pytest.raises(ConfigurationError, match="from the function given as api_key") as caught:
        await key_of(client)
    assert KEY not in str(caught.value)


async def test_a_function_is_called_once_for_all_that_need_a_key_together() -> None:
    calls: list[int] = []

    async def get_key() -> str:
        calls.append(len(calls))
        await asyncio.sleep(0)
        return f"key-{len(calls)}"

    source = Client("https://a.example", get_key)._transport._key
    assert calls == []
    unknown = source.known
    first = await asyncio.gather(*(source.renew(unknown) for _ in range(5)))
    assert [key.value for key in first] == ["key-1"] * 5
    second = await asyncio.gather(*(source.renew(first[0]) for _ in range(5)))
    assert [key.value for key in second] == ["key-2"] * 5
    assert (await source.renew(first[0])).value == "key-2"
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "is empty"),
        (KEY + "\n", "holds a newline (U+000A) at position 14"),
        (KEY + "\r\nX-Admin: 1", "holds a newline (U+000D)"),
        (KEY + " x", "holds white space (U+0020)"),
        (KEY + "é", "holds a character (U+00E9)"),
        (KEY + "\x00", "holds a character (U+0000)"),
        (5, "must be a string, not int"),
        (KEY.encode(), "must be a string, not bytes"),
    ],
)
def test_a_key_that_cant_be_sent_safely_is_refused_without_showing_it(
    key: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert says in refusal("https://a.example", key)
    if isinstance(key, str) and key.rstrip("\r\n") not in ("", KEY) and "\x00" not in key:
        monkeypatch.setenv("TFY_API_KEY", key)
        assert f"from TFY_API_KEY {says}" in refusal("https://a.example")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "isn't a JSON object"),
        ("[]", "isn't a JSON object"),
        ("{}", "no host is given"),
        ('{"host": null}', "no host is given"),
        ('{"host": 5, "access_token": "x"}', "`host` in"),
        ('{"host": "https://a.example"}', "no API key is given"),
        ('{"host": "https://a.example", "access_token": ""}', "is empty"),
        ('{"host": "https://a.example", "access_token": ["' + KEY + '"]}', "must be a string, not list"),
        ("\udcff", "isn't a JSON object"),
        ("", "isn't a JSON object"),
        ('"' + KEY, "isn't a JSON object"),
        ('"' + KEY + '"', "isn't a JSON object"),
        ("null", "isn't a JSON object"),
        ("[" * 100_000, "isn't a JSON object"),
        ('{"host": "https://a.example", "access_token": "' + KEY + '\\n"}', "holds a newline"),
        ('{"host": "https://a.example", "access_token": 5}', "must be a string, not int"),
        ('{"host": ["https://a.example"]}', "`host` in"),
    ],
)
def test_a_broken_credentials_file_is_named(credentials: Path, content: str, says: str) -> None:
    credentials.write_bytes(content.encode("utf-8", "surrogateescape"))
    message = refusal()
    assert says in message
    if "given" not in says:
        assert str(credentials) in message


def test_a_credentials_file_that_cant_be_read_is_named(credentials: Path) -> None:
    credentials.unlink()
    credentials.mkdir()
    assert "can't be read" in refusal()
    assert Client("https://a.example", KEY).base_url == "https://a.example"


@pytest.mark.skipif(os.name != "posix", reason="needs pipes with names")
def test_a_pipe_in_place_of_the_credentials_file_is_named_and_not_waited_for(credentials: Path) -> None:
    credentials.unlink()
    os.mkfifo(credentials, 0o600)
    assert f"{credentials} isn't a file" in refusal()


def test_a_file_in_place_of_the_credentials_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / ".truefoundry").write_text("")
    assert "can't be read" in refusal()


def test_without_a_home_there_are_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "~")  # what Python is left with for a user without a home, as in many containers
    monkeypatch.setenv("USERPROFILE", "~")
    assert "no host is given" in refusal(api_key=KEY)
    assert "no API key is given" in refusal("https://a.example")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, {}),
        ({}, {}),
        ({"X-Team": "a\tb ~"}, {"x-team": "a\tb ~"}),
        ({"user-agent": "mine"}, {"user-agent": "mine"}),
        ({"ACCEPT": "text/plain"}, {"accept": "text/plain"}),
        ({"X-A": ""}, {"x-a": ""}),
    ],
    ids=repr,
)
def test_a_caller_adds_headers_and_replaces_ours_in_any_case(given: Any, sent: dict[str, str]) -> None:
    headers = {name.lower(): value for name, value in checked_headers(Secret(given)).items()}
    ours = {"accept": "application/json", "user-agent": f"tfruns/{__version__} aiohttp/{aiohttp.__version__}"}
    assert headers == {**ours, **sent}


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"Bad Name": "x"}, "'Bad Name' can't be the name"),
        ({"": "x"}, "can't be the name"),
        ({"X-A:": "x"}, "can't be the name"),
        ({"X-A\n": "x"}, "can't be the name"),
        ({"X-\u00c4": "x"}, "can't be the name"),
        ({"X-A": KEY + "\x00"}, "'X-A' holds a character"),
        ({"X-A": "x\n"}, "'X-A' holds a character"),
        ({"AUTHORIZATION": KEY}, "api_key"),
        ({"X-A": None}, "strings"),
        ({"X-A": KEY.encode()}, "strings"),
        ("X-A: x", "headers must map"),
        ({"X-A": "x\r\nX-B: y"}, "'X-A' holds a character"),
        ({"X-A": "é"}, "'X-A' holds a character"),
        ({"authorization": "Bearer " + KEY}, "api_key"),
        ({"X-A": 5}, "strings"),
        ({5: "x"}, "strings"),
        ([("X-A", "x")], "headers must map"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_header_that_cant_be_sent_is_refused(headers: Any, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says) as caught:
        Client("https://a.example", KEY, headers=headers)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "http://a.example",
        "HTTP://a.example:8080",
        "http://10.0.0.1",
        "http://localhost.example",
        "http://0.0.0.0",
        "http://[::2]",
    ],
)
def test_plain_http_to_another_machine_is_refused_unless_it_is_allowed(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "base_url is plain http" in refusal(host, KEY)
    monkeypatch.setenv("TFY_HOST", host)
    assert "TFY_HOST is plain http" in refusal(api_key=KEY)
    assert Client(api_key=KEY, allow_http=True).base_url == host.lower()


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX's")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_credentials_file_that_others_can_write_is_refused(mode: int) -> None:
    path = credentials_path()
    path.parent.mkdir(parents=True)
    path.write_text('{"host": "https://evil.example", "access_token": "their-own-key"}')
    path.chmod(mode)
    assert f"others than its owner can write {path}: chmod 600 {path}" in refusal()
    path.chmod(0o640)
    assert Client().base_url == "https://evil.example"


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX's")
def test_a_credentials_file_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = credentials_path()
    path.parent.mkdir(parents=True)
    path.write_text('{"host": "https://evil.example", "access_token": "their-own-key"}')
    if os.getuid() == 0:
        os.chown(path, 12_345, -1)
    monkeypatch.setattr("os.getuid", lambda: 54_321)
    assert f"{path} belongs to another user" in refusal()


@pytest.mark.parametrize("key", ["Bearer tfy-key", "bearer  tfy-key", "BEARER tfy-key"])
def test_a_key_with_its_scheme_gets_what_to_leave_out(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFY_API_KEY", key)
    for make in (lambda: Client("https://x.example", key), lambda: Client("https://x.example")):
        with pytest.raises(ConfigurationError, match="begins with `Bearer `: leave out `Bearer `") as caught:
            make()
        assert "tfy-key" not in str(caught.value)


@pytest.mark.parametrize("path", ["/api/svc/v1", "/api/svc/v1/", "/api/svc/v1/jobs", "/api/svc"])
def test_a_url_with_the_path_of_the_api_gets_what_to_leave_out(path: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url has the path of the API in it: leave out the path"):
        Client(f"https://x.example{path}", "key")
    assert Client("https://x.example/behind/a/proxy", "key").base_url == "https://x.example/behind/a/proxy"
