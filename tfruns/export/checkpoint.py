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
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Any

import msgspec

from tfruns._text import counted, shortened
from tfruns.export.files import logger, make_own_folder, open_own_file
from tfruns.export.results import ExportError
from tfruns.export.watermark import JobState, Reading

_COMMIT_EVERY = 0.5  # the least seconds between two commits, because each one waits for the disk
_VERSION = 8
_OLDEST = 86_400.0  # seconds, a day: an export that began longer ago doesn't go on from there
_WORK = ".tfruns-partial"

NUMBER = "number of the export"
"""The argument that tells one increment from the next: what has another number is of a finished increment. And, in a
folder by day, a window that ends some time ago from the same one on a later day, when jobs that were read whole would
lack the runs of its last days: there it is the end."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Where some runs, or lines of the quarantine, are in the file `pieces`."""

    offset: int
    length: int
    runs: int


class JobCheckpoint(msgspec.Struct, array_like=True):
    job_id: str
    pieces: list[Chunk] = []  # the runs, in the format's own form
    rejected: list[Chunk] = []  # lines for the quarantine
    known: JobState | None = None  # what the next export has to know, if there is a state
    removed: dict[str, float] = {}  # the runs that must not be there any more, each with its creation

    @property
    def end(self) -> int:
        return max((chunk.offset + chunk.length for chunk in (*self.pieces, *self.rejected)), default=0)


class _Header(msgspec.Struct):
    version: int
    began: float
    arguments: Mapping[str, Any]


