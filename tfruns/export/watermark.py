"""What earlier exports have read, so that the next one reads only runs that are new or hadn't ended."""

import contextlib
import hashlib
import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec

from tfruns.export.files import check_replaceable, write_file
from tfruns.export.results import ExportError
from tfruns.models import BadRun, JobRunStatus, RawPage, only

NO_ID = "(no id, "  # how the `id` of a `BadRun` without one begins

LATE = 3_600_000  # milliseconds: a run may show up in the list so much later than runs that were created after it
_VERSION = 3
_EXPORTS_REMEMBERED = 10
"""How many exports look again for a run that has gone, or has ended with a value that can't be written."""
_ENDED = frozenset(status for status in JobRunStatus if status.is_terminal)


class OpenRun(msgspec.Struct, frozen=True, array_like=True):
    """A run that the next export has to find again, however old it is."""

    created_at: float
    digest: str  # a digest of its text when it was read last; empty if it has gone
    exports_left: int | None = None
    """How many more exports look for it, if it has gone, or has ended with a value that can't be written."""


class JobState(msgspec.Struct):
    """What is known of a job: which of its runs were written, and with what content."""

    newest: float | None = None
    """When the newest of its runs was created, in milliseconds since 1970 UTC; never later than the time when it was
    read: a run from a clock that is ahead must not make later runs look old."""
    recent: dict[str, float] = msgspec.field(default_factory=dict)
    """The ended runs, by id, with their creation, in the time in which other runs may still show up. All older runs
    were written."""
    open: dict[str, OpenRun] = msgspec.field(default_factory=dict)
    """The runs, by id, that hadn't ended, couldn't be written, or have gone."""

    @property
    def until(self) -> float:
        """All runs created before this time are known for good, unless they are open."""
        return float("-inf") if self.newest is None else self.newest - LATE


class Reading:
    """What one export learns about a job, which earlier exports may know already."""

    def __init__(self, before: JobState) -> None:
        self.before = before
        self.begin()

    def begin(self) -> None:
        self.is_search = False  # whether only the runs that must be found are of interest
        self.read = self.total = 0  # how many runs were read, and how many the server says there are
        self.is_past = False
        """Whether the last page began with a run that may be new, and ended with one that is known for good."""
        before = self.before
        self.unseen = {run_id for run_id in before.open if not run_id.startswith(NO_ID)}
        """The runs that must be found, and weren't read yet."""
        left = before.open.items()
        left_open = {run_id: run for run_id, run in left if run_id in self.unseen or run.created_at >= before.until}
        self.known = JobState(before.newest, dict(before.recent), left_open)
        self.removed: dict[str, float] = {}
        """The runs that were written before and have gone or can't be written any more, each with its creation."""

    @property
    def vanished(self) -> set[str]:
        """Those of the runs that weren't read yet which were there the last time."""
        return {run_id for run_id in self.unseen if run_id not in self.before.open or self.before.open[run_id].digest}

    @property
    def still_open(self) -> set[str]:
        """Those of the runs that weren't read yet which were open the last time."""
        return {run_id for run_id in self.unseen if (run := self.before.open.get(run_id)) and run.exports_left is None}

    def created_at(self, run_id: str) -> float:
        return self.before.open[run_id].created_at if run_id in self.before.open else self.before.recent[run_id]

    def record(self, page: RawPage) -> RawPage:
        """Take note of some runs, and return those whose present state wasn't written yet. In a search for the runs
        that must be found, the others are left out."""
        if self.is_search:
            page = only(page, [at for at, run in enumerate(page.data) if run.id in self.unseen])
        else:
            self.read += len(page.data) + len(page.bad)
            self.total = page.pagination.total
            ends = [run.created_at for run in page.data] or [math.inf]
            # Only if the newest runs come first, as they should; else all runs are read.
            self.is_past = ends[-1] < self.before.until <= ends[0]
        if not page.data:
            return page
        known, before, since = self.known, self.before, self.before.until
        newest = min(max([run.created_at for run in page.data]), time.time() * 1000)
        if known.newest is None or known.newest < newest:
            known.newest = newest
        until = known.until
        texts: Sequence[bytes] | None = None
        fresh: list[int] = []
        doubtful: set[str] = set()
        for at, run in enumerate(page.data):
            run_id, created_at, has_ended = run.id, run.created_at, run.status in _ENDED
            last = before.open.get(run_id)
            if has_ended and last is None:
                if created_at >= since and run_id not in before.recent:
                    fresh.append(at)
            elif not has_ended and run_id in before.recent and not self.is_search:
                # It had ended: one response, maybe from an older state, is no proof that it hasn't.
                doubtful.add(run_id)
                continue
            else:
                texts = page.texts if texts is None else texts
                digest = _digest(texts[at])
                if last is not None and last.digest == digest:
                    self._keep(run_id, last)
                    continue
                fresh.append(at)
                known.open.pop(run_id, None)
                if not has_ended:
                    known.open[run_id] = OpenRun(created_at, digest)
                    known.recent.pop(run_id, None)
            if has_ended and created_at >= until:
                known.recent[run_id] = created_at
        self.unseen.difference_update([run.id for run in page.data])
        self.unseen |= doubtful
        known.recent = {run_id: created_at for run_id, created_at in known.recent.items() if created_at >= until}
        return page if len(fresh) == len(page.data) else only(page, fresh)

    def record_bad(self, bad: Iterable[BadRun]) -> list[BadRun]:
        """The same for runs that can't be understood."""
        fresh = []
        for run in bad:
            last = self.before.open.get(run.id)
            if self.is_search and run.id not in self.unseen:
                continue
            self.unseen.discard(run.id)
            if last is not None and last.digest == _digest(run.text):
                self._keep(run.id, last)
            elif last is not None or run.created_at >= self.before.until:
                self.set_aside(run)
                fresh.append(run)
        return fresh

    def set_aside(self, run: BadRun) -> None:
        """A run can't be written: what was written of it before is contradicted. A later export may write it."""
        exports_left = _EXPORTS_REMEMBERED if _has_ended(run.text) else None
        self.known.open[run.id] = OpenRun(run.created_at, _digest(run.text), exports_left)
        self.known.recent.pop(run.id, None)
        if run.id in self.before.open or run.id in self.before.recent:
            self.removed[run.id] = self.created_at(run.id)

    def mark_deleted(self, run_id: str) -> None:
        """A run that must be found isn't there. If it comes back soon, a later export writes it again."""
        last = self.before.open.get(run_id)
        self.unseen.discard(run_id)
        self.known.recent.pop(run_id, None)
        if last is not None and not last.digest:
            self._keep(run_id, last)
        else:
            self.removed[run_id] = self.created_at(run_id)
            self.known.open[run_id] = OpenRun(self.removed[run_id], "", _EXPORTS_REMEMBERED)

    def _keep(self, run_id: str, last: OpenRun) -> None:
        """Nothing has changed of a run that must be found."""
        if last.exports_left is None or last.created_at >= self.known.until:
            return
        if last.exports_left > 1:
            self.known.open[run_id] = msgspec.structs.replace(last, exports_left=last.exports_left - 1)
        else:
            self.known.open.pop(run_id, None)


