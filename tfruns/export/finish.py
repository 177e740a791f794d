"""From the parts to the destination: whole under its name, or not there at all."""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from tfruns.export.errors import ExportError
from tfruns.export.files import make_own_folder, sync
from tfruns.export.formats import Format
from tfruns.export.parts import Parts
from tfruns.export.writer import Writer

Jobs = Iterable[tuple[int, str]]
"""Number and id of each job."""

logger = logging.getLogger("tfruns")


def replace(
    parts: Parts, jobs: Jobs, form: Format, destination: Path, fresh_folder: Path, *, check: Callable[[], None]
) -> None:
    """Put the parts of these jobs together, in their order, and put the file in the place of the one before.

    Args:
        parts: what was read.
        jobs: number and id of each job.
        form: what to write.
        destination: where.
        fresh_folder: a folder on the same file system, made and removed here, for the file while it isn't whole.
        check: called between pieces: raises where the work should end.

    Raises:
        OSError: it can't be written; the file of before is as it was.
        ExportError: a part is damaged; the same.
    """
    _clear(fresh_folder)
    make_own_folder(fresh_folder)
    try:
        fresh = fresh_folder / destination.name
        _fill(form.open(fresh, fresh_folder), parts, jobs, check)
        _adopt(fresh, destination)
        sync(fresh)
        check_alone(destination, form)
        os.replace(fresh, destination)
        sync(destination.parent)
    finally:
        _clear(fresh_folder)


def _clear(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _adopt(fresh: Path, destination: Path) -> None:
    """Give a file the mode and the owner of the one whose place it takes, or the mode of any new file."""
    try:
        old = destination.stat()
    except FileNotFoundError:
        probe = fresh.with_name("mode")
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY, 0o666))
        fresh.chmod(probe.stat().st_mode & 0o777)
        return
    now = fresh.stat()
    if hasattr(os, "chown") and (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.chown(fresh, old.st_uid, old.st_gid)
        except PermissionError:
            with contextlib.suppress(PermissionError):
                os.chown(fresh, -1, old.st_gid)
            if fresh.stat().st_uid != old.st_uid:
                logger.warning("%s belonged to the user with the id %d; now it is yours", destination, old.st_uid)
    fresh.chmod(old.st_mode & 0o777)


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
    parts: Parts,
    jobs: Jobs,
    form: Format,
    destination: Path,
    fresh_folder: Path,
    *,
    gone: Mapping[str, Iterable[str]],
    check: Callable[[], None],
) -> None:
    """Write the runs of these jobs into the database at the destination, in place of what it has of the same runs.

    All of it is one transaction. For the other arguments and the errors see `replace`.

    Args:
        gone: ids of runs that are no more, by job.
    """
    _clear(fresh_folder)
    make_own_folder(fresh_folder)
    try:
        _fill(form.open(destination, fresh_folder), parts, jobs, check, gone)
    finally:
        _clear(fresh_folder)


def _fill(
    writer: Writer,
    parts: Parts,
    jobs: Jobs,
    check: Callable[[], None],
    gone: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> None:
    try:
        for job_id, run_ids in gone.items():
            writer.remove(job_id, run_ids)
        for number, _ in jobs:
            for piece in parts.done[number].pieces if number in parts.done else ():
                check()
                try:
                    writer.write(parts.read(piece))
                except ValueError:
                    raise parts.damaged() from None
        writer.close()
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong first is what counts
            writer.abandon()
        raise


def write_quarantine(parts: Parts, jobs: Jobs, path: Path, fresh_folder: Path) -> None:
    """Write the runs that were rejected to a file; or see that there is none, if no run was."""
    _clear(fresh_folder)
    found = [piece for number, _ in jobs if number in parts.done for piece in parts.done[number].rejected]
    if not found:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return
    make_own_folder(fresh_folder)
    try:
        fresh = fresh_folder / path.name
        descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(descriptor, "wb") as file:
            file.writelines(parts.read(piece) for piece in found)
        _adopt(fresh, path)
        sync(fresh)
        os.replace(fresh, path)
    finally:
        _clear(fresh_folder)


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
