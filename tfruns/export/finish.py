"""What a destination writes at the end, once everything was read."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import msgspec

from tfruns.export.parts import JobParts, Parts
from tfruns.export.writer import Writer

Key = tuple[str, str]
"""Ids of a job and of a run."""


class RejectedLine(msgspec.Struct, rename="camel"):
    """A line of the quarantine."""

    job_id: str
    run_id: str
    field: str
    why: str
    text: str


@attrs.frozen(kw_only=True)
class Written:
    """What a destination has done at the end."""

    size: int
    """Bytes of what was written."""
    removed_files: int = 0
    """How many files of earlier exports were removed."""
    removed_rows: int = 0
    """How many rows of earlier exports were removed, with no newer row of the same run in their place."""


@attrs.frozen
class Content:
    """What an export has read, for a destination to write."""

    parts: Parts
    jobs: Sequence[tuple[int, str]]
    """Number and id of each job, in their order."""
    check: Callable[[], None]
    """Raises if the work should end: to be called between its steps."""
    gone: Mapping[str, Mapping[str, float]] | None = None
    """For an increment: the runs that no longer exist, by job and id, each with its creation in milliseconds since 1970
    UTC. None if this export replaces all that was written before."""

    replace: bool = False
    """Whether what earlier exports of any jobs and filters have written is thrown away."""
    is_whole: bool = False
    """Whether all runs of these jobs were read: without filters, and not as an increment."""

    @property
    def job_ids(self) -> list[str]:
        """The jobs that were read whole."""
        return [job_id for number, job_id in self.jobs if number in self.parts.done]

    @property
    def done(self) -> Iterator[JobParts]:
        """The parts of the jobs that were read whole, in their order."""
        return (self.parts.done[number] for number, _ in self.jobs if number in self.parts.done)

    def pieces(self) -> Iterator[bytes]:
        """All pieces, in the order of the jobs."""
        for job in self.done:
            for piece in job.pieces:
                self.check()
                yield self.parts.read(piece)

    def rejected(self) -> Iterator[bytes]:
        """The lines of the quarantine."""
        for job in self.done:
            for piece in job.rejected:
                self.check()
                yield self.parts.read(piece)

    def rejected_lines(self) -> Iterator[list[RejectedLine]]:
        """The same, decoded, some at a time."""
        for piece in self.rejected():
            yield [msgspec.json.decode(line, type=RejectedLine) for line in piece.splitlines()]

    def rejected_keys(self) -> list[Key]:
        """The runs that were set aside."""
        return [(line.job_id, line.run_id) for lines in self.rejected_lines() for line in lines]

    def contradicted(self) -> list[Key]:
        """The runs whose older rows the server contradicts: they no longer exist, or were set aside."""
        gone = ((job_id, run_id) for job_id, runs in (self.gone or {}).items() for run_id in runs)
        return [*dict.fromkeys([*gone, *self.rejected_keys()])]

    @property
    def has_rejected(self) -> bool:
        """Whether the quarantine has a line."""
        return any(job.rejected for job in self.done)

    def fill(self, writer: Writer) -> None:
        """Write the runs, and close the writer.

        Raises:
            ExportError: a piece is damaged.
        """
        try:
            for piece in self.pieces():
                try:
                    writer.write(piece)
                except ValueError:
                    raise self.parts.damaged() from None
            self.check()
            writer.close()
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to raise
                writer.abandon()
            raise

    def write_rejected(self, path: Path) -> None:
        """Write the quarantine to a new file."""
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(descriptor, "wb") as file:
            file.writelines(self.rejected())
