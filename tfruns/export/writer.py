"""What the writers of all formats have in common."""

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs

from tfruns._extras import install
from tfruns.export.files import fresh_file, write_all
from tfruns.export.results import ExportError
from tfruns.models import RawPage

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


@attrs.frozen
class Format:
    """A format of an export."""

    name: str
    suffixes: tuple[str, ...]
    encode: Callable[[str, RawPage], bytes]
    """Turns a page of a job into a piece.

    Raises ValueError or OverflowError if it can't hold a value (see `LIMITS` of tables).
    """
    open: Callable[[Path, Path], Writer]
    """Takes the file's path, and that of a folder for temporary files, and returns the writer of the file."""
    extra: str = ""
    modules: tuple[str, ...] = ()
    """The modules that the extra has to install."""
    unfit: Callable[[str, Mapping[str, Any]], Iterable[tuple[str, str]]] = lambda _job_id, _row: ()
    """Takes a job's id and the values of a run by column, and returns the fields that the format can't hold, each with
    the reason, without those beyond `LIMITS` of tables."""

    def check(self) -> None:
        """Raise ExportError if what the format needs isn't installed, without importing it."""
        for module in self.modules:
            if importlib.util.find_spec(module.partition(".")[0]) is None:
                needed(module, self.extra)

    def load(self) -> None:
        """Import what the format needs: that takes a while, so it is done while the first responses are awaited."""
        for module in self.modules:
            needed(module, self.extra)

    def for_increment(self, name: str, number: int) -> str:
        """The file of one of several exports: `runs.0001.jsonl` is the second for `runs.jsonl`."""
        suffix = next((suffix for suffix in self.suffixes if name.lower().endswith(suffix)), "")
        stem = name[: len(name) - len(suffix)]
        return f"{stem}.{number:04}{name[len(stem) :]}"
