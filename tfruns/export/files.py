"""Files and folders of an export: readable by their owner alone, used only if they are the user's own, locked."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from tfruns.export.errors import ExportError

_IS_POSIX = os.name == "posix"
_NOT_INHERITED = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def make_own_folder(folder: Path) -> bool:
    """Make a folder that only its owner can enter, or check that the existing one is such a folder.

    Returns:
        Whether it was made.

    Raises:
        ExportError: it isn't a folder, or it belongs to another user, or others may write to it.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise ExportError(f"{folder} is in the way: a folder of that name is needed for the work") from None
        _check_own(folder, found)
        if _IS_POSIX and found.st_mode & 0o077:
            folder.chmod(0o700)
        return False
    return True


def open_own_file(path: Path, flags: int) -> int:
    """Open a file that only its owner can read and write; made if it isn't there. Returns its descriptor.

    Raises:
        ExportError: it belongs to another user, or others may write to it, or it isn't a file.
    """
    try:
        descriptor = os.open(path, flags | os.O_CREAT | _NOT_INHERITED | _NO_LINK, 0o600)
    except OSError as error:
        if path.is_symlink():
            raise ExportError(f"{path} is a symbolic link: remove it") from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ExportError(f"{path} is no ordinary file: remove it")
        _check_own(path, found)
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


def write_all(descriptor: int, data: bytes) -> None:
    """Write all the data at the descriptor's position."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder, on Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileLock:
    """A lock that ends with the process: a file that is locked while the lock is held, and removed afterwards.

    Args:
        path: the file. Its folder must be there.

    Raises:
        BlockingIOError: another process holds the lock.
        ExportError: the file is another user's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        while True:
            self._descriptor = open_own_file(path, os.O_RDWR)
            try:
                _lock(self._descriptor)
                if self._is_there():
                    return
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)  # the holder before has just removed it: a lock on it excludes nobody

    def _is_there(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path))
        return False

    def release(self) -> None:
        """Remove the file, and let others in. Releasing twice does nothing."""
        with self.released_last():
            pass

    @contextlib.contextmanager
    def released_last(self) -> Iterator[None]:
        """Remove the file, do what is in the block, and only then let others in."""
        if self._descriptor < 0:
            yield
            return
        try:
            with contextlib.suppress(OSError):
                self._path.unlink()  # not on Windows, while it is open
            yield
        finally:
            os.close(self._descriptor)
            self._descriptor = -1
            if not _IS_POSIX:
                with contextlib.suppress(OSError):
                    self._path.unlink()


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
