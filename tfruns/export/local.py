"""A file on this machine: complete under its name, or not there at all."""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs

from tfruns.export.destination import work_folder_of
from tfruns.export.errors import ExportError
from tfruns.export.files import make_own_folder, sync
from tfruns.export.finish import Content, Written
from tfruns.export.formats import Format
from tfruns.export.watermark import check_names, check_number, numbered

logger = logging.getLogger("tfruns")


@attrs.frozen
class LocalFile:
    """A file: a new one replaces the one before."""

    path: Path
    form: Format

    @property
    def quarantine(self) -> Path:
        return self.path.with_name(self.path.name + ".rejected.jsonl")

    @property
    def is_file(self) -> bool:
        return True

    @property
    def about(self) -> Mapping[str, str]:
        return {}

    def work_folder(self, work_dir: Path | None) -> Path:
        return work_folder_of(self.path, work_dir)

    def check(self) -> None:
        self.form.check()

    def begin(self, state: Path | None) -> None:
        check_names((found.name for found in self.path.parent.iterdir()), self.path.name, self.form, state)

    def numbered(self, number: int, state: Path) -> "LocalFile":
        check_number(number, state)
        path = self.path.with_name(numbered(self.path.name, self.form, number))
        if path == state:
            raise ExportError(f"{path} can't be both the state and what is written: give the state another name")
        return attrs.evolve(self, path=path)

    def finish(self, content: Content, work: Path) -> Written:
        write_quarantine(content, self.quarantine, fresh_folder(work, self.path))
        with new_folder(fresh_folder(work, self.path)) as folder:
            fresh = folder / self.path.name
            content.fill(self.form.open(fresh, folder))
            put_in_place(fresh, self.path)
        return Written(size=self.path.stat().st_size)


def fresh_folder(work: Path, path: Path) -> Path:
    """A folder on the destination's file system, for incomplete files."""
    return work / "new" if work.parent == path.parent else path.with_name(path.name + ".tfruns-new")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder, which is removed in the end."""
    _clear(folder)
    make_own_folder(folder)
    try:
        yield folder
    finally:
        _clear(folder)


def _clear(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def put_in_place(fresh: Path, path: Path, check: Callable[[], None] = lambda: None) -> None:
    """Replace a file by a complete one, which gets the mode and the owner of the old one.

    Args:
        fresh: the new file, in its own folder on the same file system.
        path: its place.
        check: raises if it must not be replaced; called last.
    """
    _adopt(fresh, path)
    sync(fresh)
    check()
    os.replace(fresh, path)
    sync(path.parent)


def write_quarantine(content: Content, path: Path, folder: Path) -> None:
    """Write the runs that were rejected to a file; if no run was, remove the file."""
    if not content.has_rejected:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return
    with new_folder(folder):
        fresh = folder / path.name
        content.write_rejected(fresh)
        put_in_place(fresh, path)


def _adopt(fresh: Path, destination: Path) -> None:
    """Give a file the mode and the owner of the one that it replaces, or the mode of any new file."""
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


_STREAM = re.compile(r"/dev/(?:stdin|stdout|stderr|fd/[0-9]+)|/proc/(?:self|[0-9]+)/fd/[0-9]+")
_SHORTENED_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")


def checked_destination(destination: str | os.PathLike[str]) -> Path:
    """The path to write to: for a symbolic link, the file that it points to.

    Raises:
        ExportError: no file can be there.
    """
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
    if path.is_dir():
        raise ExportError(f"{path} is a folder: name a file in it, or end it with a slash for files by day")
    if path.exists() and not path.is_file():  # a new file would replace /dev/null
        raise ExportError(f"{path} is no ordinary file, and can't be replaced by one")
    if not path.parent.is_dir():
        raise _no_folder(path, str(given))
    return path


def checked_folder(destination: str) -> Path:
    """The path of a folder of files, which may not exist yet.

    Raises:
        ExportError: it can't be.
    """
    path = Path(os.path.realpath(destination))
    if path.is_symlink():
        raise ExportError(f"{path} is a symbolic link that leads in a circle")
    if not path.name or not path.parent.is_dir():
        raise _no_folder(path, destination)
    return path


def _no_folder(path: Path, given: str) -> ExportError:
    hint = f", or write {given.partition(':')[0]}:// for a URL" if _SHORTENED_URL.match(given) else ""
    return ExportError(f"there is no folder {path.parent} for {path.name or path}: make it first{hint}")
