"""Where runs are to be written, and in which format: a file, a folder of files, or a table."""

import importlib
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tfruns._checks import likely
from tfruns._extras import install
from tfruns.export import formats
from tfruns.export.dataset import Dataset
from tfruns.export.formats import ARROW_MODULES, Format
from tfruns.export.pipeline import QUARANTINE, Destination, Export
from tfruns.export.postgres import MOST_NAME_BYTES, PostgresTable
from tfruns.export.results import ExportError
from tfruns.export.secrets import Hidden, masked_url, scheme_of
from tfruns.export.store import OBJECT_STORES, PACKAGES, LocalStore, Store, remote_store
from tfruns.export.tables import TABLES, DuckDbTable, SqliteFile, SqliteTable, TableFile, sqlite_piece
from tfruns.export.watermark import State

FORMATS = (
    *(formats.text_format(("jsonl", "ndjson"), ending, formats.json_lines) for ending in ("", ".gz", ".zst")),
    *(formats.text_format(("csv",), ending, formats.csv_rows, formats.CSV_NAMES) for ending in ("", ".gz")),
    Format("parquet", (".parquet",), formats.arrow_piece, formats.parquet_file, "arrow", ARROW_MODULES),
    Format("arrow", (".arrow", ".feather"), formats.arrow_piece, formats.arrow_file, "arrow", ARROW_MODULES),
    Format("sqlite", (".sqlite", ".sqlite3", ".db"), sqlite_piece, SqliteFile, begins=SqliteTable.mark),
    Format(
        "duckdb",
        (".duckdb",),
        formats.arrow_piece,
        formats.staged_file,
        "duckdb",
        ("duckdb", *ARROW_MODULES),
        begins=DuckDbTable.mark,
    ),
)
_FORMATS_BY_DAY = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet")


def find_destination(given: Hidden, options: Hidden, table: str, format: str | None) -> Destination:  # noqa: A002
    if not isinstance(given.value, (str, os.PathLike)):
        raise TypeError(f"destination must be a path or a URL, got {type(given.value).__name__}")
    if given.value in ("", "-"):
        hint = ": only the command line writes to standard output" if given.value else ""
        raise ValueError(f"destination must be a path or a URL, got {given.value!r}{hint}")
    scheme = scheme_of(given)
    if scheme is not None:  # libraries know it only in lower case
        given = Hidden(scheme + str(given.value)[len(scheme) :])
    if scheme in ("file", "local"):
        path_of_url = str(given.value).partition("://")[2]
        if sys.platform == "win32":
            path_of_url = re.sub("^/+(?=[A-Za-z]:)", "", path_of_url)
        given, scheme = Hidden(path_of_url), None
    if scheme in ("postgresql", "postgres"):
        if format is not None:
            raise ValueError(f"format goes with files, not with a table of PostgreSQL, got {format!r}")
        if options.value is not None:
            raise ValueError("storage_options go with object stores: what PostgreSQL is to know stands in its URL")
        _check_database_url(given)
        return PostgresTable(given, _table_parts(table))
    if table != "runs":
        raise ValueError(f"table goes with postgresql:// alone, got {table!r}")
    if scheme is None:
        if options.value is not None:
            raise ValueError("storage_options go with a URL that fsspec knows, such as s3://bucket/runs.parquet")
        is_folder = isinstance(given.value, str) and given.value.endswith(("/", os.sep))
        path = _checked_path(given.value, is_folder=is_folder)
        store: Store = LocalStore(path.parent)
        name = path.name
    else:
        _check_url(given)
        store, name = remote_store(given, Hidden(dict(options.value or {})))
        is_folder, name = name.endswith("/"), name.removesuffix("/")
    if is_folder:
        if format not in _FORMATS_BY_DAY:
            raise ValueError(
                f"a folder is a dataset of files by day, whose format must be one of {', '.join(_FORMATS_BY_DAY)}; "
                + ("none was given" if format is None else f"got {format!r}{likely(format, _FORMATS_BY_DAY)}")
            )
        return Dataset(store=store, base=name, format_=_find_format(format, ""))
    format_ = _find_format(format, name if scheme else Path(given.value).name)  # that of a link, not of its target
    if isinstance(store, LocalStore) and format_.name in TABLES:
        return TableFile(path=store.path(name), format_=format_, table=TABLES[format_.name])
    return File(store=store, name=name, format_=format_)


