"""Finds the control plane and its key: by arguments, by the environment, or in the TrueFoundry CLI's credentials file.

`Client`'s docstring has the table. The file is used as a whole: its token belongs to its host, and is sent to no other.
"""

import asyncio
import inspect
import ipaddress
import json
import logging
import os
import re
import stat
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from yarl import URL

from tfruns._http.events import UserCodeError
from tfruns._http.secret import Redactor, Secret, SecretText
from tfruns._log import log
from tfruns.errors import ConfigurationError

# Labels of a name, as DNS takes them, or an IPv6 address.
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%\w+)?")
_FORM = "a URL such as https://acme.truefoundry.cloud"
_LOG_IN = "log in with the TrueFoundry CLI (tfy login)"
_PLAIN_HTTP = "is plain http, and anyone on the way could read the API key: use https, or allow it with allow_http=True"

_READS = 5  # of a file that is being rewritten, before it counts as broken
_PAUSE = 0.05  # seconds between two reads
_LOCKED_AT_MOST = 2.0  # seconds that a refused request waits for the CLI


def resolve(base_url: Secret, api_key: Secret, *, allow_http: bool) -> "tuple[str, KeySource]":
    """The control plane's URL, without a trailing slash, and its key.

    Both arguments are wrapped, because people do pass keys as hosts, or in their URLs.
    """
    host, host_origin = _given(base_url, "base_url", "TFY_HOST")
    named = api_key.value.origin if isinstance(api_key.value, SecretText) else SecretText.origin
    key, key_origin = _given(api_key, named, "TFY_API_KEY")
    url = None if host is None else _checked_url(host, host_origin, allow_http=allow_http)
    if key is not None:
        source = _key_source(key, key_origin)
        if url is None:
            raise ConfigurationError(
                f"no host is given for the API key from {key_origin}: pass base_url or set TFY_HOST "
                "(the host in the credentials file goes with the token in that file alone)"
            )
        return url, source
    try:
        file = CredentialsFile.read(credentials_path())
    except RuntimeError:  # there is no home folder
        file = CredentialsFile(Path())
    if url is None:
        if file.host.value is None:
            raise ConfigurationError(f"no host is given: pass base_url, set TFY_HOST, or {_LOG_IN}")
        url = _checked_url(file.host, f"`host` in {file.path}", allow_http=allow_http)
    if file.token.value is None:
        raise ConfigurationError(f"no API key is given: pass api_key, set TFY_API_KEY, or {_LOG_IN}")
    if not file.is_for(url):
        wanted = f"no API key is given for {url}: pass api_key, set TFY_API_KEY, or {_LOG_IN}"
        raise ConfigurationError(f"{wanted} ({file.purpose})")
    return url, _key_of_file(url, file)


def _given(argument: Secret, name: str, variable: str) -> tuple[Secret | None, str]:
    """What the argument gives, or else the variable; and where it comes from, as errors say it."""
    if argument.value is not None:
        return argument, name
    value = Secret(os.environ.get(variable, "").rstrip("\r\n"))
    return value if value.value else None, variable


# --- hosts ---


def _checked_url(url: Secret, origin: str, *, allow_http: bool) -> str:
    if (flaw := _flaw_of_url(url.value, allow_http)) is not None:
        raise ConfigurationError(f"{origin} {flaw}")
    return _normal(url.value)


def _flaw_of_url(value: Any, allow_http: bool) -> str | None:
    """What is wrong with a URL, in words that don't show it. (It never raises: a traceback would.)"""
    if not isinstance(value, str):
        return f"must be {_FORM}, not {type(value).__name__}"
    try:
        text = value.strip()
        url = URL(text)
        host = url.raw_host or ""
        is_valid = text.isprintable() and _HOST.fullmatch(host) and url.port != 0
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


def _host_key(url: Any) -> tuple[object, ...] | None:
    """A key that is equal for two URLs of the same control plane; None for what is no such URL."""
    if _flaw_of_url(url, allow_http=True) is not None:
        return None
    parsed = URL(url.strip())
    return parsed.scheme, (parsed.raw_host or "").rstrip("."), parsed.port, parsed.raw_path.rstrip("/")


# --- keys ---


def _checked_key(key: Secret, origin: str) -> Secret:
    flaw = ""
    if not isinstance(key.value, str):
        flaw = f"must be a string, not {type(key.value).__name__}"
    elif not key.value:
        flaw = "is empty"
    elif re.match(r"bearer\s", key.value, re.IGNORECASE):
        flaw = "begins with `Bearer `: leave out `Bearer `"
    elif (unsafe := re.search(r"[^\x21-\x7e]", key.value)) is not None:
        kind = "a newline" if unsafe[0] in "\r\n" else "white space" if unsafe[0].isspace() else "a character"
        flaw = f"holds {kind} (U+{ord(unsafe[0]):04X}) at position {unsafe.start()} that can't be sent in a header"
        del unsafe  # it holds the key
    if flaw:
        raise ConfigurationError(f"the API key from {origin} {flaw}")
    return key


