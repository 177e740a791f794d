"""Finds the control plane and the key.

Host and key are each taken from the argument, else from the environment. One may come from the argument, and the other
from the environment. The credentials file, which the TrueFoundry CLI writes, is used as a whole: its token belongs to
its host, and is sent to no other.

| host from               | key from                | what is used                                                   |
|-------------------------|-------------------------|----------------------------------------------------------------|
| argument or environment | argument or environment | both; the file isn't read                                      |
| argument or environment | nowhere                 | the file's token if the file is for that host, else            |
|                         |                         | ConfigurationError, which names the file's host                |
| nowhere                 | argument or environment | ConfigurationError: the file's host goes with its token alone  |
| nowhere                 | nowhere                 | host and token of the file, or ConfigurationError              |

An argument is preferred to the environment. Two URLs name the same host if scheme, name, port and path are the same,
except for letter case, a default port, and slashes at the end. An empty variable counts as none.
"""

import asyncio
import inspect
import ipaddress
import logging
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from yarl import URL

from tfruns._http.credentials_file import CredentialsFile
from tfruns._http.events import UserCodeError
from tfruns._http.secret import Redactor, Secret
from tfruns.errors import ConfigurationError

# Labels of a name, as DNS takes them, or an IPv6 address.
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%\w+)?")
_FORM = "a URL such as https://acme.truefoundry.cloud"
_LOG_IN = "log in with the TrueFoundry CLI (tfy login)"
_PLAIN_HTTP = "is plain http, and anyone on the way could read the API key: use https, or allow it with allow_http=True"

logger = logging.getLogger("tfruns")


def resolve(base_url: Secret, api_key: Secret, *, allow_http: bool) -> "tuple[str, KeySource]":
    """The control plane's URL, without a trailing slash, and its key: see the table above.

    Args:
        base_url: the argument, or None; wrapped, because people do pass keys as hosts, or in their URLs.
        api_key: the argument, or None.
        allow_http: whether the URL may be plain http to another machine than this one.

    Raises:
        ConfigurationError: there is no host or no key, or it can't be used.
    """
    host = Sourced.first("base_url", base_url, "TFY_HOST")
    key = Sourced.first("the argument api_key", api_key, "TFY_API_KEY")
    url = None if host is None else _checked_base_url(host, allow_http)
    if key is not None:
        source = _key_source(key)
        if url is None:
            raise ConfigurationError(
                f"no host is given for the API key from {key.origin}: pass base_url or set TFY_HOST "
                "(the host in the credentials file goes with the token in that file alone)"
            )
        return url, source
    file = CredentialsFile.read()
    if url is None:
        if file is None or file.host.value is None:
            raise ConfigurationError(f"no host is given: pass base_url, set TFY_HOST, or {_LOG_IN}")
        url = _checked_base_url(Sourced(f"`host` in {file.path}", file.host), allow_http)
    if file is None or file.token.value is None:
        raise _no_key()
    if not _is_for(file, url):
        raise _no_key(f" for {url}", f" ({_purpose_of(file)})")
    return url, _key_of_file(url, file)


def _no_key(of: str = "", why: str = "") -> ConfigurationError:
    return ConfigurationError(f"no API key is given{of}: pass api_key, set TFY_API_KEY, or {_LOG_IN}{why}")


@attrs.frozen
class Sourced:
    """A value, and where it comes from, as errors say it: `TFY_HOST`."""

    origin: str
    secret: Secret

    @classmethod
    def first(cls, name: str, argument: Secret, variable: str) -> "Sourced | None":
        if argument.value is not None:
            return cls(name, argument)
        secret = Secret(os.environ.get(variable, "").rstrip("\r\n"))
        return cls(variable, secret) if secret.value else None


# --- hosts ---


def _checked_base_url(host: Sourced, allow_http: bool) -> str:
    flaw = _flaw_of_url(host.secret.value, allow_http)
    if flaw is not None:
        raise ConfigurationError(f"{host.origin} {flaw}")
    return _normal(host.secret.value)


def _flaw_of_url(value: Any, allow_http: bool) -> str | None:
    """What is wrong with a URL, in words that don't show it. (It never raises: a traceback would.)"""
    if not isinstance(value, str):
        return f"must be {_FORM}, not {type(value).__name__}"
    try:
        text = value.strip()
        url = URL(text)
        host = url.raw_host or ""
        is_valid = _HOST.fullmatch(host) and (url.port is None or 0 < url.port < 65536)
        is_valid = is_valid and text.isprintable()
    except ValueError:
        return f"isn't a URL, or its port isn't from 1 to 65535: it must be {_FORM}"
    if url.user is not None or url.password is not None:
        return "holds a user or a password: leave them out, only the API key is used"
    if url.scheme not in ("http", "https"):
        return f"must begin with https:// (or http://), as {_FORM} does"
    if not is_valid:
        return f"has no valid host or port: it must be {_FORM}"
    if url.query_string or url.fragment:
        return "must end with the host or a path, without `?` or `#`"
    if "/api/svc" in url.path:
        return "has the path of the API in it: leave out the path, `/api/svc/…`"
    if url.scheme == "http" and not allow_http and not _is_loopback(host):
        return _PLAIN_HTTP
    return None


