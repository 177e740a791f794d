"""Which control plane, and with which key: from arguments, the environment, or the credentials file, in that order."""

import asyncio
import inspect
import ipaddress
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tfruns.errors import ConfigurationError
from tfruns.version import __version__

ApiKey = str | Callable[[], str | Awaitable[str]]
"""A key, or a function, sync or async, that returns one."""

# Labels of a name, as DNS takes them, or an IPv6 address.
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%\w+)?")
_HIDDEN = "[API key]"
_LEAST_HIDDEN = 8
"""Characters of a key that is taken out of texts: what is shorter is no secret, and part of many words."""
_OUR_HEADERS = {"Accept": "application/json", "User-Agent": f"tfruns/{__version__} aiohttp/{aiohttp.__version__}"}
_FIX = "pass {argument}, set {variable}, or log in with the TrueFoundry CLI (tfy login)"


class _Key(str):
    """A key that tracebacks, which show the values of variables, don't show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return _HIDDEN


def credentials_path() -> Path:
    """Where the TrueFoundry CLI keeps its credentials."""
    return Path.home() / ".truefoundry" / "credentials.json"


def resolve_base_url(base_url: str | None, *, allow_http: bool = False) -> str:
    """The control plane's URL, without a trailing slash. It may be plain http to this machine, or if that is allowed.

    Raises:
        ConfigurationError: there is none, or it isn't an http(s) URL of a host and at most a path.
    """
    if base_url is not None:
        return _checked_base_url(base_url, "base_url", allow_http)
    if variable := os.environ.get("TFY_HOST"):
        return _checked_base_url(variable, "TFY_HOST", allow_http)
    if (host := _from_credentials("host")) is not None:
        return _checked_base_url(host, f"`host` in {credentials_path()}", allow_http)
    raise ConfigurationError(f"no host is given: {_FIX.format(argument='base_url', variable='TFY_HOST')}")


def _checked_base_url(value: Any, origin: str, allow_http: bool) -> str:
    # No message here shows the value: keys have been put in place of hosts, or into their URLs.
    form = "a URL such as https://acme.truefoundry.cloud"
    if not isinstance(value, str):
        raise ConfigurationError(f"{origin} must be {form}, not {type(value).__name__}")
    try:
        text = value.strip()
        url = URL(text)
        host = url.raw_host or ""
        is_valid = _HOST.fullmatch(host) and (url.port is None or 0 < url.port < 65536)
        is_valid = is_valid and text.isprintable()
    except ValueError:
        raise ConfigurationError(f"{origin} isn't a URL; it must be {form}") from None
    if url.user is not None or url.password is not None:
        raise ConfigurationError(f"{origin} holds a user or a password: leave them out, only the API key is used")
    if url.scheme not in ("http", "https"):
        raise ConfigurationError(f"{origin} must begin with https:// (or http://), as {form} does")
    if not is_valid:
        raise ConfigurationError(f"{origin} has no host, or none that there can be: it must be {form}")
    if url.query_string or url.fragment:
        raise ConfigurationError(f"{origin} must end with the host or a path, without `?` or `#`")
    if "/api/svc" in url.path:
        raise ConfigurationError(f"{origin} has the path of the API in it: leave out the path, `/api/svc/…`")
    if url.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ConfigurationError(
            f"{origin} is plain http, and anyone on the way could read the API key: use https, or allow it with"
            " allow_http=True"
        )
    return str(url).rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host.rstrip(".") == "localhost"


def resolve_api_key(api_key: ApiKey | None) -> "KeySource":
    """Where the key comes from.

    Raises:
        ConfigurationError: there is none, or it can't be sent.
    """
    if api_key is not None:
        if callable(api_key):
            return KeySource(api_key, "the function given as api_key")
        return _key_from("the argument api_key", api_key)
    if variable := os.environ.get("TFY_API_KEY"):
        return _key_from("TFY_API_KEY", variable)
    if (token := _from_credentials("access_token")) is not None:
        return _key_from(f"`access_token` in {credentials_path()}", token)
    raise ConfigurationError(f"no API key is given: {_FIX.format(argument='api_key', variable='TFY_API_KEY')}")


def _key_from(origin: str, value: Any) -> "KeySource":
    return KeySource(_checked_key(value, origin), origin)


def _checked_key(value: Any, origin: str) -> _Key:
    # No message here shows the value: it is, or is nearly, the key.
    if not isinstance(value, str):
        raise ConfigurationError(f"the API key from {origin} must be a string, not {type(value).__name__}")
    if not value:
        raise ConfigurationError(f"the API key from {origin} is empty")
    if re.match(r"bearer\s", value, re.IGNORECASE):
        raise ConfigurationError(f"the API key from {origin} begins with `Bearer `: leave out `Bearer `")
    if (unsafe := re.search(r"[^\x21-\x7e]", value)) is not None:
        kind = "a newline" if unsafe[0] in "\r\n" else "white space" if unsafe[0].isspace() else "a character"
        raise ConfigurationError(
            f"the API key from {origin} holds {kind} (U+{ord(unsafe[0]):04X}) at position {unsafe.start()}"
            " that can't be sent in a header"
        )
    return _Key(value)


def _from_credentials(name: str) -> Any:
    try:
        path = credentials_path()
    except RuntimeError:  # there is no home
        return None
    try:
        _check_owner(path)
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from None
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{path} isn't JSON: log in again with the TrueFoundry CLI") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} must hold a JSON object: log in again with the TrueFoundry CLI")
    return content.get(name)


def _check_owner(path: Path) -> None:
    """Refuse a file that others can write: they could have the key sent to a host of theirs."""
    if os.name != "posix":
        return
    status = path.stat()
    if status.st_mode & 0o022:
        raise ConfigurationError(f"others than its owner can write {path}: chmod 600 {path}, if what it holds is yours")
    if status.st_uid not in (0, os.getuid()):
        raise ConfigurationError(f"{path} belongs to another user: log in again with the TrueFoundry CLI")


class KeySource:
    """The key, asked for when it is first needed, and again when the server has refused it."""

    def __init__(self, source: _Key | Callable[[], str | Awaitable[str]], origin: str) -> None:
        self.origin = origin
        """Where it comes from, in the words of an error: `TFY_API_KEY`."""
        self._source = source
        self._key = source if isinstance(source, _Key) else None
        self._used = [source] if isinstance(source, _Key) else []
        self.bind()

    def bind(self) -> None:
        """Belong to the running event loop from now on."""
        self._asking = asyncio.Lock()

    def hide(self, text: str) -> str:
        """The text without the key, and without the one before it."""
        for key in self._used:
            if len(key) >= _LEAST_HIDDEN:
                text = text.replace(key, _HIDDEN)
        return text

    @property
    def can_renew(self) -> bool:
        """Whether asking again may bring another key."""
        return not isinstance(self._source, _Key)

    async def current(self) -> _Key:
        """The key to send."""
        return self._key if self._key is not None else await self.renew(None)

    async def renew(self, refused: str | None) -> _Key:
        """A key in place of the refused one. Requests refused together ask only once.

        Raises:
            ConfigurationError: the function returned something that can't be sent.
        """
        async with self._asking:
            if self._key is None or self._key == refused:
                assert not isinstance(self._source, _Key)  # noqa: S101  # for the type checker
                answer = self._source()
                key = await answer if inspect.isawaitable(answer) else answer
                self._key = _checked_key(key, self.origin)
                self._used = [*self._used[-1:], self._key]
            return self._key


def checked_headers(headers: Mapping[str, str] | None, known: Mapping[str, str] = _OUR_HEADERS) -> dict[str, str]:
    """The headers to send with each request: the caller's, and the known ones that they don't replace.

    Raises:
        TypeError, ValueError: a header can't be sent, or would carry a key.
    """
    if headers is not None and not isinstance(headers, Mapping):
        raise TypeError(f"headers must map names to values, got {type(headers).__name__}")
    checked = dict(known)
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers must map strings to strings, got {name!r}: {type(value).__name__}")
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"{name!r} can't be the name of a header")
        if re.search(r"[^\x20-\x7e\t]", value):
            raise ValueError(f"the header {name!r} holds a character that can't be sent")
        if name.lower() == "authorization":
            raise ValueError("the header Authorization is made of api_key: pass the key there")
        checked = {other: kept for other, kept in checked.items() if other.lower() != name.lower()}
        checked[name] = value
    return checked
