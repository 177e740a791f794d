"""The credentials file of the TrueFoundry CLI, which the CLI rewrites, under a lock, when it refreshes the token."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import attrs

from tfruns._http.secret import Secret
from tfruns.errors import ConfigurationError

_READS = 5  # of a file that is just being rewritten, before it counts as broken
_MOMENT = 0.05  # seconds between two of them
_LOCKED_AT_MOST = 2.0  # seconds that a refused request waits for the CLI


def credentials_path() -> Path:
    """Where the TrueFoundry CLI keeps its credentials."""
    return Path.home() / ".truefoundry" / "credentials.json"


class _HalfWrittenError(ConfigurationError):
    """The file may be complete in a moment."""


@attrs.frozen
class CredentialsFile:
    """What the file holds, not checked yet."""

    path: Path
    host: Secret
    token: Secret

    @classmethod
    def read(cls) -> "CredentialsFile | None":
        """The file, if there is one. One that is just being rewritten is read again a moment later.

        Raises:
            ConfigurationError: it can't be read, or isn't a JSON object.
        """
        for _ in range(_READS - 1):
            try:
                return cls._read_once()
            except _HalfWrittenError:
                time.sleep(_MOMENT)
        return cls._read_once()

    @classmethod
    async def read_again(cls) -> "CredentialsFile":
        """The file after its token was refused, as the CLI leaves it if it is at work on it.

        Raises:
            ConfigurationError: it can't be read, isn't a JSON object, or is gone.
        """
        give_up = time.monotonic() + _LOCKED_AT_MOST
        while _is_locked() and time.monotonic() < give_up:  # noqa: ASYNC110  # another process holds it
            await asyncio.sleep(_MOMENT)
        for _ in range(_READS - 1):
            try:
                if (file := cls._read_once()) is not None:
                    return file
            except _HalfWrittenError:
                pass
            await asyncio.sleep(_MOMENT)
        if (file := cls._read_once()) is None:
            raise ConfigurationError(f"{credentials_path()} is gone")
        return file

    @classmethod
    def _read_once(cls) -> "CredentialsFile | None":
        try:
            path = credentials_path()
        except RuntimeError:  # there is no home
            return None
        try:
            _check_owner(path)
            file = cls._parsed(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{path} can't be read: {error.strerror}") from None
        if file is None:
            raise _HalfWrittenError(f"{path} isn't a JSON object: log in again with the TrueFoundry CLI")
        return file

    @classmethod
    def _parsed(cls, path: Path) -> "CredentialsFile | None":
        """None if it isn't a JSON object. (It raises nothing for that: the traceback would show the content.)"""
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return None
        if not isinstance(content, dict):
            return None
        return cls(path, Secret(content.get("host")), Secret(content.get("access_token")))


def _check_owner(path: Path) -> None:
    """Refuse a file that others can write: they could have the key sent to a host of theirs."""
    if os.name != "posix":
        return
    status = path.stat()
    if status.st_mode & 0o022:
        raise ConfigurationError(f"others than its owner can write {path}: chmod 600 {path}, if what it holds is yours")
    if status.st_uid not in (0, os.getuid()):
        raise ConfigurationError(f"{path} belongs to another user: log in again with the TrueFoundry CLI")


def _is_locked() -> bool:
    """Whether the CLI holds its lock on the file. (Never on Windows, which has no such locks.)"""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        with credentials_path().with_name("credentials.json.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released when the file is closed
    except BlockingIOError:
        return True
    except (OSError, RuntimeError):  # there is no lock
        return False
    return False
