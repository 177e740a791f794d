"""What an export has read so far, in a working folder, which outlives the process.

The folder, which only one export uses at a time, holds two files:

- `pieces`: the runs read so far, in the format's own form: a piece for each page, one after the other, in the order in
  which the pages of all jobs arrived.
- `manifest`: a line for the export's arguments, then a line for each job that was read whole, with where its pieces
  are. Each line begins with a checksum. A line is written only after the pieces that it names are on the disk.

So after a kill or a crash of the machine, at any moment, whole jobs are left: pieces that no line names are written
over, and everything after the first incomplete line is dropped. A job that was interrupted is read again from its
start.
"""

import contextlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from tfruns._text import counted, shortened
from tfruns.export.files import logger, make_own_folder, open_own_file, write_all
from tfruns.export.results import ExportError

_COMMIT_EVERY = 0.5
"""The least seconds between two commits, because each one waits for the disk."""
_VERSION = 4
_OLDEST = 86_400.0
"""Seconds, a day: an export that began longer ago doesn't go on from there."""

NUMBER = "number of the export"
"""The argument that tells one increment from the next: what has another number is of a finished increment."""


@attrs.frozen
class Chunk:
    """Where a piece is in the file `pieces`."""

    offset: int
    length: int


@attrs.define
class JobCheckpoint:
    """What was read of one job."""

    runs: int = 0
    pieces: list[Chunk] = attrs.Factory(list)
    """The runs, in the format's own form."""
    rejected_runs: int = 0
    rejected: list[Chunk] = attrs.Factory(list)
    """Lines for the quarantine."""
    note: Any = None
    """What else is kept about a job that was read whole, as JSON data."""

    def line(self, job: int) -> list[Any]:
        """Its line in the manifest."""
        return [job, self.runs, _numbers(self.pieces), self.rejected_runs, _numbers(self.rejected), self.note]

    @classmethod
    def of_line(cls, line: list[Any]) -> tuple[int, Self]:
        """The job's number, and what was read of it."""
        job, runs, pieces, rejected_runs, rejected, note = line
        return job, cls(
            runs, [Chunk(*each) for each in pieces], rejected_runs, [Chunk(*each) for each in rejected], note
        )


def _numbers(pieces: list[Chunk]) -> list[tuple[int, int]]:
    return [(piece.offset, piece.length) for piece in pieces]