def _key_source(key: Secret, origin: str) -> "KeySource":
    if not callable(key.value):
        return KeySource(origin, _checked_key(key, origin))
    origin = "the function given as api_key"

    async def call() -> Secret:
        try:
            given = Secret(key.value())
            if inspect.isawaitable(given.value):
                given = Secret(await given.value)
        except (Exception, GeneratorExit) as error:
            raise UserCodeError(error) from None
        return _checked_key(given, origin)

    return KeySource(origin, Secret(None), call)


def _key_of_file(url: str, file: "CredentialsFile") -> "KeySource":
    origin = f"`access_token` in {file.path}"

    async def read_again() -> Secret | None:
        try:
            new = await asyncio.to_thread(CredentialsFile.read, file.path, again=True)
            if new.is_for(url):
                return _checked_key(new.token, origin)
            why = new.purpose
        except ConfigurationError as error:
            why = str(error)
        log(logging.WARNING, "the API key was refused, and the credentials file has no other: %s", why)
        return None

    return KeySource(origin, _checked_key(file.token, origin), read_again)


class KeySource:
    """The key that is sent, and the one that replaces it when the server has refused it."""

    def __init__(self, origin: str, key: Secret, renew: Callable[[], Awaitable[Secret | None]] | None = None) -> None:
        self.origin = origin  # where the key comes from, as errors say it: `TFY_API_KEY`
        self.redactor = Redactor()
        self.known = key  # the key to send; a `Secret` of None if `renew` has to get it first
        self._renew = renew
        if key.value is not None:
            self.redactor.add(key)
        self.renewing = asyncio.Lock()  # of the event loop in which the client is used

    async def renew(self, refused: Secret) -> Secret:
        """The key that replaces a refused one, or one that isn't known yet: an equal one if there is no other.

        Requests that were refused together share one renewal.
        """
        async with self.renewing:
            # By identity: a renewed key is a new object, so requests that waited for it meanwhile don't renew it again.
            if self.known is refused and self._renew is not None:
                self.known = await self._renew() or Secret(refused.value)
                self.redactor.add(self.known)
            return self.known


# --- the credentials file ---


def credentials_path() -> Path:
    return Path.home() / ".truefoundry" / "credentials.json"


@attrs.frozen
class CredentialsFile:
    """The content of the file, not checked yet. The CLI rewrites it, under a lock, when it refreshes the token."""

    path: Path
    host: Secret = attrs.field(default=Secret(None))
    token: Secret = attrs.field(default=Secret(None))

    def is_for(self, url: str) -> bool:
        return _host_key(self.host.value) == _host_key(url)

    @property
    def purpose(self) -> str:
        if _host_key(self.host.value) is None:
            return f"{self.path} names no host, so its token goes nowhere"
        return f"{self.path} is for {_normal(self.host.value)}, and its token goes there alone"

    @classmethod
    def read(cls, path: Path, *, again: bool = False) -> "CredentialsFile":
        """The file, `again` if its token was refused. If the CLI is rewriting it, its new content is waited for."""
        give_up = time.monotonic() + _LOCKED_AT_MOST
        while again and _is_locked(path) and time.monotonic() < give_up:
            time.sleep(_PAUSE)
        reads = 0
        while True:
            reads += 1
            flaw = "isn't a JSON object: log in again with the TrueFoundry CLI"
            try:
                _check_owner(path)
                data = Secret(path.read_bytes())
            except FileNotFoundError:
                if not again:
                    return cls(path)
                flaw = "is gone"
            except OSError as error:
                raise ConfigurationError(f"{path} can't be read: {error.strerror}") from None
            else:
                with suppress(ValueError, RecursionError):  # whose frames would show the content
                    data = Secret(json.loads(data.value))
                    if isinstance(data.value, dict):
                        return cls(path, Secret(data.value.get("host")), Secret(data.value.get("access_token")))
            if reads >= _READS and not (_is_locked(path) and time.monotonic() < give_up):
                raise ConfigurationError(f"{path} {flaw}")
            time.sleep(_PAUSE)


def _check_owner(path: Path) -> None:
    """Refuse a file that others can write: they could have the key sent to their own host."""
    if os.name != "posix":
        return
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # reading a pipe may never end
        raise ConfigurationError(f"{path} isn't a file: log in again with the TrueFoundry CLI")
    if status.st_mode & 0o022:
        raise ConfigurationError(f"others than its owner can write {path}: chmod 600 {path}, if what it holds is yours")
    if status.st_uid not in (0, os.getuid()):
        raise ConfigurationError(f"{path} belongs to another user: log in again with the TrueFoundry CLI")


def _is_locked(path: Path) -> bool:
    """Whether the CLI holds its lock on the file. (Never on Windows, which has no such locks.)"""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        with path.with_name(f"{path.name}.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released when the file is closed
    except OSError as error:  # any other says that there is no lock
        return isinstance(error, BlockingIOError)
    return False
