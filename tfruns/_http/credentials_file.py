"""The credentials file of the TrueFoundry CLI, which the CLI rewrites, under a lock, when it refreshes the token."""

import asyncio
import json
import os
import stat
import sys
import time
from pathlib import Path

import attrs

from tfruns._http.secret import Secret
from tfruns.errors import ConfigurationError

_READS = 5  # of a file that is being rewritten, before it counts as broken
_PAUSE = 0.05  # seconds between two reads
_LOCKED_AT_MOST = 2.0  # seconds that a refused request waits for the CLI


def credentials_path() -> Path:
    """Where the TrueFoundry CLI keeps its credentials."""
    return Path.home() / ".truefoundry" / "credentials.json"


_GONE = "is gone"
_BROKEN = "isn't a JSON object: log in again with the TrueFoundry CLI"


@attrs.frozen
class CredentialsFile:
    """The content of the file, not checked yet."""

    path: Path
    host: Secret
    token: Secret

    @classmethod
    def read(cls) -> "CredentialsFile | None":
        """The file, if there is one. If it is being rewritten, it is read again a moment later.

        Raises:
            ConfigurationError: it can't be read, or isn't a JSON object.
        """
        try:
            path = credentials_path()
        except RuntimeError:  # there is no home folder
            return None
        for _ in range(_READS):
            found = cls._read_once(path)
            if not isinstance(found, str):
                return found
            if found == _GONE:
                return None
            time.sleep(_PAUSE)
        raise ConfigurationError(f"{path} {_BROKEN}")

    @classmethod
    async def read_again(cls, path: Path) -> "CredentialsFile":
        """The file after its token was refused; if the CLI is rewriting it, its new content.

        Raises:
            ConfigurationError: it can't be read, isn't a JSON object, or was removed.
        """
        give_up = time.monotonic() + _LOCKED_AT_MOST
        while _is_locked(path) and time.monotonic() < give_up:  # noqa: ASYNC110  # another process holds it
            await asyncio.sleep(_PAUSE)
        found: CredentialsFile | str = _GONE
        for _ in range(_READS):
            found = cls._read_once(path)
            if not isinstance(found, str):
                return found
            await asyncio.sleep(_PAUSE)
        raise ConfigurationError(f"{path} {found}")

    @classmethod
    def _read_once(cls, path: Path) -> "CredentialsFile | str":
        """The file, or what is wrong with it at this moment. (No error is raised with the content in its frames.)"""
        try:
            _check_owner(path)
            data = Secret(path.read_bytes())
        except FileNotFoundError:
            return _GONE
        except OSError as error:
            raise ConfigurationError(f"{path} can't be read: {error.strerror}") from None
        try:
            content = json.loads(data.value)
        except (ValueError, RecursionError):
            return _BROKEN
        if not isinstance(content, dict):
            return _BROKEN
        return cls(path, Secret(content.get("host")), Secret(content.get("access_token")))


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
    except BlockingIOError:
        return True
    except OSError:  # there is no lock
        return False
    return False
