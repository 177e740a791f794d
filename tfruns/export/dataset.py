"""A folder of files, one for each day on which runs were created: a dataset, which engines read directly.

`runs/created_date=2026-11-24/runs.parquet` holds all runs of that day. A run is in the file of one day only, whatever
happens to it later. So each file can be replaced on its own, and a run is never in the folder twice.
"""

import contextlib
import gzip
import os
import re
import struct
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Protocol

import attrs
import msgspec

from tfruns._table.columns import JOB_ID, LIMITS, Kind
from tfruns.export import text_files
from tfruns.export.arrow_files import arrow_module, read_piece
from tfruns.export.compress import pack, unpack, zstd
from tfruns.export.destination import cache_folder, named_work_folder
from tfruns.export.errors import ExportError
from tfruns.export.finish import Content, Written
from tfruns.export.formats import FORMATS, Format
from tfruns.export.local import fresh_folder, new_folder, put_in_place, write_quarantine
from tfruns.export.page import Page
from tfruns.export.stores import Store

Key = tuple[str, str]
"""Ids of a job and of a run."""

_HELD = 8 * 2**20
"""How many bytes of runs are held in memory while they are sorted by day."""
_DAY = re.compile(r"created_date=([0-9]{4}-[0-9]{2}-[0-9]{2})")
_COMPLETE = "_SUCCESS"
"""An empty file that is in the folder while no file in it is being replaced, as with Spark; engines don't read it."""
_MICROSECONDS_A_DAY = 86_400_000_000
_EPOCH = date(1970, 1, 1)


def day_of(created_at: float) -> int:
    """The day of a moment in milliseconds since 1970 UTC, in days since then."""
    return round(created_at * 1000) // _MICROSECONDS_A_DAY


def _folder_of(day: int) -> str:
    return f"created_date={(_EPOCH + timedelta(days=day)).isoformat()}"


# --- what a format has to do for a dataset ---


class Layout(Protocol):
    """How runs of a format are sorted by day."""

    form: Format
    """How pages become pieces."""
    file_form: Format
    """How pieces become a file."""

    @abstractmethod
    def split(self, piece: bytes) -> Iterable[tuple[int, Any, int]]:
        """The runs of a piece, grouped by day: for each group the day, the runs, and their size in bytes."""

    @abstractmethod
    def join(self, some: list[Any]) -> bytes:
        """Runs of one day as a piece of the file's format."""

    @abstractmethod
    def keys(self, piece: bytes) -> Iterable[Key]:
        """The keys of the runs in a piece of the file's format."""

    @abstractmethod
    def others(self, path: Path, keys: Collection[Key]) -> Iterator[bytes]:
        """The runs of a file that have none of these keys, as pieces of the file's format."""


