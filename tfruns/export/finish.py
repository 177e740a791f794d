"""What a destination writes at the end, once everything was read."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import msgspec

from tfruns.export.checkpoint import Checkpoint, Chunk, JobCheckpoint
from tfruns.export.files import empty, fresh_file
from tfruns.export.quarantine import RejectedRun
from tfruns.export.writer import Writer

Key = tuple[str, str]
"""Ids of a job and of a run."""


_MOST_RESTARTS = 2
"""After so many, a job's pieces are written only once it was read whole."""


@attrs.frozen(kw_only=True)
class Written:
    """What a destination has done at the end."""

    size: int
    """Bytes of what was written."""
    removed_files: int = 0
    """How many files of earlier exports were removed."""
    removed_rows: int = 0
    """How many rows of earlier exports were removed, with no newer row of the same run in their place."""


class Assembly:
    """Puts the pieces together, job after job in their order: while other pages are fetched, as far as the order
    allows, and the rest at the end.

    A job of which some pieces are written already, and that is dropped then, makes it begin again.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        jobs: Sequence[int],
        open_: Callable[[Path], Writer],
        scratch: Path,
        check: Callable[[], None],
    ) -> None:
        self._writer: Writer | None = None
        self._open = open_
        self._checkpoint = checkpoint
        self._jobs = jobs
        self._scratch = scratch
        self._check = check
        self._at = self._written = self._restarts = 0
        self._job: JobCheckpoint | None = None

    def advance(self, most: float = math.inf, *, is_end: bool = False) -> None:
        """Write pieces, at most so many."""
        while self._at < len(self._jobs):
            number = self._jobs[self._at]
            job = self._checkpoint.find(number)
            if self._written and job is not self._job:
                self._begin_again()
                continue
            is_done = number in self._checkpoint.done
            if job is not None and (is_done or self._restarts < _MOST_RESTARTS):
                self._job = job
                for piece in job.pieces[self._written :]:
                    if most <= 0:
                        return
                    self._check()
                    self._write(piece)
                    most -= 1
            if not (is_done or is_end or number in self._checkpoint.failed):
                return
            self._at, self._written, self._job = self._at + 1, 0, None

    def _write(self, piece: Chunk) -> None:
        self._writer = self._writer or self._open(self._scratch)
        try:
            self._writer.write(self._checkpoint.read(piece))
        except ValueError:
            raise self._checkpoint.damaged() from None
        self._written += 1

    def _begin_again(self) -> None:
        self.abandon()
        empty(self._scratch)
        self._restarts += 1
        self._at = self._written = 0

    def close(self) -> Writer:
        """Write what is left."""
        try:
            self.advance(is_end=True)
            writer = self._writer or self._open(self._scratch)
            self._check()
            writer.close()
        except BaseException:
            self.abandon()
            raise
        self._writer = None
        return writer

    def abandon(self) -> None:
        """Close what is open, after an error."""
        if self._writer is not None:
            with contextlib.suppress(Exception):  # the first error is the one to raise
                self._writer.abandon()
            self._writer = None


@attrs.frozen
class Content:
    """What an export has read, for a destination to write."""

    checkpoint: Checkpoint
    jobs: Sequence[tuple[int, str]]
    """Number and id of each job, in their order."""
    check: Callable[[], None]
    """Raises if the work should end: to be called between its steps."""
    scratch: Path
    """A folder for what isn't complete."""
    assembly: Assembly
    is_increment: bool = False
    """Whether it holds only what is new or has changed."""
    replace: bool = False
    """Whether what earlier exports of any jobs and filters have written is thrown away."""
    is_whole: bool = False
    """Whether all runs of these jobs were read: without filters, and not as an increment."""

    @property
    def job_ids(self) -> list[str]:
        """The jobs that were read whole."""
        return [job_id for number, job_id in self.jobs if number in self.checkpoint.done]

    @property
    def done(self) -> Iterator[JobCheckpoint]:
        """What was read of the jobs that were read whole, in their order."""
        return (self.checkpoint.done[number] for number, _ in self.jobs if number in self.checkpoint.done)

    @property
    def deleted_runs(self) -> Mapping[str, Mapping[str, float]] | None:
        """For an increment: the runs that were written before and must not be there any more, by job and id, each with
        its creation in milliseconds since 1970 UTC. None if this export replaces all that was written before."""
        done = self.checkpoint.done
        if not self.is_increment:
            return None
        return {job_id: done[number].note["removed"] for number, job_id in self.jobs if number in done}

    @property
    def skipped(self) -> set[str]:
        """The jobs that failed."""
        return {job_id for number, job_id in self.jobs if number not in self.checkpoint.done}

    def rejected(self) -> Iterator[bytes]:
        """The lines of the quarantine."""
        for job in self.done:
            for piece in job.rejected:
                self.check()
                yield self.checkpoint.read(piece)

    def rejected_lines(self) -> Iterator[list[RejectedRun]]:
        """The same, decoded, some at a time."""
        for piece in self.rejected():
            yield [msgspec.json.decode(line, type=RejectedRun) for line in piece.splitlines()]

    def rejected_keys(self) -> list[Key]:
        """The runs that were set aside."""
        return [(line.job_id, line.run_id) for lines in self.rejected_lines() for line in lines]

    def contradicted(self) -> list[Key]:
        """The runs whose older rows the server contradicts: they no longer exist, or were set aside."""
        gone = ((job_id, run_id) for job_id, runs in (self.deleted_runs or {}).items() for run_id in runs)
        return [*dict.fromkeys([*gone, *self.rejected_keys()])]

    @property
    def has_rejected(self) -> bool:
        """Whether the quarantine has a line."""
        return any(job.rejected for job in self.done)

    def write_rejected(self, path: Path) -> None:
        """Write the quarantine to a new file."""
        with open(fresh_file(path), "wb") as file:
            file.writelines(self.rejected())