def _normal(url: str) -> str:
    return str(URL(url.strip())).rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host.rstrip(".") == "localhost"


def host_key(url: str) -> tuple[object, ...]:
    """A key that is equal for two URLs of the same control plane."""
    parsed = URL(url)
    return parsed.scheme, (parsed.raw_host or "").rstrip("."), parsed.port, parsed.raw_path.rstrip("/")


# --- keys ---


def _checked_key(key: Sourced) -> Secret:
    flaw = _flaw_of_key(key.secret.value)
    if flaw is not None:
        raise ConfigurationError(f"the API key from {key.origin} {flaw}")
    return key.secret


def _flaw_of_key(value: Any) -> str | None:
    """What is wrong with a key, in words that don't show it. (It never raises: a traceback would.)"""
    if not isinstance(value, str):
        return f"must be a string, not {type(value).__name__}"
    if not value:
        return "is empty"
    if re.match(r"bearer\s", value, re.IGNORECASE):
        return "begins with `Bearer `: leave out `Bearer `"
    if (unsafe := re.search(r"[^\x21-\x7e]", value)) is not None:
        kind = "a newline" if unsafe[0] in "\r\n" else "white space" if unsafe[0].isspace() else "a character"
        return f"holds {kind} (U+{ord(unsafe[0]):04X}) at position {unsafe.start()} that can't be sent in a header"
    return None


def _key_source(key: Sourced) -> "KeySource":
    if not callable(key.secret.value):
        return KeySource(key.origin, _checked_key(key))
    origin = "the function given as api_key"

    async def call() -> Secret:
        try:
            given = Secret(key.secret.value())
            if inspect.isawaitable(given.value):
                given = Secret(await given.value)
        except Exception as error:
            raise UserCodeError(error, is_of_a_hook=False) from None
        return _checked_key(Sourced(origin, given))

    return KeySource(origin, None, call)


def _key_of_file(url: str, file: CredentialsFile) -> "KeySource":
    origin = f"`access_token` in {file.path}"

    async def read_again() -> Secret | None:
        try:
            new = await CredentialsFile.read_again(file.path)
            if _is_for(new, url):
                return _checked_key(Sourced(origin, new.token))
            logger.warning("the API key was refused, and the credentials file has no other: %s", _purpose_of(new))
        except ConfigurationError as error:
            logger.warning("the API key was refused, and the credentials file can't be read again: %s", error)
        return None

    return KeySource(origin, _checked_key(Sourced(origin, file.token)), read_again)


def _is_for(file: CredentialsFile, url: str) -> bool:
    """Whether the file's token may be sent to this URL."""
    return _has_host(file) and host_key(_normal(file.host.value)) == host_key(url)


def _has_host(file: CredentialsFile) -> bool:
    return _flaw_of_url(file.host.value, allow_http=True) is None


def _purpose_of(file: CredentialsFile) -> str:
    if not _has_host(file):
        return f"{file.path} names no host, so its token goes nowhere"
    return f"{file.path} is for {_normal(file.host.value)}, and its token goes there alone"


class KeySource:
    """The key that is sent, and the one that replaces it when the server has refused it."""

    def __init__(
        self, origin: str, key: Secret | None, renew: Callable[[], Awaitable[Secret | None]] | None = None
    ) -> None:
        self.origin = origin
        """Where the key comes from, as errors say it: `TFY_API_KEY`."""
        self.redactor = Redactor()
        self._key = key
        self._renew = renew
        if key is not None:
            self.redactor.add(key)
        self.bind()

    def bind(self) -> None:
        """Bind to the running event loop."""
        self._renewing = asyncio.Lock()

    @property
    def known(self) -> Secret | None:
        """The key to send; None if `renew` has to get it first."""
        return self._key

    async def current(self) -> Secret:
        """The key to send."""
        return self._key if self._key is not None else await self.renew(None)

    async def renew(self, refused: Secret | None) -> Secret:
        """The key that replaces a refused one: an equal one if there is no other.

        Requests that were refused together share one renewal.

        Raises:
            ConfigurationError: the function returned something that can't be sent.
            UserCodeError: the function raised.
        """
        async with self._renewing:
            # By identity: a renewed key is a new object, so requests that waited for it meanwhile don't renew it again.
            if self._key is refused and self._renew is not None:
                key = await self._renew()
                self._key = Secret(refused and refused.value) if key is None else key
                self.redactor.add(self._key)
            assert self._key is not None  # noqa: S101  # for the type checker
            return self._key