def _find_format(name: str | None, destination: str) -> Format:
    """The format of that name, or else of the suffix of a destination's name."""
    for known in FORMATS:
        if name == known.name or (name is None and destination.lower().endswith(known.suffixes)):
            return known
    names = [known.name for known in FORMATS]
    if name is None:
        meant = likely(destination.rpartition(".")[2], names)
        allowed = f"give one of {', '.join(names)}{meant}"
        raise ValueError(f"the name {destination!r} doesn't say which format is meant: {allowed}")
    raise ValueError(f"format must be one of {', '.join(names)}, got {name!r}{likely(name, names)}")


_STREAM = re.compile(r"/dev/(?:stdin|stdout|stderr|fd/[0-9]+)|/proc/(?:self|[0-9]+)/fd/[0-9]+")
_HOST = r"(?:[^\[\]:,/?#@]*|\[[^\[\],/?#@]+\])(?::[0-9]*)?"
_USER = r"(?:[^@:?#\[\]/ ]*(?::[^@:?#\[\]/ ]*)?@)?"  # and the password
_DATABASE_URL = re.compile(rf"[a-z]+://{_USER}{_HOST}(?:,{_HOST})*(?:/[^@#?]*(?:\?[^#]*)?|\?[^#@]*)?", re.DOTALL)
_SHORTENED_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")


def _checked_path(destination: str | os.PathLike[str], *, is_folder: bool) -> Path:
    """The path to write to, for a symbolic link the one that it points to: a file, or a folder that may not exist."""
    given = os.fspath(destination)
    if isinstance(given, str) and _STREAM.fullmatch(given):
        raise ExportError(
            f"{given} is an open stream, and can't be replaced by a file that is whole: `tfruns export -o -` writes"
            " JSON lines or CSV to standard output"
        )
    if not isinstance(destination, str) and isinstance(given, str) and _SHORTENED_URL.match(given):
        raise ValueError("a URL must be given as a string: in a path, it isn't one any more")
    path = Path(os.path.realpath(given))
    if path.is_symlink():
        raise ExportError(f"{path} is a symbolic link that leads in a circle")
    if not is_folder and path.is_dir():
        raise ExportError(f"{path} is a folder: name a file in it, or end it with a slash for files by day")
    if not is_folder and path.exists() and not path.is_file():  # a new file would replace /dev/null
        raise ExportError(f"{path} is no ordinary file, and can't be replaced by one")
    if not path.name or not path.parent.is_dir():
        hint = f", or write {str(given).partition(':')[0]}:// for a URL" if _SHORTENED_URL.match(str(given)) else ""
        raise ExportError(f"there is no folder {path.parent} for {path.name or path}: make it first{hint}")
    return path


def _check_url(url: Hidden) -> None:
    """Check that a URL can be understood in one way only, and by an installed package."""
    scheme, named = scheme_of(url), masked_url(url)
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise ExportError(f"destinations with {scheme}:// need fsspec: {install('fsspec')} ({error})") from None
    if scheme in ("http", "https") or (scheme not in PACKAGES and scheme not in fsspec.available_protocols()):
        raise ValueError(
            f"runs can't be written to a URL with {scheme}://: give a path, postgresql://, or what fsspec can write,"
            " such as s3://, gs:// or abfs://"
        )
    where, _, key = named.partition("://")[2].partition("/")
    if not (where and key) if scheme in PACKAGES else not (where or key):
        raise ValueError(f"{named} names no object: give one such as {scheme}://bucket/runs.parquet")
    if "::" in named or named.endswith("//") or (scheme in OBJECT_STORES and "//" in f"/{key}"):
        problem = "two slashes in a row, or two colons, which fsspec takes for something else"
        raise ValueError(f"{named} has {problem}: give another name")


