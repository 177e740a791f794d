"""All formats of exports, by their names and suffixes."""

from tfruns.export.arrow_files import ARROW_MODULES, arrow_file, arrow_piece, parquet_file, staged_file
from tfruns.export.databases import SqliteFile, sqlite_piece
from tfruns.export.text_files import CSV_NAMES, csv_rows, lines, text_format
from tfruns.export.writer import Format

FORMATS = (
    *(text_format(("jsonl", "ndjson"), ending, lines) for ending in ("", ".gz", ".zst")),
    *(text_format(("csv",), ending, csv_rows, CSV_NAMES) for ending in ("", ".gz")),
    Format("parquet", (".parquet",), arrow_piece, parquet_file, "arrow", ARROW_MODULES),
    Format("arrow", (".arrow", ".feather"), arrow_piece, arrow_file, "arrow", ARROW_MODULES),
    Format("sqlite", (".sqlite", ".sqlite3", ".db"), sqlite_piece, SqliteFile),
    Format("duckdb", (".duckdb",), arrow_piece, staged_file, "duckdb", ("duckdb", *ARROW_MODULES)),
)


def find_format(name: str | None, destination: str) -> Format:
    """The format of that name, or else of the suffix of a destination's name."""
    for known in FORMATS:
        if name == known.name or (name is None and destination.lower().endswith(known.suffixes)):
            return known
    names = ", ".join(known.name for known in FORMATS)
    if name is None:
        raise ValueError(f"the name {destination!r} doesn't say which format is meant: give one of {names}")
    raise ValueError(f"format must be one of {names}, got {name!r}")
