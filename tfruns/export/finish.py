"""From the journal to the file: whole under its name, or not there at all."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from tfruns.export.errors import ExportError
from tfruns.export.formats import Format
from tfruns.export.journal import Journal
from tfruns.export.writers import Writer

_Jobs = Iterable[tuple[int, str]]


def publish(journal: Journal, jobs: _Jobs, form: Format, destination: Path, *, check: Callable[[], None]) -> None:
    """Write the runs of these jobs, in their order, and put the file in the place of the one before.

    Args:
        journal: what was read.
        jobs: number and id of each job.
        form: what to write.
        destination: where.
        check: called between pages: raises where the work should end.

    Raises:
        OSError: it can't be written; the file of before is as it was.
        ExportError: the format can't hold a value; the same.
    """
    shutil.rmtree(journal.new, ignore_errors=True)
    journal.new.mkdir()
    try:
        fresh = journal.new / destination.name
        _fill(form.open(fresh), journal, jobs, check)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(destination, fresh)
        _sync(fresh)
        check_alone(destination, form)
        os.replace(fresh, destination)
        _sync(destination.parent)
    finally:
        shutil.rmtree(journal.new, ignore_errors=True)


def check_alone(destination: Path, form: Format) -> None:
    """See that no database can be replaced while a part of it is in another file: that would spoil the new one.

    Raises:
        ExportError: it has such a file, for it is in use, or a write to it was cut short.
    """
    for ending in ("-journal", "-wal", "-shm", ".wal") if form.is_database else ():
        part = destination.with_name(destination.name + ending)
        if part.exists():
            raise ExportError(
                f"{part} holds a part of the database that is or was at {destination}: close the program that uses it,"
                " or, if there is none, open the database once with its own program; or remove both files"
            )


def merge(
    journal: Journal,
    jobs: _Jobs,
    form: Format,
    destination: Path,
    *,
    gone: Mapping[str, Iterable[str]],
    check: Callable[[], None],
) -> None:
    """Write the runs of these jobs into the database at the destination, in place of what it has of the same runs.

    All of it is one transaction. For the other arguments and the errors see `publish`.

    Args:
        gone: ids of runs that are no more, by job.
    """
    _fill(form.open(destination), journal, jobs, check, gone)


def _fill(
    writer: Writer,
    journal: Journal,
    jobs: _Jobs,
    check: Callable[[], None],
    gone: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> None:
    try:
        for job_id, run_ids in gone.items():
            writer.remove(job_id, run_ids)
        for number, job_id in jobs:
            for lines in journal.pages(number):
                check()
                writer.write(job_id, lines)
        writer.close()
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong first is what counts
            writer.abandon()
        raise


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder, on Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checked_destination(destination: str | os.PathLike[str]) -> Path:
    """Where to write: behind a symbolic link, the file it points to.

    Raises:
        ExportError: no file can be there.
    """
    path = Path(os.path.realpath(destination))
    if path.is_symlink():
        raise ExportError(f"{path} is a symbolic link that leads in a circle")
    if path.is_dir():
        raise ExportError(f"{path} is a folder: name a file in it")
    if path.exists() and not path.is_file():  # a new file would take the place of /dev/null
        raise ExportError(f"{path} is no ordinary file, and can't be replaced by one")
    if not path.parent.is_dir():
        raise ExportError(f"there is no folder {path.parent} for {path.name}: make it first")
    return path
