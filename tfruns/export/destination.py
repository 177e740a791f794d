"""What each kind of destination of an export has to do."""

import hashlib
import os
import re
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

from tfruns.export.files import make_own_folder
from tfruns.export.finish import Content, Written
from tfruns.export.formats import Format


class Destination(Protocol):
    """A file, an object, a table or a folder of files. All methods but `work_folder` are for the export's thread."""

    @property
    @abstractmethod
    def form(self) -> Format:
        """The format that is written."""

    @property
    @abstractmethod
    def path(self) -> Path | str:
        """Its name in the summary and in messages, without passwords."""

    @property
    @abstractmethod
    def quarantine(self) -> Path | str:
        """The name, in the summary, of the place of the runs that can't be written."""

    @property
    @abstractmethod
    def is_file(self) -> bool:
        """Whether each of several exports with a state writes its own file."""

    @property
    @abstractmethod
    def about(self) -> Mapping[str, str]:
        """What a state must contain about it, if a state belongs to this destination alone."""

    @abstractmethod
    def work_folder(self, work_dir: Path | None) -> Path:
        """The working folder."""

    def check(self) -> None:
        """Raise ExportError if it can't be written. Called before anything is read."""

    def begin(self, state: Path | None) -> None:
        """Raise ExportError if existing files don't allow a first or full export."""

    @abstractmethod
    def numbered(self, number: int, state: Path) -> Self:
        """The destination of one of several exports with a state, of which the first has the number 0.

        Raises ExportError if the destination doesn't exist though, by the state, it was written before.
        """

    @abstractmethod
    def finish(self, content: Content, work: Path) -> Written:
        """Write everything, or change nothing.

        Args:
            content: what to write: an increment, if `content.gone` isn't None.
            work: the working folder.
        """


def work_folder_of(path: Path, work_dir: Path | None) -> Path:
    """The working folder of a file on this machine."""
    if work_dir is None:
        return path.with_name(path.name + ".tfruns-partial")
    return named_work_folder(work_dir, path.name, os.fsencode(path))


def named_work_folder(folder: Path, name: str, identity: bytes) -> Path:
    """A working folder in a folder for many, in which several destinations may have the same name."""
    digest = hashlib.sha256(identity).hexdigest()[:8]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-80:]
    return folder / f"{plain}.{digest}.tfruns-partial"


def _caches() -> list[Path]:
    """The user's folder for caches, and one for temporary files."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    user = getattr(os, "getuid", lambda: "me")()
    return [Path(base, "tfruns"), Path(tempfile.gettempdir(), f"tfruns-{user}")]


def cache_folder() -> Path:
    """The folder for working folders of destinations that aren't on this machine. `make_cache_folder` makes it."""
    caches = _caches()
    for folder in caches:
        there = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            return folder
    return caches[-1]


def make_cache_folder(work: Path) -> None:
    """Make the folder for caches, if the working folder is to be in one.

    Raises:
        ExportError: the folder is another user's.
        OSError: it can't be made.
    """
    if work.parent in _caches():
        work.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_own_folder(work.parent)
