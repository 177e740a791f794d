"""A folder of files, one for each day on which runs were created: a dataset, which engines read directly.

`runs/created_date=2026-11-24/runs.parquet` holds all runs of that day. A run is in the file of one day only, whatever
happens to it later. So each file can be replaced on its own, and a run is never in the folder twice.
"""

import contextlib
import itertools
import math
import re
import struct
import tempfile
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import attrs
import msgspec

from tfruns._table.columns import JOB_ID, Kind
from tfruns.export import formats
from tfruns.export.formats import Format, Writer, arrow_module, zstd
from tfruns.export.pipeline import Destination, Export, Key
from tfruns.export.results import ExportError
from tfruns.export.store import Store
from tfruns.models import RawPage

_HELD = 8 * 2**20  # how many bytes of runs are held in memory while they are sorted by day
_FILE = re.compile(r"created_date=([0-9]{4}-[0-9]{2}-[0-9]{2})/(runs\.(?:parquet|jsonl(?:\.gz|\.zst)?))")
_RECORD = re.compile(r"(?:created_date=[^/]+/)?_tfruns\.(?:json|parquet)")
"""The file in which a folder says whose it is. Engines don't read it, or find no rows in it."""
_KEY = b"tfruns"  # where the record stands in the metadata of a Parquet file
_COMPLETE = "_SUCCESS"
"""An empty file that is in the folder while no file in it is being replaced, as with Spark; engines don't read it."""
_MICROSECONDS_A_DAY = 1000 * formats.MS_A_DAY
_EPOCH = date(1970, 1, 1)


def day_of(created_at: float) -> int:
    """The day of a moment in milliseconds since 1970 UTC, in days since then."""
    return round(created_at * 1000) // _MICROSECONDS_A_DAY


def _folder_of(day: int) -> str:
    return f"created_date={(_EPOCH + timedelta(days=day)).isoformat()}"


class Days(Writer):
    """Sorts runs by day, some at a time: each day has a file, of pieces for the writer of that day's own file."""

    def __init__(self, scratch: Path) -> None:
        self.all: set[int] = set()
        self.pack = formats.packer()
        self._scratch = scratch
        self._held: list[bytes] = []
        self._bytes = 0

    def write(self, packed: bytes) -> None:
        self._held.append(zstd.decompress(packed))
        self._bytes += len(self._held[-1])
        if self._bytes > _HELD:
            self.close()

    def close(self) -> None:
        for day, piece in self.split(self._held) if self._held else ():
            self.all.add(day)
            packed = self.pack(piece)
            with self._path(day).open("ab") as file:
                file.write(struct.pack("<Q", len(packed)) + packed)
        self._held, self._bytes = [], 0

    def pieces(self, day: int) -> Iterator[bytes]:
        """The runs of a day, in their order, as packed pieces."""
        with contextlib.suppress(FileNotFoundError), self._path(day).open("rb") as file:
            while head := file.read(8):
                yield file.read(*struct.unpack("<Q", head))

    def _path(self, day: int) -> Path:
        return self._scratch / f"{day}.sorted"

    @abstractmethod
    def split(self, pieces: Sequence[bytes]) -> Iterable[tuple[int, bytes]]:
        """The runs of some pieces, by day."""

    @abstractmethod
    def keys(self, piece: bytes) -> Iterable[Key]:
        """The keys of the runs of one day in a piece."""

    @abstractmethod
    def kept(self, path: Path, is_kept: Callable[[Key], bool]) -> Iterator[bytes]:
        """Those runs of a day's old file whose keys are kept, as pieces."""


