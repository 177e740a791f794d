"""What an export has read so far: the parts of a working folder, which outlive the process.

The folder holds three files:

- `lock`: keeps a second export out, and ends with the process.
- `pieces`: what was read, turned into the format's own form, a piece for each page, one behind the other in the order
  in which pages came from all jobs.
- `manifest`: a line for the export's arguments, then a line for each job that was read whole: where its pieces stand.
  Each line begins with a checksum. A line is written only after the pieces that it names are on the disk.

So a kill, or a crash of the machine, at any moment leaves whole jobs: pieces that no line names are written over, and
what stands behind the first line that isn't whole is dropped. A job that was interrupted is read again from its start.
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

from tfruns._text import shortened
from tfruns.export.errors import ExportError
from tfruns.export.files import FileLock, make_own_folder, open_own_file, write_all

_COMMIT_EVERY = 0.5
"""Seconds: each commit waits for the disk."""
_VERSION = 3

NUMBER = "number of the export"
"""The argument that tells one increment from the next: parts of another are of one that is over."""


@attrs.frozen
class Piece:
    """Where a piece stands in the file `pieces`."""

    offset: int
    length: int


@attrs.define
class JobParts:
    """What was read of a job."""

    runs: int = 0
    pieces: list[Piece] = attrs.Factory(list)
    """The runs, in the format's own form."""
    rejected_runs: int = 0
    rejected: list[Piece] = attrs.Factory(list)
    """Lines for the quarantine."""
    note: Any = None
    """What else is to be known of the job once it was read whole, as JSON has it."""

    def line(self, job: int) -> list[Any]:
        """As it stands in the manifest."""
        return [job, self.runs, _numbers(self.pieces), self.rejected_runs, _numbers(self.rejected), self.note]

    @classmethod
    def of_line(cls, line: list[Any]) -> tuple[int, Self]:
        """The job's number, and its parts."""
        job, runs, pieces, rejected_runs, rejected, note = line
        return job, cls(
            runs, [Piece(*each) for each in pieces], rejected_runs, [Piece(*each) for each in rejected], note
        )


def _numbers(pieces: list[Piece]) -> list[tuple[int, int]]:
    return [(piece.offset, piece.length) for piece in pieces]


class Parts:
    """The parts in a folder. Not for two threads at once.

    Args:
        folder: where they are kept; made if it isn't there, and gone once they are deleted.
        arguments: what the export was called with: one with others can't go on from here.

    Attributes:
        done: the jobs that were read whole, by number.

    Raises:
        ExportError: another export is at work here; one with other arguments was interrupted here; or the folder isn't
            the user's own.
        OSError: it can't be read or written, as from all methods.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        self.folder = folder
        self.done: dict[int, JobParts] = {}
        self._open_jobs: dict[int, JobParts] = {}
        self._uncommitted: list[bytes] = []
        self._end = 0
        self._committed_at = time.monotonic()
        self._manifest = self._pieces = -1
        is_new = make_own_folder(folder)
        try:
            self._lock = FileLock(folder / "lock")
        except BaseException as error:
            if is_new:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            if isinstance(error, BlockingIOError):
                raise ExportError(f"another export is at work here: {folder} is in use") from None
            raise
        try:
            self._manifest = open_own_file(folder / "manifest", os.O_RDWR)
            self._pieces = open_own_file(folder / "pieces", os.O_RDWR)
            self._load({name: json.loads(json.dumps(value)) for name, value in arguments.items()})
        except ExportError:  # what is there isn't to be touched
            self._close()
            self._lock.release()
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
                job, parts = JobParts.of_line(line)
                # A machine that crashed may have lost the file's end, though not with what we wait for.
                if any(piece.offset + piece.length > size for piece in (*parts.pieces, *parts.rejected)):
                    break
                self.done[job], end = parts, line_end
        before = header["arguments"] if header and self.done else given
        if before.get(NUMBER) != given.get(NUMBER) and NUMBER in before and NUMBER in given:
            self.done.clear()  # of an increment that is over
        # With no completed job, there is nothing to resume: whoever mistyped the host may try again at once.
        if self.done:
            self._check(before, given)
            os.ftruncate(self._manifest, end)
            os.lseek(self._manifest, end, os.SEEK_SET)
            ends = (p.offset + p.length for parts in self.done.values() for p in (*parts.pieces, *parts.rejected))
            self._end = max(ends, default=0)
            os.ftruncate(self._pieces, self._end)
        else:
            os.ftruncate(self._manifest, 0)
            os.lseek(self._manifest, 0, os.SEEK_SET)
            os.ftruncate(self._pieces, 0)
            write_all(self._manifest, _line({"version": _VERSION, "arguments": given}))

    def _lines(self) -> Iterator[tuple[Any, int]]:
        """The lines that are whole, each with where it ends."""
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
        parts = self._open_jobs.setdefault(job, JobParts())
        parts.pieces.append(self._write(piece))
        parts.runs += runs

    def reject(self, job: int, piece: bytes, runs: int) -> None:
        """Keep lines for the quarantine."""
        parts = self._open_jobs.setdefault(job, JobParts())
        parts.rejected.append(self._write(piece))
        parts.rejected_runs += runs

    def _write(self, piece: bytes) -> Piece:
        os.lseek(self._pieces, self._end, os.SEEK_SET)
        write_all(self._pieces, piece)
        where = Piece(self._end, len(piece))
        self._end += len(piece)
        return where

    def drop(self, job: int) -> None:
        """Forget the pieces of a job that failed, or that is read again."""
        self._open_jobs.pop(job, None)

    def finish(self, job: int, note: Any) -> None:
        """A job was read whole. It is safe soon after, with others that are finished meanwhile."""
        parts = self.done[job] = self._open_jobs.pop(job, JobParts())
        parts.note = note
        self._uncommitted.append(_line(parts.line(job)))
        if time.monotonic() - self._committed_at >= _COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """See that the jobs that were read whole are safe."""
        if self._uncommitted:
            os.fsync(self._pieces)
            write_all(self._manifest, b"".join(self._uncommitted))
            os.fsync(self._manifest)
            self._uncommitted.clear()
        self._committed_at = time.monotonic()

    def read(self, piece: Piece) -> bytes:
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
        """The error for pieces that aren't what was written."""
        return ExportError(f"what was kept in {self.folder} is damaged: delete it to start afresh")

    # --- the end ---

    def leave(self) -> None:
        """The export failed: see that what was read whole is safe, or remove it if there is nothing to resume."""
        if not self.done:
            return self.delete()
        with contextlib.suppress(OSError):  # why the export failed matters more
            self.commit()
        self._close()
        return self._lock.release()

    def delete(self) -> None:
        """The export is over: remove the folder."""
        self._close()
        # The manifest first: without it, what a kill leaves of the rest can't be resumed. And the lock
        # last, so that nobody begins here while files are removed.
        for name in ("manifest", "pieces"):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        shutil.rmtree(self.folder / "new", ignore_errors=True)
        with self._lock.released_last(), contextlib.suppress(OSError):
            self.folder.rmdir()
        with contextlib.suppress(OSError):  # on Windows it couldn't be removed before
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