class Checkpoint:
    """What is kept in a folder, which is removed when the export is over. An export with other arguments can't go on
    from there. Only one thread at a time may use it; the numbers may be read in any."""

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        self.folder = folder
        self.done: dict[str, JobCheckpoint] = {}  # the jobs that were read whole, by id
        self.runs = self.rejected_runs = 0
        self.age: float | None = None  # seconds since the export began, if it goes on from an interruption
        self._open_jobs: dict[str, JobCheckpoint] = {}
        self._uncommitted: list[bytes] = []
        self._end = 0
        self._files: list[BufferedRandom] = []
        self._committed_at = time.monotonic()
        make_own_folder(folder)
        try:
            for name in ("manifest", "pieces"):
                self._files.append(open(open_own_file(folder / name), "r+b"))  # noqa: SIM115  # `_close` closes both
            self._manifest, self._pieces = self._files
            self._load(arguments)
            self.resumed_jobs = len(self.done)
        except BaseException:  # the files may be of another export, and must stay as they are
            self._close()
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise

    # --- the manifest ---

    def _load(self, given: Mapping[str, Any]) -> None:
        size, end, lines = self._pieces.seek(0, os.SEEK_END), 0, self._lines()
        header = next((msgspec.json.decode(line, type=_Header) for line, _ in lines), None)
        for line, line_end in lines if header is not None and header.version == _VERSION else ():
            kept = msgspec.json.decode(line, type=JobCheckpoint)
            # After a crash of the machine the file's end may be missing, though `commit` waits for the disk.
            if kept.end > size:
                break
            self.done[kept.job_id], end = kept, line_end
        # Without a completed job there is nothing to resume: after a typing error in the host, a new try must work at
        # once.
        if header is not None and self.done and not self._is_over(header, given):
            self._check(header.arguments, given)
            self._end = max(kept.end for kept in self.done.values())
            self.runs = sum(chunk.runs for kept in self.done.values() for chunk in kept.pieces)
            self.rejected_runs = sum(chunk.runs for kept in self.done.values() for chunk in kept.rejected)
        else:
            self.done.clear()
            end = 0
        self._pieces.truncate(self._end)
        self._manifest.truncate(end)
        self._manifest.seek(end)
        if not self.done:
            self._manifest.write(_line(_Header(_VERSION, time.time(), given)))

    def _is_over(self, header: _Header, given: Mapping[str, Any]) -> bool:
        """Whether it is of a finished increment, or was read so long ago that it may be wrong by now."""
        if None not in (numbers := [header.arguments.get(NUMBER), given.get(NUMBER)]) and numbers[0] != numbers[1]:
            return True
        age = max(0.0, time.time() - min(header.began, os.fstat(self._manifest.fileno()).st_mtime))
        if age > _OLDEST:
            logger.warning(
                "an export that was interrupted %s ago begins anew: what it had read is too old",
                counted(int(age // _OLDEST), "day"),
            )
            return True
        self.age = age
        return False

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        """The complete lines, each with the position of its end."""
        end = 0
        for line in self._manifest:
            content = line[9:-1]  # without the end of the line, or, where that is missing, with another checksum
            if line[:9] != b"%08x " % zlib.crc32(content):
                return
            end += len(line)
            yield content, end

    def _check(self, before: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        names = [name for name in {**before, **given} if before.get(name) != given.get(name)]
        if names:
            changes = "; ".join(
                f"{name} was {shortened(json.dumps(before.get(name)), 60)} and is"
                f" {shortened(json.dumps(given.get(name)), 60)}"
                for name in names
            )
            raise ExportError(
                f"an export with other arguments was interrupted here: {changes}. Go on with those of before, or delete"
                f" {self.folder} to start afresh"
            )

    # --- pieces ---

    def add(self, job_id: str, piece: bytes, runs: int, rejected: Sequence[bytes]) -> None:
        kept = self._open_jobs.setdefault(job_id, JobCheckpoint(job_id))
        if runs:
            kept.pieces.append(self._write(piece, runs))
        if rejected:
            kept.rejected.append(self._write(b"".join(rejected), len(rejected)))
        self.runs += runs
        self.rejected_runs += len(rejected)

    def _write(self, piece: bytes, runs: int) -> Chunk:
        self._pieces.seek(self._end)
        self._pieces.write(piece)
        self._end += len(piece)
        return Chunk(self._end - len(piece), len(piece), runs)

    def drop(self, job_id: str) -> None:
        """Forget the pieces of a job that failed, or that is read again."""
        if (dropped := self._open_jobs.pop(job_id, None)) is not None:
            self.runs -= sum(chunk.runs for chunk in dropped.pieces)
            self.rejected_runs -= sum(chunk.runs for chunk in dropped.rejected)

    def finish(self, job_id: str, reading: Reading | None) -> None:
        """A job was read whole. It is written to the disk soon after, together with others."""
        kept = self.done[job_id] = self._open_jobs.pop(job_id, JobCheckpoint(job_id))
        if reading is not None:
            kept.known, kept.removed = reading.known, reading.removed
        self._uncommitted.append(_line(kept))
        if time.monotonic() - self._committed_at >= _COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        if self._uncommitted:
            for file, content in ((self._pieces, b""), (self._manifest, b"".join(self._uncommitted))):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self._uncommitted.clear()
        self._committed_at = time.monotonic()

    def read(self, chunk: Chunk) -> bytes:
        self._pieces.seek(chunk.offset)
        piece = self._pieces.read(chunk.length)
        if len(piece) < chunk.length:
            raise self.damaged()
        return piece

    def damaged(self) -> ExportError:
        return ExportError(f"what was kept in {self.folder} is damaged: delete it to start afresh")

    # --- the end ---

    def leave(self) -> None:
        """The export failed, if it isn't over: keep what was read of whole jobs, or remove the folder without any."""
        if any(file.closed for file in self._files):
            return
        if self.done:
            with contextlib.suppress(OSError):  # the error of the export matters more
                self.commit()
            self._close()
        else:
            self.delete()

    def delete(self) -> None:
        self._close()
        # The manifest first: if a kill leaves the pieces, they can't be resumed without it.
        for name in ("manifest", "pieces"):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        shutil.rmtree(self.folder / "new", ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _close(self) -> None:
        for file in self._files:
            with contextlib.suppress(OSError):  # what wasn't committed doesn't matter
                file.close()


def _line(content: msgspec.Struct) -> bytes:
    text = msgspec.json.encode(content)
    return b"%08x %b\n" % (zlib.crc32(text), text)


# --- where the working folder is ---


def work_folder_of(path: Path | str, work_dir: Path | None) -> Path:
    """The working folder: beside a path, unless another is given; for a URL, in the user's folder for caches."""
    if work_dir is None and isinstance(path, Path):
        return path.with_name(path.name + _WORK)
    name = path.name if isinstance(path, Path) else path.rstrip("/").rpartition("/")[2]
    # In a folder for many, several destinations may have the same name.
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-80:]
    return (work_dir or cache_folder()) / f"{plain}.{digest}{_WORK}"


def lock_of(folder: Path) -> Path:
    """The lock of a working folder; or, whatever the working folder, of the one that a destination has by default."""
    return folder.with_name(folder.name.removesuffix(_WORK) + ".tfruns-lock")


def cache_folder() -> Path:
    """Where working folders of destinations are that aren't on this machine: in the user's folder for caches, or else
    in one for temporary files. It is made."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or ""
        if not os.path.isabs(base):  # as its specification says
            base = os.path.expanduser("~/.cache")
    folder = Path(base, "tfruns")
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_own_folder(folder)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        user = getattr(os, "getuid", lambda: "me")()
        folder = Path(tempfile.gettempdir(), f"tfruns-{user}")
        make_own_folder(folder)
    return folder