def _has_ended(text: bytes) -> bool:
    """Whether a run that can't be written says that it has ended."""
    with contextlib.suppress(KeyError, ValueError, TypeError, RecursionError):
        return JobRunStatus(msgspec.json.decode(text)["status"]) in _ENDED
    return False


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=8).hexdigest()


class _Version(msgspec.Struct):
    version: int


class State(msgspec.Struct, kw_only=True):
    """What earlier exports have read of all jobs, as it is kept in a small file."""

    version: int = _VERSION
    id: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))  # what tells it from all other states
    about: Mapping[str, Any]  # the control plane and the filters: they stay the same from export to export
    exports: Annotated[int, msgspec.Meta(ge=0)] = 0
    jobs: dict[str, JobState] = {}
    writing: str | None  # the file that the next export has begun to write
    first_size: int | None = None  # of the file of the first export, if each writes its own

    @classmethod
    def load(cls, path: Path, about: Mapping[str, Any], *, is_new: bool) -> Self:
        """The state in a file; one without an export if the file isn't there, or is to be replaced."""
        fresh = cls(about=about, writing=None)
        check_replaceable(path)
        if is_new:
            return fresh
        try:
            text = path.read_bytes()
            if msgspec.json.decode(text, type=_Version).version != _VERSION:
                raise ExportError(f"{path} is of another version of tfruns: delete it to export all runs again")
            found = msgspec.json.decode(text, type=cls)
        except FileNotFoundError:
            return fresh
        except (ValueError, RecursionError):
            raise ExportError(f"{path} isn't the state of an export: delete it to export all runs again") from None
        if found.about == fresh.about:
            return found
        names = ", ".join(name for name in fresh.about if found.about.get(name) != fresh.about[name])
        raise ExportError(f"{path} is the state of exports with another {names}: give another file for these")

    @classmethod
    def count(cls, path: Path) -> int:
        """How many exports there were with the state in a file, as far as it can be read."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return msgspec.json.decode(path.read_bytes(), type=cls).exports
        return 0

    def save(self, path: Path) -> None:
        write_file(path, msgspec.json.encode(self))
