"""Host and key: where they come from, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tfruns import Client, ConfigurationError

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
    return await client._session._key.current()


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
        (" http://a.example:8080/ ", "http://a.example:8080"),
        ("https://a.example/some/prefix/", "https://a.example/some/prefix"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_host_may_end_with_a_slash_and_have_a_path(given: str, used: str) -> None:
    assert Client(given, KEY).base_url == used


@pytest.mark.parametrize(
    "host",
    [
        *["", " ", "a.example", "a.example:8080", "//a.example", "ftp://a.example", "https://", "http:///path"],
        *["https://a.example?x=1", "https://a.example#top", "https://a.example:99999", "https://a.example:port"],
        *["https://user:" + KEY + "@a.example", "http://[::1", 5, b"https://a.example"],
    ],
)
def test_a_host_that_is_no_full_url_is_refused(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "base_url" in refusal(host, KEY)
    if isinstance(host, str) and host:
        monkeypatch.setenv("TFY_HOST", host)
        assert "TFY_HOST" in refusal(api_key=KEY)


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
def test_a_key_that_cant_be_sent_safely_is_refused_without_showing_it(key: Any, says: str) -> None:
    assert says in refusal("https://a.example", key)


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


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"Bad Name": "x"}, "'Bad Name' can't be the name"),
        ({"": "x"}, "can't be the name"),
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
