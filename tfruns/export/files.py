"""Files and folders of an export: readable by their owner alone, used only if they are the user's own, locked. And the
one thread in which they are used, so that the event loop is never blocked."""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar, TypeVarTuple

from tfruns.export.results import ExportError

logger = logging.getLogger("tfruns")

_IS_POSIX = os.name == "posix"
_NOT_INHERITED = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def make_own_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter, or check that the existing one is such a folder."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise ExportError(f"{folder} is in the way: a folder of that name is needed for the work") from None
        _check_own(folder, found)
        if _IS_POSIX and found.st_mode & 0o077:
            folder.chmod(0o700)


def open_own_file(path: Path) -> int:
    """Open a file that only its owner can read and write, made if it isn't there; returns its descriptor."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NOT_INHERITED | _NO_LINK, 0o600)
    except OSError as error:
        if path.is_symlink():
            raise ExportError(f"{path} is a symbolic link: remove it") from error
        raise
    try:
        _check_own(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_own(path: Path, found: os.stat_result) -> None:
    if _IS_POSIX and found.st_uid != os.geteuid():
        raise ExportError(
            f"{path} belongs to another user (with the id {found.st_uid}), who could have put anything into it: remove"
            " it, or name another folder with work_dir"
        )
    if _IS_POSIX and found.st_mode & 0o022:
        raise ExportError(f"other users may write to {path}, and could have put anything into it: remove it")


def fresh_file(path: Path, mode: int = 0o600) -> int:
    """Make a new file in place of whatever has its name, say of a link that was planted. Returns its descriptor."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOT_INHERITED | _NO_LINK, mode)


def write_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace a file by one with this content, or leave it as it is."""
    fresh = path.with_name(path.name + ".new")
    with open(fresh_file(fresh, mode), "wb") as file:
        file.write(content)
    sync(fresh)
    replace(fresh, path)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    is_folder = path.is_dir()
    if is_folder and not _IS_POSIX:
        return  # no folder can be opened on Windows
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # as fsync needs on Windows
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(fresh: Path, path: Path) -> None:
    """Give a file another's name and place. On Windows that has to wait until nobody has the other open."""
    for pause in (0.05, 0.2, 0.5, 1.0, None):
        try:
            os.replace(fresh, path)
        except PermissionError as error:
            if _IS_POSIX or not path.is_file():
                raise
            if pause is None:
                raise ExportError(f"{path} can't be replaced: close the program that has it open ({error})") from None
            time.sleep(pause)
        else:
            return


def check_replaceable(path: Path) -> None:
    if is_mounted(path):
        raise ExportError(f"{path} is mounted as a single file, and no new file can take its place: mount the folder")


def check_writable(path: Path) -> None:
    """Check that what is there may be written to, and to the folders in it."""
    for found in (path, *path.glob("*/")):
        if found.exists() and not os.access(found, os.W_OK | os.X_OK * found.is_dir()):
            raise ExportError(f"{found} can't be written: you have no right to")


def is_mounted(path: Path) -> bool:
    """Whether a file is mounted by itself, as containers do with single files."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        places = (re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split(" ")[4]) for line in lines)
        return path.is_file() and str(path) in places
    return False


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for its owner alone, which is removed in the end."""
    if folder.is_symlink():
        raise ExportError(f"{folder} is a symbolic link: remove it")
    make_own_folder(folder)
    shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(fresh: Path, path: Path, check: Callable[[], None] = lambda: None) -> None:
    """Replace a file by a complete one on the same file system, which gets the mode and the owner of the old one. The
    last step before is `check`, which raises if it must not be replaced."""
    sync(fresh)
    owner = _adopt(fresh, path)
    check()
    replace(fresh, path)
    sync(path.parent)
    if owner is not None and path.stat().st_uid != owner:
        logger.warning("%s belonged to the user with the id %d; now it is yours", path, owner)


def _adopt(fresh: Path, destination: Path) -> int | None:
    """Give a file the mode and, if possible, the owner of the one that it replaces, or the mode of any new file.
    Returns that owner's id."""
    try:
        old = destination.stat()
    except FileNotFoundError:
        probe = fresh.with_name("mode")
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY, 0o666))
        fresh.chmod(probe.stat().st_mode & 0o777)
        return None
    now = fresh.stat()
    if hasattr(os, "chown") and (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.chown(fresh, old.st_uid, old.st_gid)
        except PermissionError:
            with contextlib.suppress(PermissionError):
                os.chown(fresh, -1, old.st_gid)
    fresh.chmod(old.st_mode & 0o777)
    return old.st_uid


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file while the block runs, and then remove it. Raises BlockingIOError if another process has locked it."""
    with contextlib.ExitStack() as opened:
        while True:
            descriptor = open_own_file(path)
            opened.callback(os.close, descriptor)
            _lock(descriptor)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    break
            opened.close()  # the holder before has just removed it: a lock on it excludes nobody
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # on Windows it is still open
                path.unlink()
    if not _IS_POSIX:
        with contextlib.suppress(OSError):
            path.unlink()


if sys.platform != "win32":
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

else:
    import msvcrt

    def _lock(descriptor: int) -> None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from None


_Arguments = TypeVarTuple("_Arguments")
_R = TypeVar("_R")


class StoppedError(Exception):
    """The work in the thread has to stop."""


class WorkThread:
    """Runs one function after the other, within `async with`.

    `run` waits until the function has ended, even if the wait is cancelled several times: so the caller always knows
    what a function has opened or made, and can close or remove it.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "tfruns-export")
        self._stopped = threading.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._executor.shutdown()  # it is idle: `run` has waited for all

    def start(self, function: Callable[[], object]) -> None:
        """Call the function in the thread, before all that are called later. Its error is lost."""
        self._executor.submit(function)

    async def run(self, function: Callable[[*_Arguments], _R], *arguments: *_Arguments) -> _R:
        """Call the function in the thread. A cancellation stops it at its next `check`, and is raised once it ended."""
        work = self._executor.submit(function, *arguments)
        ended = asyncio.wrap_future(work)
        cancelled: asyncio.CancelledError | None = None
        while not ended.done():
            try:
                await asyncio.wait([ended])
            except asyncio.CancelledError as error:
                cancelled = error
                self._stopped.set()
        if cancelled is not None:
            ended.exception()  # it was stopped: its error doesn't matter
            raise cancelled
        return ended.result()

    def check(self) -> None:
        """Raise StoppedError if the work has to stop: functions in the thread call this between their steps."""
        if self._stopped.is_set():
            raise StoppedError