class Checkpoint:
    """What is kept in a folder. Only one thread at a time may use them.

    Args:
        folder: where they are kept; made if it isn't there, and removed when they are deleted.
        arguments: those of the export: an export with others can't go on from here.

    Attributes:
        done: the jobs that were read whole, by number.
        failed: the numbers of those that were skipped.
        age: seconds since the export began, if it goes on from an interruption.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        self.folder = folder
        self.done: dict[int, JobCheckpoint] = {}
        self.failed: set[int] = set()
        self.age: float | None = None
        self._open_jobs: dict[int, JobCheckpoint] = {}
        self._uncommitted: list[bytes] = []
        self._end = 0
        self._committed_at = time.monotonic()
        self._manifest = self._pieces = -1
        make_own_folder(folder)
        try:
            self._manifest = open_own_file(folder / "manifest", os.O_RDWR)
            self._pieces = open_own_file(folder / "pieces", os.O_RDWR)
            self._load({name: json.loads(json.dumps(value)) for name, value in arguments.items()})
        except ExportError:  # the files of another export must stay as they are
            self._close()
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
        except BaseException:
            self.leave()
            raise

    # --- the manifest ---

    def _load(self, given: dict[str, Any]) -> None:
        size = os.fstat(self._pieces).st_size
        lines = list(self._lines())
        header = lines[0][0] if lines else None
        end = 0
        if isinstance(header, dict) and header.get("version") == _VERSION:
            for line, line_end in lines[1:]:
                job, kept = JobCheckpoint.of_line(line)
                # After a crash of the machine the file's end may be missing, though `commit` waits for the disk.
                if any(piece.offset + piece.length > size for piece in (*kept.pieces, *kept.rejected)):
                    break
                self.done[job], end = kept, line_end
        before = header["arguments"] if header and self.done else given
        if before.get(NUMBER) != given.get(NUMBER) and NUMBER in before and NUMBER in given:
            self.done.clear()  # of a finished increment
        if self.done and header is not None:
            self._check_age(header["began"])
        # Without a completed job there is nothing to resume: after a typing error in the host, a new try must work at
        # once.
        if self.done:
            self._check(before, given)
            os.ftruncate(self._manifest, end)
            os.lseek(self._manifest, end, os.SEEK_SET)
            ends = (p.offset + p.length for kept in self.done.values() for p in (*kept.pieces, *kept.rejected))
            self._end = max(ends, default=0)
            os.ftruncate(self._pieces, self._end)
        else:
            os.ftruncate(self._manifest, 0)
            os.lseek(self._manifest, 0, os.SEEK_SET)
            os.ftruncate(self._pieces, 0)
            header = {"version": _VERSION, "began": time.time(), "arguments": given}
            write_all(self._manifest, _line(header))

    def _check_age(self, began: float) -> None:
        """What was read long ago may be wrong by now."""
        self.age = max(0.0, time.time() - min(began, os.fstat(self._manifest).st_mtime))
        if self.age > _OLDEST:
            logger.warning(
                "an export that was interrupted %s ago begins anew: what it had read is too old",
                counted(int(self.age // _OLDEST), "day"),
            )
            self.done.clear()
            self.age = None

    def _lines(self) -> Iterator[tuple[Any, int]]:
        """The complete lines, each with the position of its end."""
        end = 0
        with open(os.dup(self._manifest), "rb") as file:
            for line in file:
                content = line[9:-1]
                if line[-1:] != b"\n" or line[:9] != b"%08x " % zlib.crc32(content):
                    return
                end += len(line)
                yield json.loads(content), end

    def _check(self, before: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        names = [name for name in {**before, **given} if before.get(name) != given.get(name)]
        if names:
            changes = "; ".join(
                f"{name} was {_short(before.get(name))} and is {_short(given.get(name))}" for name in names
            )
            raise ExportError(
                f"an export with other arguments was interrupted here: {changes}. Go on with those of before, or delete"
                f" {self.folder} to start afresh"
            )

    # --- pieces ---

    def add(self, job: int, piece: bytes, runs: int) -> None:
        """Keep some runs of a job."""
        kept = self._open_jobs.setdefault(job, JobCheckpoint())
        kept.pieces.append(self._write(piece))
        kept.runs += runs

    def reject(self, job: int, piece: bytes, runs: int) -> None:
        """Keep lines for the quarantine."""
        kept = self._open_jobs.setdefault(job, JobCheckpoint())
        kept.rejected.append(self._write(piece))
        kept.rejected_runs += runs

    def _write(self, piece: bytes) -> Chunk:
        os.lseek(self._pieces, self._end, os.SEEK_SET)
        write_all(self._pieces, piece)
        where = Chunk(self._end, len(piece))
        self._end += len(piece)
        return where

    def find(self, job: int) -> JobCheckpoint | None:
        """What there is of a job."""
        return self.done.get(job) or self._open_jobs.get(job)

    def drop(self, job: int, *, is_failed: bool = False) -> None:
        """Forget the pieces of a job that failed, or that is read again."""
        self._open_jobs.pop(job, None)
        if is_failed:
            self.failed.add(job)

    def finish(self, job: int, note: Any) -> None:
        """A job was read whole. It is written to the disk soon after, together with others."""
        kept = self.done[job] = self._open_jobs.pop(job, JobCheckpoint())
        kept.note = note
        self._uncommitted.append(_line(kept.line(job)))
        if time.monotonic() - self._committed_at >= _COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """Write the jobs that were read whole to the disk."""
        if self._uncommitted:
            os.fsync(self._pieces)
            write_all(self._manifest, b"".join(self._uncommitted))
            os.fsync(self._manifest)
            self._uncommitted.clear()
        self._committed_at = time.monotonic()

    def read(self, piece: Chunk) -> bytes:
        """A piece."""
        os.lseek(self._pieces, piece.offset, os.SEEK_SET)
        blocks, left = [], piece.length
        while left:
            block = os.read(self._pieces, left)
            if not block:
                raise self.damaged()
            blocks.append(block)
            left -= len(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def damaged(self) -> ExportError:
        """The error for pieces that differ from what was written."""
        return ExportError(f"what was kept in {self.folder} is damaged: delete it to start afresh")

    # --- the end ---

    def leave(self) -> None:
        """The export failed: write the whole jobs to the disk, or remove the folder if there is nothing to resume."""
        if not self.done:
            return self.delete()
        with contextlib.suppress(OSError):  # the error of the export matters more
            self.commit()
        return self._close()

    def delete(self) -> None:
        """The export is over: remove the folder."""
        self._close()
        # The manifest first: if a kill leaves the pieces, they can't be resumed without it.
        for name in ("manifest", "pieces"):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        shutil.rmtree(self.folder / "new", ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _close(self) -> None:
        for descriptor in (self._manifest, self._pieces):
            if descriptor >= 0:
                os.close(descriptor)
        self._manifest = self._pieces = -1


def _line(content: Any) -> bytes:
    text = json.dumps(content).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _short(value: Any, most: int = 60) -> str:
    return shortened(json.dumps(value, sort_keys=True), most)
