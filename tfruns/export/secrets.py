"""Keeps a destination and its options out of every message, repr, pickle and traceback.

A destination may hold a password (`postgresql://me:secret@host/db`), and the options of an object store keys. Error
trackers and rich tracebacks show the variables of each frame that an exception went through. So both are wrapped where
they enter, no variable of ours holds them as they are, and an error of a library that was given them is never passed
on: only its text is, in an error of our own, without the secrets.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

from tfruns._http.secret import Secret
from tfruns._text import printable
from tfruns.export.results import ExportError

_T = TypeVar("_T")
_MASK = "[hidden]"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
NAMED_BY_BUCKET = frozenset({"s3", "s3a", "gs", "gcs", "memory", "oss", "oci"})
"""Schemes whose URLs have the name of a bucket in place of a host: all that follows it is a key, unchanged."""
_NOT_SECRET = frozenset(
    {"application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname", "gssencmode", "host"}
    | {"hostaddr", "port", "service", "sslcert", "sslcrl", "sslkey", "sslmode", "sslrootcert", "target_session_attrs"}
)
"""Parameters of a URL whose values are words that messages need, such as `require`."""
_NAMED_BY_CONTAINER = frozenset({"abfs", "abfss", "az", "adl"})
"""Azure's: `abfs://container@account.dfs.core.windows.net/key`."""


class Hidden(Secret):
    """A destination, its options, or the secrets in them."""

    __slots__ = ()
    _mask = _MASK
    _refusal = "a destination can't be pickled or copied"


def scheme_of(given: Hidden) -> str | None:
    """The scheme of a URL, in lower case; None if it isn't a URL."""
    found = _URL.match(given.value) if isinstance(given.value, str) else None
    return None if found is None else found[1].lower()


def masked_url(given: Hidden) -> str:
    """A URL without its user, password and query (which may hold a token); a path as it is."""
    if (scheme := scheme_of(given)) is None:
        return str(given.value)
    head, _, rest = str(given.value).partition("://")
    authority, slash, key = rest.partition("/")
    if scheme in NAMED_BY_BUCKET:
        return f"{head}://{authority.rpartition('@')[2]}{slash}{key}"
    rest = rest.partition("?")[0]
    if scheme in _NAMED_BY_CONTAINER and ":" not in authority.partition("@")[0]:
        return f"{head}://{rest}"
    # Up to the last @: with a slash in it that wasn't encoded, a part of the password would look like a path.
    return f"{head}://{rest.rpartition('@')[2]}"


def secrets_of(url: Hidden, options: Hidden) -> Hidden:
    """The texts that no message may hold, the longest first."""
    return Hidden(sorted({*_of_url(url.value), *_of_options(options.value)}, key=len, reverse=True))


def _of_url(url: str) -> Iterator[str]:
    userinfo = url.partition("://")[2].rpartition("@")[0]
    parts = [part.partition("=") for part in re.split("[&;]", url.partition("?")[2])]
    found = [userinfo.partition(":")[2], *(value for name, _, value in parts if name not in _NOT_SECRET)]
    for text in found:
        if len(text) >= 3:  # shorter texts are in many words
            yield from (text, unquote(text))


def _of_options(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _of_options([*value.values()])
    elif isinstance(value, (list, tuple, set)):
        for each in value:
            yield from _of_options(each)
    elif isinstance(value, bytes):
        yield from _of_options(value.decode("utf-8", "replace"))
    # A URL without a password isn't secret: the message is about it.
    elif isinstance(value, str) and len(value) >= 4 and (not _URL.match(value) or "@" in value or "?" in value):
        yield value


def clean(text: str, secrets: Hidden) -> str:
    """A text from elsewhere as one printable line without the secrets."""
    for secret in secrets.value:
        text = text.replace(secret, _MASK)
    return printable(" ".join(text.split()))


def guarded(secrets: Hidden, failed: str, call: Callable[[], _T], *, but: tuple[type[Exception], ...] = ()) -> _T:
    """Call a library that was given secrets, so that none of its frames and errors gets out: the message says what
    `failed`. For kinds of errors that the caller handles, a new one of that kind is raised, without the text."""
    problem: Exception
    try:
        return call()
    except but as error:
        problem = next(kind for kind in but if isinstance(error, kind))()
    except Exception as error:
        problem = ExportError(f"{failed}: {clean(str(error), secrets) or type(error).__name__}")
    # Outside of the block, so that the error has no context, whose frames hold the secrets.
    raise problem
