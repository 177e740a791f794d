"""What the writers of all formats have in common."""

import importlib
import os
from pathlib import Path
from typing import Any, Protocol

from tfruns._extras import install
from tfruns.export.errors import ExportError
from tfruns.export.files import fresh_file, write_all

_SYNC_EVERY = 16 * 2**20
"""Bytes after which it is waited until they are on the disk."""


class Writer(Protocol):
    """Puts pieces together, in the order in which they are written.

    It is used in one thread. If a piece isn't one of its format, `write` raises ValueError.
    """

    def write(self, piece: bytes) -> None:
        """Add a piece, as the format's `encode` has made it."""

    def close(self) -> None:
        """Write what is left, and close the file. (It may not be on the disk yet.)"""

    def abandon(self) -> None:
        """Close the file after an error. It may raise again."""


class Appended:
    """A file to which bytes are appended."""

    def __init__(self, path: Path) -> None:
        self.descriptor = fresh_file(path)
        self._unsynced = 0

    def append(self, data: bytes) -> None:
        write_all(self.descriptor, data)
        self._unsynced += len(data)
        if self._unsynced > _SYNC_EVERY:  # so that little is left for the end
            os.fsync(self.descriptor)
            self._unsynced = 0

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def abandon(self) -> None:
        Appended.close(self)


def needed(module: str, extra: str) -> Any:
    """The module of an extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(f"this format needs {module}: {install(extra)} ({error})") from None