class _ParquetDays(Days):
    def split(self, pieces: Sequence[bytes]) -> Iterable[tuple[int, bytes]]:
        pa = arrow_module().pa
        (batch,) = pa.Table.from_batches(map(formats.read_piece, pieces)).combine_chunks().to_batches()
        days = [moment // _MICROSECONDS_A_DAY for moment in batch.column("created_at").cast(pa.int64()).to_pylist()]
        batch = batch.take(pa.array(sorted(range(len(days)), key=days.__getitem__)))
        begin = 0
        for day, count in sorted(Counter(days).items()):
            yield day, batch.slice(begin, count).serialize()
            begin += count

    def keys(self, piece: bytes) -> Iterable[Key]:
        return _keys(formats.read_piece(piece))

    def kept(self, path: Path, is_kept: Callable[[Key], bool]) -> Iterator[bytes]:
        arrow = arrow_module()
        with arrow.pa.parquet.ParquetFile(path) as file:
            if not file.schema_arrow.equals(arrow.SCHEMA):
                raise ExportError(
                    f"{path.name} isn't what an export of this version has written: export all to another folder"
                )
            for batch in file.iter_batches(10_000):
                table = arrow.pa.Table.from_batches([batch]).cast(arrow.PLAIN_SCHEMA).combine_chunks()
                for plain in table.to_batches():
                    kept = [is_kept(key) for key in _keys(plain)]
                    if any(kept):
                        yield plain.filter(arrow.pa.array(kept)).serialize()


def _keys(batch: Any) -> Iterable[Key]:
    return zip(batch.column(JOB_ID).to_pylist(), batch.column("id").to_pylist(), strict=True)


class _LineDays(Days):
    def split(self, pieces: Sequence[bytes]) -> Iterable[tuple[int, bytes]]:
        by_day: dict[int, list[bytes]] = {}
        for line in itertools.chain.from_iterable(piece.splitlines(keepends=True) for piece in pieces):
            by_day.setdefault(day_of(_read(line).created_at), []).append(line)
        return ((day, b"".join(lines)) for day, lines in by_day.items())

    def keys(self, piece: bytes) -> Iterable[Key]:
        return (_read(line).key for line in piece.splitlines())

    def kept(self, path: Path, is_kept: Callable[[Key], bool]) -> Iterator[bytes]:
        with path.open("rb") as packed, formats.packed_as(path.suffix, packed, "rb") as file:
            while lines := file.readlines(2**20):
                try:
                    kept = [line for line in lines if is_kept(_read(line).key)]
                except msgspec.DecodeError as error:
                    raise ExportError(f"{path.name} isn't what an export has written: {error}") from None
                if kept:
                    yield b"".join(kept)


class _Line(msgspec.Struct, rename="camel", gc=False):
    job_id: str
    id: str
    created_at: float

    @property
    def key(self) -> Key:
        return self.job_id, self.id


_read = msgspec.json.Decoder(_Line).decode


def _dated_lines(job_id: str, page: RawPage) -> bytes:
    formats.check_limits(Kind.INSTANT, [run.created_at for run in page.data])
    return formats.json_lines(job_id, page)


# --- the destination ---


class _Record(msgspec.Struct, kw_only=True):
    """What a folder says about itself: which exports it belongs to."""

    about: dict[str, Any]
    jobs: list[str]
    state: str | None  # the id of the state, if there is one

    @classmethod
    def of(cls, path: Path) -> "_Record | None":
        """The record in a file; None if it is none."""
        try:
            if path.suffix == ".parquet":
                metadata = arrow_module().pa.parquet.read_metadata(path).metadata
                return msgspec.json.decode(metadata[_KEY], type=cls)
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (ValueError, OSError, KeyError, TypeError):  # pyarrow's errors are of these, too
            return None

    def write(self, path: Path) -> None:
        record = msgspec.json.encode(self)
        if path.suffix == ".parquet":
            arrow = arrow_module()
            schema = arrow.SCHEMA.with_metadata({_KEY: record})
            arrow.pa.parquet.write_table(schema.empty_table(), path)
        else:
            path.write_bytes(record)


@attrs.define
class Dataset(Destination):
    """A folder of files by day. An export replaces all files, or those of the days that it covers; with a state, those
    of the days on which its new and changed runs were created."""

    store: Store  # where the folder is
    base: str  # the folder's name
    format_: Format
    _record: _Record | None = None  # what the folder says about itself
    _record_names: Sequence[str] = ()
    _days: Days = attrs.field(init=False)
    _removed_rows: int = 0
    window_step = formats.MS_A_DAY

    def __attrs_post_init__(self) -> None:
        encode = self.format_.encode if self.format_.name == "parquet" else _dated_lines
        self.format_ = attrs.evolve(self.format_, name=f"{self.format_.name} by day", encode=encode)

    @property
    def path(self) -> Path | str:
        return self.store.path(f"{self.base}/")

    @property
    def about(self) -> Mapping[str, str]:
        return {"folder": self.base}

    @property
    def _file(self) -> str:
        return "runs" + self.format_.suffixes[0]

    def begin(self, export: Export) -> str:
        self.store.check(self.base)
        sizes = self.store.sizes(self.base)
        names = _seen(sizes)
        for name in names:
            found = _FILE.fullmatch(name)
            if found is None or (found[2] != self._file and not export.replace):
                raise ExportError(
                    f"{self.path} holds {name}, which isn't of such a dataset, and would be read with it: give another"
                    " folder, or move that away"
                )
        self._record_names = sorted(filter(_RECORD.fullmatch, sizes))  # a kill may leave two, the new one last
        if self._record_names:
            with tempfile.TemporaryDirectory(prefix="tfruns-") as scratch:
                path = self.store.fetch(f"{self.base}/{self._record_names[-1]}", Path(scratch))
                self._record = None if path is None else _Record.of(path)
        marks = [*names, *self._record_names]
        if marks and self._record is None:
            raise ExportError(
                f"{self.path} holds {min(marks)}, and doesn't say whose files it holds: give another folder, or move"
                " them away"
            )
        problems = [] if export.replace else [*self._problems(export, names)]
        if problems:
            hint = "Give another folder, or begin anew with replace=True (--replace)"
            raise ExportError(f"{self.path} {'; '.join(problems)}. {hint}")
        record, self.replaces = self._record, bool(names)
        if not names:  # it may belong to others
            self._record = None
        return "" if record and export.state and record.state == export.state.id else str(self.path)

    def _problems(self, export: Export, names: Collection[str]) -> Iterator[str]:
        state, record = export.state, self._record
        if record is None or not names:
            return
        for name, given in _about(export).items():
            if record.about.get(name) != given:
                yield f"holds exports whose {name} is {record.about.get(name)!r}, not {given!r}"
        if state is not None and record.state not in (None, state.id):
            yield f"holds exports with another state than {export.state_path}"
        elif not export.is_increment:
            new, missing = {*export.jobs} - {*record.jobs}, {*record.jobs} - {*export.jobs}
            if state is not None and record.state is not None:
                new = set()  # a first export with this state was interrupted as it wrote: jobs may be added
            found = [
                f"{what} {min(jobs)!r}" + (f" and {len(jobs) - 1:,} more" if len(jobs) > 1 else "")
                for what, jobs in (("without", new), ("with", missing))
                if jobs
            ]
            if found:
                yield f"holds exports of other jobs ({', '.join(found)})"

    def open(self, scratch: Path) -> Writer:
        self._days = (_ParquetDays if self._file.endswith(".parquet") else _LineDays)(scratch)
        return self._days

    def finish(self, export: Export) -> Mapping[str, Any]:
        before = _seen(self.store.sizes(self.base))
        made = self._make(export, before)  # all of it, so that a full disk changes nothing
        export.check()
        if before:
            self.store.remove(f"{self.base}/{_COMPLETE}")
        with export.announced():
            record = self._put_record(export, max(map(_day_in, {**before, **made}), default=0))
        made.update((old, None) for old in self._record_names if old != record)
        for name, path in sorted(made.items(), key=lambda item: item[1] is None):  # what has to go, last
            export.check()
            if path is None:
                self.store.remove(f"{self.base}/{name}")
            else:
                self.store.put(path, f"{self.base}/{name}", export.check)
        quarantine = export.put_quarantine(self.store, self.base, is_all=True)
        (export.scratch / _COMPLETE).touch()
        self.store.put(export.scratch / _COMPLETE, f"{self.base}/{_COMPLETE}", export.check)
        sizes = self.store.sizes(self.base)
        after = _seen(sizes)
        size = sum(after.values()) + sum(size for name, size in sizes.items() if _RECORD.fullmatch(name))
        removed = {"removed_files": len(before.keys() - after.keys()), "removed_rows": self._removed_rows}
        return {"size": size, "quarantine": quarantine, **removed}

    def _put_record(self, export: Export, day: int) -> str:
        """Put the record before any other file: so no file is ever without one. Each time, and with the newest day: so
        it isn't lost to whatever removes old files or days."""
        before = None if export.replace else self._record
        state = export.state.id if export.state is not None else None if before is None else before.state
        jobs = {*export.jobs, *(before.jobs if before is not None and export.state is not None else ())}
        # Polars reads hidden files, too: one of the same kind, without rows, beside others does no harm.
        name = f"{_folder_of(day)}/_tfruns.parquet" if self._file.endswith(".parquet") else "_tfruns.json"
        path = export.scratch / Path(name).name
        _Record(about=_about(export), jobs=sorted(jobs), state=state).write(path)
        self.store.put(path, f"{self.base}/{name}", export.check)
        return name

    def _make(self, export: Export, before: Mapping[str, int]) -> dict[str, Path | None]:
        """Write the files of all days that change, each to be put under its name, None for one without a run."""
        first, end = (bound if math.isinf(bound) else day_of(bound) for bound in export.window)
        changed = {day for day in self._days.all | {*map(day_of, export.deleted_runs.values())} if first <= day < end}
        made: dict[str, Path | None] = {}
        if not export.is_increment:
            made = {name: None for name in before if export.replace or first <= _day_in(name) < end}
            changed.update(map(_day_in, made))
        is_read = not export.replace and (export.is_increment or bool(export.skipped))
        for day in sorted(changed):
            export.check()
            name, fresh = f"{_folder_of(day)}/{self._file}", export.scratch / f"{day}{self.format_.suffixes[0]}"
            old = self.store.fetch(f"{self.base}/{name}", export.scratch) if is_read and name in before else None
            has_runs = self._write_day(export, day, fresh, old)
            if has_runs or name in before:
                made[name] = fresh if has_runs else None
        return made

    def _write_day(self, export: Export, day: int, fresh: Path, old: Path | None) -> bool:
        """Write the file of a day, with what is kept of the old one; returns whether it has a run."""
        deleted = export.deleted_runs
        new = set() if old is None else set().union(*map(self._days.keys, map(zstd.decompress, self._days.pieces(day))))

        def is_kept(key: Key) -> bool:
            if not export.is_increment:
                return key[0] in export.skipped  # as nothing was read of these jobs
            self._removed_rows += key in deleted and key not in new
            return key not in deleted and key not in new

        has_runs = False
        with contextlib.closing(self.format_.open(fresh)) as writer:
            kept = () if old is None else map(self._days.pack, self._days.kept(old, is_kept))
            for packed in itertools.chain(kept, self._days.pieces(day)):
                has_runs = True
                writer.write(packed)
        return has_runs


def _about(export: Export) -> dict[str, Any]:
    """The control plane, and the filters of which a folder holds all runs."""
    names = ("control plane", "search_prefix", "triggered_by", "status", "version_numbers")
    return {name: export.about[name] for name in names}


def _seen(sizes: Mapping[str, int]) -> dict[str, int]:
    """The files that engines read, each with its size."""
    return {name: size for name, size in sizes.items() if not re.search(r"(^|/)[._]", name)}


def _day_in(name: str) -> int:
    return (date.fromisoformat(name.partition("=")[2][:10]) - _EPOCH).days
