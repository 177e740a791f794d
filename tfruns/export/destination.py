"""What each kind of destination of an export has to do, and the simplest kind: a file."""

import hashlib
import os
import re
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import attrs

from tfruns.export.files import make_own_folder
from tfruns.export.finish import Content, Written
from tfruns.export.results import ExportError
from tfruns.export.store import Store
from tfruns.export.watermark import MOST_EXPORTS, State
from tfruns.export.writer import Format, Writer

_WORK = ".tfruns-partial"


@attrs.frozen
class Claim:
    """What an export writes: in a place that belongs to some exports, all others are refused."""

    about: Mapping[str, Any]
    """The control plane and the filters."""
    jobs: Collection[str]
    days: tuple[float, float]
    """The first day of creation, and the first one that isn't meant any more, in days since 1970 UTC."""
    state: State | None
    replace: bool


class Destination(ABC):
    """A file, a table or a folder of files. All methods but `work_folder` are for the export's thread."""

    is_file: ClassVar = False
    """Whether each of several exports with a state writes its own file."""
    replaces: bool = False
    """Whether what is there is replaced as a whole, so that it must not be by nothing. From `begin` on."""

    @property
    @abstractmethod
    def format_(self) -> Format:
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
    def about(self) -> Mapping[str, str]:
        """What a state must contain about it, if a state belongs to this destination alone."""

    def work_folder(self, work_dir: Path | None) -> Path:
        """The working folder."""
        return work_folder_of(self.path, work_dir)

    def lock(self, work: Path) -> Path:
        """The file that is locked while an export writes there, whatever its working folder."""
        return lock_of(self.work_folder(None))

    def scratch(self, work: Path) -> Path:
        """A folder for what isn't complete: on the file system of a path, for one on this machine."""
        path = self.path
        if isinstance(path, str) or work.parent == path.parent:
            return work / "new"
        return path.with_name(path.name + ".tfruns-new")

    @abstractmethod
    def begin(self, claim: Claim) -> Self:
        """The destination of this export, before anything is read.

        Raises ExportError if nothing can be written there, or it belongs to other exports, or what the state says was
        written isn't there.
        """

    @abstractmethod
    def open(self, scratch: Path) -> Writer:
        """What takes the pieces while others are read: see `Content.assembly`."""

    @abstractmethod
    def finish(self, content: Content) -> Written:
        """Write everything, or change nothing."""


@attrs.frozen
class File(Destination):
    """A file: a new one takes its place. With a state, each export writes a file of its own."""

    store: Store
    name: str
    _format: Format = attrs.field(alias="format_")
    _before: Sequence[str] = ()
    """Files of exports with the state that begins anew."""
    replaces: bool = False
    is_file: ClassVar = True

    @property
    def format_(self) -> Format:
        return self._format

    @property
    def path(self) -> Path | str:
        return self.store.path(self.name)

    @property
    def quarantine(self) -> Path | str:
        return self.store.path(self.name + QUARANTINE)

    @property
    def about(self) -> Mapping[str, str]:
        return {}

    def begin(self, claim: Claim) -> "File":
        self.format_.check()
        state = claim.state
        if state is None:
            self.store.check(self.name)
            first, names = self.format_.for_increment(self.name, 0), self.store.names()
            if first in names:
                raise ExportError(
                    f"{first} is of exports with a state: a file of all runs beside it would be taken for newer than"
                    " those to come. Give the state, or another destination"
                )
            return attrs.evolve(self, replaces=self.name in names)
        if state.exports >= MOST_EXPORTS:
            raise ExportError(
                f"there were {MOST_EXPORTS:,} exports with {state.path}, and no more files can be named in their order:"
                " begin anew with replace=True (--replace)"
            )
        name = self.format_.for_increment(self.name, state.exports)
        path = self.store.path(name)
        if path == state.path:
            raise ExportError(f"{path} can't be both the state and what is written: give the state another name")
        self.store.check(name)
        before, after = name.rsplit(f".{state.exports:04}", 1)
        pattern = re.compile(rf"{re.escape(before)}\.([0-9]{{4}}){re.escape(after)}")
        found = [other for other in sorted(self.store.names()) if pattern.fullmatch(other)]
        wrong = [other for other in found if other >= name and (other, str(path)) != (name, state.writing)]
        if wrong and not claim.replace:
            raise ExportError(
                f"{wrong[-1]} is of other exports than those with the state {state.path}, and would be replaced or"
                " taken for newer: give their state or another destination, move their files away, or begin anew with"
                " replace=True (--replace)"
            )
        return attrs.evolve(self, name=name, before=[other for other in found if other > name])

    def open(self, scratch: Path) -> Writer:
        return self.format_.open(scratch / self.name, scratch)

    def finish(self, content: Content) -> Written:
        fresh = content.scratch / self.name
        content.assembly.close()
        put_quarantine(self.store, self.name + QUARANTINE, content)
        for name in reversed(self._before):  # the last first, so that those that are left are what was once exported
            content.check()
            self.store.remove(name)
            self.store.remove(name + QUARANTINE)
        size = fresh.stat().st_size
        self.store.put(fresh, self.name, content.check)
        return Written(size=size, removed_files=len(self._before))


QUARANTINE = ".rejected.jsonl"


def put_quarantine(store: Store, name: str, content: Content) -> None:
    """Write the runs that were rejected to a file; if no run was, remove the file."""
    if content.has_rejected:
        path = content.scratch / "rejected"
        content.write_rejected(path)
        store.put(path, name, content.check)
    else:
        store.remove(name)


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


def _caches() -> list[Path]:
    """The user's folder for caches, and one for temporary files."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or ""
        if not os.path.isabs(base):  # as its specification says
            base = os.path.expanduser("~/.cache")
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
    """Make the folder for caches, if the working folder is to be in one."""
    if work.parent in _caches():
        work.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_own_folder(work.parent)
