"""What all formats share. A format turns each page into a piece, some bytes in its own form, while other pages are
fetched; a writer puts the pieces together in one file, job after job in their order.

A new format is an entry of `FORMATS` in `formats`, with these two functions.
"""

import importlib
import importlib.util
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from tfruns._extras import install
from tfruns.errors import FieldProblem
from tfruns.export.results import ExportError
from tfruns.models import RawPage

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd


class Writer(ABC):
    """Puts pieces together, in the order in which they are written. It is used in one thread."""

    @abstractmethod
    def write(self, piece: bytes) -> None:
        """Add a piece. Raises ValueError if it isn't one of the format."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left, and close the file. (It may not be on the disk yet.)"""

    @abstractmethod
    def abandon(self) -> None:
        """Close the file after an error. It may raise again."""


@attrs.frozen
class Format:
    name: str
    suffixes: tuple[str, ...]
    encode: Callable[[str, RawPage], bytes]
    """Turns a page of a job into a piece. Raises ValueError or OverflowError if it can't hold a value."""
    open: Callable[[Path], Writer]  # takes the path of a new file
    extra: str = ""
    modules: tuple[str, ...] = ()  # the modules that the extra has to install
    unfit: Callable[[str, Mapping[str, Any]], Iterable[FieldProblem]] = lambda _job_id, _row: ()
    """Takes a job's id and the values of a run by column, and returns what the format can't hold, besides what is
    beyond `LIMITS`."""

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


def needed(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(f"this format needs {module}: {install(extra)} ({error})") from None


_compressors = threading.local()
"""Those of a thread, by their levels: the system would take as long to give each its memory anew."""


def compress(data: bytes, level: int) -> bytes:
    """One frame of Zstandard, with a checksum and the length of the data."""
    by_level: dict[int, zstd.ZstdCompressor] = vars(_compressors).setdefault("by_level", {})
    if level not in by_level:
        parameter = zstd.CompressionParameter
        by_level[level] = zstd.ZstdCompressor(options={parameter.compression_level: level, parameter.checksum_flag: 1})
    return by_level[level].compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


def pack(piece: bytes) -> bytes:
    return compress(piece, 1)


def unpack(piece: bytes) -> bytes:
    try:
        return zstd.decompress(piece)
    except zstd.ZstdError as error:
        raise ValueError(f"a damaged piece: {error}") from None
