"""What all formats share. A format turns each page into a piece, some bytes in its own form, while other pages are
fetched; a writer puts the pieces together in one file, job after job in their order.

A new format is an entry of `FORMATS` in `destination`, with these two functions. Runs that a format can't hold, or that
nobody understands, go to the quarantine.
"""

import importlib
import importlib.util
import json
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import attrs
import msgspec

from tfruns._extras import install
from tfruns._table.columns import COLUMNS, LIMITS, Kind, values_of
from tfruns.errors import FieldProblem
from tfruns.export.results import ExportError
from tfruns.models import BadRun, JobRun, RawPage

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd


class Writer(ABC):
    """Puts pieces together, in the order in which they are written. It is used in one thread."""

    def write(self, packed: bytes) -> None:
        """Add a piece, as `pack` made it. Raises ZstdError if it was damaged."""
        self.add(unpack(packed))

    @abstractmethod
    def add(self, piece: bytes) -> None:
        """Add a piece."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left, and close the file, even if that fails. (It may not be on the disk yet.)"""


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
    """Says what the format can't hold of a run, by its job's id and its values by column, besides `LIMITS`."""

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


# --- runs that can't be written ---


class RejectedRun(msgspec.Struct, rename="camel"):
    """A run that was set aside, as a line of the quarantine."""

    job_id: str
    run_id: str
    field: str
    why: str
    text: str

    @classmethod
    def of(cls, job_id: str, run: BadRun) -> Self:
        why = "; ".join(f"{problem.field}: {problem.reason}" for problem in run.problems)
        field = run.problems[0].field if run.problems else ""
        return cls(job_id, run.id, field, why, run.text.decode("utf-8", "replace"))

    @property
    def line(self) -> bytes:
        return json.dumps(msgspec.to_builtins(self), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def unfit(job_id: str, run: JobRun, format_: Format) -> tuple[FieldProblem, ...]:
    """Why a format with columns can't hold a run."""
    problems: list[FieldProblem] = []
    row: dict[str, Any] = {}
    for column, (value,) in zip(COLUMNS, values_of([run]), strict=True):
        row[column.name] = value
        least, most = LIMITS.get(column.kind, (None, None))
        if value is not None and least is not None and not least <= value <= most:
            what = "a moment in the years 1 to 9999" if column.kind is Kind.INSTANT else "a number of 64 bits"
            problems.append(FieldProblem(column.name, f"expected {what}, got {value!r}"))
    return (*problems, *format_.unfit(job_id, row))


# --- what several formats need ---


ZSTD_OPTIONS: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}
_FAST = ZSTD_OPTIONS | {zstd.CompressionParameter.compression_level: 1}


class _Compressors(threading.local):
    """One of each thread: the system would take as long to give each its memory anew."""

    def __init__(self) -> None:
        self.fast = zstd.ZstdCompressor(options=_FAST)


_compressors = _Compressors()


def pack(piece: bytes) -> bytes:
    """One frame of Zstandard, compressed fast."""
    return _compressors.fast.compress(piece, zstd.ZstdCompressor.FLUSH_FRAME)


def unpack(packed: bytes) -> bytes:
    return zstd.decompress(packed)
