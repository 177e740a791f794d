"""The formats of an export, and how each is written: one file, from lines that come job by job."""

from collections.abc import Callable
from pathlib import Path

import attrs

from tfruns.export import tables, texts
from tfruns.export.writers import Writer, needed


@attrs.frozen
class Format:
    """A format of an export."""

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[Path], Writer]
    is_database: bool = False
    """Whether a run that is written again takes the place of the one before."""
    extra: str = ""
    modules: tuple[str, ...] = ()
    """What the extra has to bring."""

    def check(self) -> None:
        """Raise ExportError if what the format needs isn't installed."""
        for module in self.modules:
            needed(module, self.extra)


FORMATS = (
    Format("jsonl", (".jsonl", ".ndjson"), texts.json_lines),
    Format("jsonl.gz", (".jsonl.gz", ".ndjson.gz"), texts.gzipped),
    Format("jsonl.zst", (".jsonl.zst", ".ndjson.zst"), texts.zstd, extra="zstd", modules=("zstandard",)),
    Format("csv", (".csv",), texts.comma_separated),
    Format("parquet", (".parquet",), tables.parquet, extra="arrow", modules=("pyarrow",)),
    Format("arrow", (".arrow", ".feather"), tables.arrow, extra="arrow", modules=("pyarrow",)),
    Format("sqlite", (".sqlite", ".sqlite3", ".db"), tables.sqlite, is_database=True),
    Format("duckdb", (".duckdb",), tables.duckdb, is_database=True, extra="duckdb", modules=("duckdb", "pyarrow")),
)


def find_format(name: str | None, destination: Path) -> Format:
    """The format of that name, or else of the destination's suffix.

    Raises:
        ValueError: there is none.
    """
    names = ", ".join(known.name for known in FORMATS)
    for known in FORMATS:
        if name == known.name or (name is None and destination.name.lower().endswith(known.suffixes)):
            return known
    if name is None:
        raise ValueError(f"the format can't be told from the name {destination.name!r}: give one of {names}")
    raise ValueError(f"format must be one of {names}, got {name!r}")
