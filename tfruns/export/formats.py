"""The formats of an export: how a page becomes a piece, and how pieces become one file.

A new format is an entry of `FORMATS`, with two functions:

- `encode(job_id, page)` turns a page into the format's own form, some bytes. It runs in the export's thread
  while other pages are fetched, and should leave little to do for the end.
- `open(path, scratch)` gives a `Writer`, which gets all pieces, job after job in their order, once everything was read.
"""

from tfruns.export import arrow_files, databases, text_files
from tfruns.export.writer import Format

_ARROW = ("pyarrow", "pyarrow.compute", "pyarrow.parquet", "tfruns._table.arrow")

FORMATS = (
    Format("jsonl", (".jsonl", ".ndjson"), text_files.plain_piece, text_files.json_lines),
    Format("jsonl.gz", (".jsonl.gz", ".ndjson.gz"), text_files.gzip_piece, text_files.gzipped),
    Format("jsonl.zst", (".jsonl.zst", ".ndjson.zst"), text_files.zstd_piece, text_files.zstandard),
    Format("csv", (".csv",), text_files.csv_piece, text_files.comma_separated),
    Format("csv.gz", (".csv.gz",), text_files.csv_gzip_piece, text_files.comma_separated_gzipped),
    Format("parquet", (".parquet",), arrow_files.arrow_piece, arrow_files.parquet, extra="arrow", modules=_ARROW),
    Format("arrow", (".arrow", ".feather"), arrow_files.arrow_piece, arrow_files.arrow, extra="arrow", modules=_ARROW),
    Format("sqlite", (".sqlite", ".sqlite3", ".db"), databases.sqlite_piece, databases.sqlite),
    Format(
        "duckdb",
        (".duckdb",),
        arrow_files.arrow_piece,
        databases.duckdb,
        extra="duckdb",
        modules=("duckdb", *_ARROW),
    ),
)


def find_format(name: str | None, destination: str) -> Format:
    """The format of that name, or else of the suffix of a destination's name."""
    names = ", ".join(known.name for known in FORMATS)
    for known in FORMATS:
        if name == known.name or (name is None and destination.lower().endswith(known.suffixes)):
            return known
    if name is None:
        raise ValueError(f"the name {destination!r} doesn't say which format is meant: give one of {names}")
    raise ValueError(f"format must be one of {names}, got {name!r}")
