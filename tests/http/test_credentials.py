"""Host and key: where they come from, and what is refused."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tfruns import Client, ConfigurationError, __version__
from tfruns._http.credentials_file import credentials_path
from tfruns._http.options import checked_headers

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
    return await client._transport._key.current()


async def test_an_argument_goes_before_the_environment_and_that_before_the_file(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    assert (client.base_url, await key_of(client)) == ("https://file.example", KEY)
    monkeypatch.setenv("TFY_HOST", "https://environment.example/")
    monkeypatch.setenv("TFY_API_KEY", "from-environment")
    client = Client()
    assert (client.base_url, await key_of(client)) == ("https://environment.example", "from-environment")
    client = Client("https://argument.example", "from-argument")
    assert (client.base_url, await key_of(client)) == ("https://argument.example", "from-argument")


def test_an_empty_variable_counts_as_none(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFY_HOST", "")
    monkeypatch.setenv("TFY_API_KEY", "")
    assert Client().base_url == "https://file.example"


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


@pytest.mark.parametrize("answer", [None, "", 5, KEY + "\n", KEY.encode(), lambda: KEY])
async def test_what_a_function_returns_is_checked_when_it_is_asked_and_not_shown(answer: Any) -> None:
    client = Client("https://a.example", lambda: answer)
    with pytest.raises(ConfigurationError, match="from the function given as api_key") as caught:
        await key_of(client)
    assert KEY not in str(caught.value)


async def test_a_function_is_asked_once_for_all_that_need_a_key_together() -> None:
    asked: list[int] = []

    async def ask() -> str:
        asked.append(len(asked))
        await asyncio.sleep(0)
        return f"key-{len(asked)}"

    source = Client("https://a.example", ask)._transport._key
    assert asked == []
    assert await asyncio.gather(*(source.current() for _ in range(5))) == ["key-1"] * 5
    assert await asyncio.gather(*(source.renew("key-1") for _ in range(5))) == ["key-2"] * 5
    assert await source.renew("key-1") == "key-2"
    assert len(asked) == 2


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
    if isinstance(key, str) and key and "\x00" not in key:
        monkeypatch.setenv("TFY_API_KEY", key)
        assert f"from TFY_API_KEY {says}" in refusal("https://a.example")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "isn't JSON"),
        ("[]", "must hold a JSON object"),
        ("{}", "no host is given"),
        ('{"host": null}', "no host is given"),
        ('{"host": 5, "access_token": "x"}', "`host` in"),
        ('{"host": "https://a.example"}', "no API key is given"),
        ('{"host": "https://a.example", "access_token": ""}', "is empty"),
        ('{"host": "https://a.example", "access_token": ["' + KEY + '"]}', "must be a string, not list"),
        ("\udcff", "isn't JSON"),
        ("", "isn't JSON"),
        ('"' + KEY, "isn't JSON"),
        ('"' + KEY + '"', "must hold a JSON object"),
        ("null", "must hold a JSON object"),
        ("[" * 100_000, "isn't JSON"),
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
    headers = {name.lower(): value for name, value in checked_headers(given).items()}
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


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_credentials_file_that_others_can_write_is_refused(mode: int) -> None:
    path = credentials_path()
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"host": "https://evil.example", "access_token": "their-own-key"}')
    path.chmod(mode)
    assert f"others than its owner can write {path}: chmod 600 {path}" in refusal()
    path.chmod(0o640)
    assert Client().base_url == "https://evil.example"