def _table_parts(table: str) -> tuple[str, ...]:
    """The name of a table, or of a schema and a table."""
    if not isinstance(table, str):
        raise TypeError(f"table must be the name of a table, got {table!r}")
    parts = tuple(table.split("."))
    if len(parts) > 2 or not all(0 < len(part.encode()) <= MOST_NAME_BYTES and "\0" not in part for part in parts):
        allowed = "the name of a table, or of a schema and a table with a dot between, each of at most 63 bytes"
        raise ValueError(f"table must be {allowed}, got {table!r}")
    return parts


def _check_database_url(url: Hidden) -> None:
    """Check that a URL can be understood in one way only: else an error could show a part of the password."""
    if not _DATABASE_URL.fullmatch(url.value):
        raise ValueError(
            "the URL of the database can't be understood: it must be as postgresql://user:password@host:5432/database,"
            " in which the characters / ? # [ ] @ : % and space of a password are encoded, such as %2F for /"
        )


# --- the simplest destination ---

_MOST_EXPORTS = 10_000
"""After so many exports with one state, the names of their files would no longer sort in their order."""


@attrs.define
class File(Destination):
    """A file: a new one takes its place. With a state, each export writes a file of its own."""

    store: Store
    name: str
    format_: Format
    _before: Sequence[str] = ()  # files of exports with the state that begins anew

    @property
    def path(self) -> Path | str:
        return self.store.path(self.name)

    def begin(self, export: Export) -> str:
        state, first = export.state, self.format_.for_increment(self.name, 0)
        if state is not None:
            self.name = self.format_.for_increment(self.name, state.exports)
        self.store.check(self.name)
        names = self.store.names()
        if state is None:
            if first in names:
                raise ExportError(
                    f"{first} is of exports with a state: a file of all runs beside it would be taken for newer than"
                    " those to come. Give the state, or another destination"
                )
            self.replaces = self.name in names
            return ""
        if state.exports >= _MOST_EXPORTS:
            raise ExportError(
                f"there were {_MOST_EXPORTS:,} exports with {export.state_path}, and no more files can be named in"
                " their order: begin anew with replace=True (--replace)"
            )
        before, after = first.rsplit(".0000", 1)
        pattern = re.compile(rf"{re.escape(before)}\.([0-9]{{4}}){re.escape(after)}")
        if self.path == export.state_path:
            raise ExportError(f"{self.path} can't be both the state and what is written: give the state another name")
        found = {name: int(match[1]) for name in sorted(names) if (match := pattern.fullmatch(name))}
        wrong = [
            other for other in found if other >= self.name and (other, str(self.path)) != (self.name, state.writing)
        ]
        if state.first_size not in (None, names.get(first, state.first_size)):  # those of this state were thrown away
            wrong.append(first)
        if wrong and not export.replace:
            raise ExportError(
                f"{wrong[-1]} is of other exports than those with the state {export.state_path}, and would be replaced"
                " or taken for newer: give their state or another destination, move their files away, or begin anew"
                " with replace=True (--replace)"
            )
        if export.replace and export.state_path:  # beyond those that it has counted may be files of others
            number = max(1, State.count(export.state_path))
            while (name := f"{before}.{number:04}{after}") in found and self._is_ours(name):
                number += 1
            self._before = [other for other, of_other in found.items() if 0 < of_other < number]
        return ""

    def _is_ours(self, name: str) -> bool:
        with tempfile.TemporaryDirectory(prefix="tfruns-") as scratch:
            path = self.store.fetch(name, Path(scratch))
            return path is not None and self.format_.has_written(path)

    def finish(self, export: Export) -> Mapping[str, Any]:
        fresh = export.scratch / "fresh"
        size = fresh.stat().st_size
        if export.state is not None and not export.is_increment:
            export.state.first_size = size
        with export.announced():
            self.store.put(fresh, self.name, export.check)
        quarantine = export.put_quarantine(self.store, self.name)
        for name in reversed(self._before):  # the last first, so that those that are left are what was once exported
            export.check()
            self.store.remove(name)
            self.store.remove(name + QUARANTINE)
        return {"size": size, "removed_files": len(self._before), "quarantine": quarantine}