class _Tables:
    """Parquet: record batches are sorted."""

    def __init__(self, form: Format) -> None:
        self.form = attrs.evolve(form, name="parquet by day")
        self.file_form = form

    def split(self, piece: bytes) -> Iterable[tuple[int, Any, int]]:
        pa = arrow_module().pa
        batch = read_piece(piece)
        moments = batch.column("created_at").cast(pa.int64()).to_pylist()
        days = [moment // _MICROSECONDS_A_DAY for moment in moments]
        order = sorted(range(len(days)), key=days.__getitem__)
        batch = batch.take(pa.array(order, pa.int64()))
        begin = 0
        for at in range(1, len(order) + 1):
            if at == len(order) or days[order[at]] != days[order[begin]]:
                yield days[order[begin]], batch.slice(begin, at - begin), batch.nbytes * (at - begin) // len(order)
                begin = at

    def join(self, some: list[Any]) -> bytes:
        table = arrow_module().pa.Table.from_batches(some).combine_chunks()
        return pack(table.to_batches()[0].serialize())

    def keys(self, piece: bytes) -> Iterable[Key]:
        return _keys(read_piece(piece))

    def others(self, path: Path, keys: Collection[Key]) -> Iterator[bytes]:
        from pyarrow import parquet

        arrow = arrow_module()
        with parquet.ParquetFile(path) as file:
            if not file.schema_arrow.equals(arrow.SCHEMA):
                raise ExportError(
                    f"{path.name} isn't what an export of this version has written: export all to another folder"
                )
            for batch in file.iter_batches(10_000):
                table = arrow.pa.Table.from_batches([batch]).cast(arrow.PLAIN_SCHEMA).combine_chunks()
                for plain in table.to_batches():
                    kept = [key not in keys for key in _keys(plain)]
                    if any(kept):
                        yield pack(plain.filter(arrow.pa.array(kept)).serialize())


def _keys(batch: Any) -> Iterable[Key]:
    return zip(batch.column(JOB_ID).to_pylist(), batch.column("id").to_pylist(), strict=True)


class _Line(msgspec.Struct, rename="camel"):
    job_id: str
    id: str


class _Lines:
    """JSON lines: text is sorted."""

    def __init__(self, form: Format) -> None:
        self.form = attrs.evolve(form, name=f"{form.name} by day", encode=_lines_by_day)
        self.file_form = form
        self._compress, self._expand, self._open = {
            "jsonl": (pack, unpack, open),
            "jsonl.gz": (text_files.member, gzip.decompress, gzip.open),
            "jsonl.zst": (text_files.frame, unpack, zstd.open),
        }[form.name]

    def split(self, piece: bytes) -> Iterable[tuple[int, Any, int]]:
        for day, lines in msgspec.msgpack.decode(unpack(piece), type=list[tuple[int, bytes]]):
            yield day, lines, len(lines)

    def join(self, some: list[Any]) -> bytes:
        return self._compress(b"".join(some))

    def keys(self, piece: bytes) -> Iterable[Key]:
        return map(_key, self._expand(piece).splitlines())

    def others(self, path: Path, keys: Collection[Key]) -> Iterator[bytes]:
        open_: Any = self._open
        with open_(path, "rb") as file:
            while lines := file.readlines(2**20):
                try:
                    kept = [line for line in lines if _key(line) not in keys]
                except msgspec.DecodeError as error:
                    raise ExportError(f"{path.name} isn't what an export has written: {error}") from None
                if kept:
                    yield self._compress(b"".join(kept))


def _key(line: bytes) -> Key:
    found = msgspec.json.decode(line, type=_Line)
    return found.job_id, found.id


def _lines_by_day(page: Page) -> bytes:
    least, most = LIMITS[Kind.INSTANT]
    by_day: dict[int, list[int]] = {}
    for at, run in enumerate(page.runs):
        if not least <= run.created_at <= most:
            raise ValueError("created_at is beyond the years 1 to 9999")
        by_day.setdefault(day_of(run.created_at), []).append(at)
    if len(by_day) == 1:
        return pack(msgspec.msgpack.encode([(day, text_files.lines(page)) for day in by_day]))
    return pack(msgspec.msgpack.encode([(day, text_files.lines(page.only(at))) for day, at in by_day.items()]))


def find_layout(name: str | None) -> Layout:
    """The layout of a format.

    Raises:
        ValueError: a dataset can't have this format.
    """
    forms = {form.name: form for form in FORMATS if form.name in ("parquet", "jsonl", "jsonl.gz", "jsonl.zst")}
    if name not in forms:
        raise ValueError(
            f"a folder is a dataset of files by day, whose format must be one of {', '.join(forms)}; "
            + ("none was given" if name is None else f"got {name!r}")
        )
    return _Tables(forms[name]) if name == "parquet" else _Lines(forms[name])


# --- where it is ---


class Folder(Protocol):
    """A folder of files, whose names are paths in it, with slashes."""

    @property
    @abstractmethod
    def path(self) -> Path | str:
        """The folder, as messages may show it."""

    def check(self) -> None:
        """Raise ExportError if there can be no such folder."""

    @abstractmethod
    def scratch(self, work: Path) -> Path:
        """The folder in which files are made before they are put there; `work` is the working folder."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """The files, each with its size."""

    @abstractmethod
    def fetch(self, name: str, scratch: Path) -> Path:
        """A file, to be read."""

    def put(self, source: Path, name: str, check: Callable[[], None]) -> None:
        """Put a file in the place of the one of that name."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    @abstractmethod
    def beside(self, name: str) -> Path | str:
        """The path of a file beside the folder."""

    def put_rejected(self, content: Content, name: str, scratch: Path) -> None:
        """Write the quarantine beside the folder, or remove it."""


@attrs.frozen
class LocalFolder:
    """A folder on this machine."""

    path: Path

    def check(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ExportError(f"{self.path} is no folder")

    def scratch(self, work: Path) -> Path:
        return fresh_folder(work, self.path)

    def sizes(self) -> dict[str, int]:
        found = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in found}

    def fetch(self, name: str, scratch: Path) -> Path:
        return self.path / name

    def put(self, source: Path, name: str, check: Callable[[], None]) -> None:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(source, place, check)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else is in it
            (self.path / name).parent.rmdir()

    def beside(self, name: str) -> Path:
        return self.path.with_name(name)

    def put_rejected(self, content: Content, name: str, scratch: Path) -> None:
        write_quarantine(content, self.beside(name), scratch / "rejected")


@attrs.frozen
class StoredFolder:
    """A folder in an object store. Its URL ends with a slash."""

    store: Store

    @property
    def path(self) -> str:
        return self.store.shown

    def check(self) -> None:
        self.store.check()

    def scratch(self, work: Path) -> Path:
        return work / "new"

    def sizes(self) -> dict[str, int]:
        return self.store.sizes()

    def fetch(self, name: str, scratch: Path) -> Path:
        path = scratch / "before"
        self.store.sibling(name).get(path)
        return path

    def put(self, source: Path, name: str, check: Callable[[], None]) -> None:
        self.store.sibling(name).put(source, check)

    def remove(self, name: str) -> None:
        self.store.sibling(name).remove()

    def beside(self, name: str) -> str:
        return self.store.beside(name).shown

    def put_rejected(self, content: Content, name: str, scratch: Path) -> None:
        self.store.beside(name).put_rejected(content, scratch)


# --- the destination ---


@attrs.frozen
class Dataset:
    """A folder of files by day. An export replaces all files; or, with a state, those of the days on which its new and
    changed runs were created."""

    folder: Folder
    layout: Layout
    base: str
    """The folder's name."""
    number: int | None = None
    """Which of several exports with a state this is."""

    @property
    def form(self) -> Format:
        return self.layout.form

    @property
    def path(self) -> Path | str:
        return self.folder.path

    @property
    def _rejected(self) -> str:
        number = "" if self.number is None else f".{self.number:04}"
        return f"{self.base}{number}.rejected.jsonl"

    @property
    def quarantine(self) -> Path | str:
        return self.folder.beside(self._rejected)

    @property
    def is_file(self) -> bool:
        return False

    @property
    def about(self) -> Mapping[str, str]:
        return {"folder": self.base}

    @property
    def _file(self) -> str:
        return "runs" + self.layout.file_form.suffixes[0]

    def work_folder(self, work_dir: Path | None) -> Path:
        if work_dir is None and isinstance(self.path, Path):
            return self.path.with_name(self.base + ".tfruns-partial")
        return named_work_folder(work_dir or cache_folder(), self.base, os.fsencode(self.path))

    def check(self) -> None:
        self.form.check()
        self.folder.check()
        for name in self._names():
            day, _, file = name.partition("/")
            if not _DAY.fullmatch(day) or file != self._file:
                raise ExportError(
                    f"{self.path} holds {name}, which isn't of such a dataset, and would be read with it: give another"
                    " folder, or move that away"
                )

    def begin(self, state: Path | None) -> None:
        pass

    def numbered(self, number: int, state: Path) -> "Dataset":
        if number > 0 and not self.folder.sizes():
            raise ExportError(
                f"{self.path} isn't there, but by {state} it was written before: delete that to write it anew"
            )
        return attrs.evolve(self, number=number)

    def _names(self) -> dict[str, int]:
        """The files that engines read, each with its size."""
        sizes = self.folder.sizes()
        return {name: size for name, size in sizes.items() if not re.search(r"(^|/)[._]", name)}

    def finish(self, content: Content, work: Path) -> Written:
        before = self._names()
        with new_folder(self.folder.scratch(work)) as scratch:
            self.folder.put_rejected(content, self._rejected, scratch)
            made = self._make(content, before, scratch)  # all of it, so that a full disk changes nothing
            after = {} if content.gone is None else dict(before)
            content.check()
            if before:
                self.folder.remove(_COMPLETE)
            for name, path in made.items():
                content.check()
                if path is None:
                    self.folder.remove(name)
                    after.pop(name, None)
                else:
                    after[name] = path.stat().st_size
                    self.folder.put(path, name, content.check)
            for name in before.keys() - after.keys() - made.keys():
                self.folder.remove(name)
            (scratch / _COMPLETE).touch()
            self.folder.put(scratch / _COMPLETE, _COMPLETE, content.check)
        return Written(size=sum(after.values()), removed_files=len(before.keys() - after.keys()))

    def _make(self, content: Content, before: Mapping[str, int], scratch: Path) -> dict[str, Path | None]:
        """Write the files of all days that change, each to be put under its name; None for one without a run."""
        days = _Days(self.layout, scratch)
        for piece in content.pieces():
            try:
                days.add(piece)
            except ValueError:
                raise content.parts.damaged() from None
        gone: dict[int, set[Key]] = {}
        for job_id, runs in (content.gone or {}).items():
            for run_id, created_at in runs.items():
                gone.setdefault(day_of(created_at), set()).add((job_id, run_id))
        made: dict[str, Path | None] = {}
        for day in sorted(days.all | gone.keys()):
            content.check()
            name = f"{_folder_of(day)}/{self._file}"
            fresh = scratch / f"{day}{self.layout.file_form.suffixes[0]}"
            is_kept = content.gone is not None and name in before
            pieces = days.pieces(day)
            writer = self.layout.file_form.open(fresh, scratch)
            has_runs = day in days.all
            try:
                if is_kept:
                    keys = gone.get(day, set()).union(*map(self.layout.keys, days.pieces(day)))
                    for piece in self.layout.others(self.folder.fetch(name, scratch), keys):
                        has_runs = True
                        writer.write(piece)
                for piece in pieces:
                    writer.write(piece)
                writer.close()
            except BaseException:
                with contextlib.suppress(Exception):
                    writer.abandon()
                raise
            if has_runs or name in before:
                made[name] = fresh if has_runs else None
        return made


class _Days:
    """Sorts runs by day: in memory, and beyond a size in a file for each day."""

    def __init__(self, layout: Layout, scratch: Path) -> None:
        self.all: set[int] = set()
        self._layout = layout
        self._scratch = scratch
        self._held: dict[int, list[Any]] = {}
        self._bytes = 0

    def add(self, piece: bytes) -> None:
        """Sort the runs of a piece."""
        for day, some, size in self._layout.split(piece):
            self.all.add(day)
            self._held.setdefault(day, []).append(some)
            self._bytes += size
        if self._bytes > _HELD:
            for day, some in self._held.items():
                joined = self._layout.join(some)
                with self._path(day).open("ab") as file:
                    file.write(struct.pack("<Q", len(joined)) + joined)
            self._held, self._bytes = {}, 0

    def pieces(self, day: int) -> Iterator[bytes]:
        """The runs of a day, in their order, as pieces of the file's format."""
        with contextlib.suppress(FileNotFoundError), self._path(day).open("rb") as file:
            while head := file.read(8):
                yield file.read(*struct.unpack("<Q", head))
        if day in self._held:
            yield self._layout.join(self._held[day])

    def _path(self, day: int) -> Path:
        return self._scratch / f"{day}.sorted"
