"""What earlier exports have read, so that the next one reads only runs that are new or hadn't ended."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import attrs
import msgspec

from tfruns._checks import argument_error
from tfruns.export.errors import ExportError
from tfruns.export.formats import Format
from tfruns.export.page import Page
from tfruns.models import BadRun, JobRunStatus

LATE = 3_600_000
"""Milliseconds: a run may show up in the list so much later than runs that were created after it."""
MOST_EXPORTS = 10_000
"""After so many exports with one state, the names of their files would no longer sort in their order."""
_VERSION = 2
_ENDED = frozenset(status for status in JobRunStatus if status.is_terminal)


class JobState(msgspec.Struct):
    """What is known of a job: which of its runs were written, and with what content."""

    newest: float | None = None
    """When the newest of its runs was created, in milliseconds since 1970 UTC; never later than the time when it was
    read: a run from a clock that is ahead must not make later runs look old."""
    recent: dict[str, float] = msgspec.field(default_factory=dict)
    """The ended runs, by id, with their creation, in the time in which other runs may still show up. All older runs
    were written."""
    open: dict[str, tuple[float, str]] = msgspec.field(default_factory=dict)
    """The runs that hadn't ended, by id: when they were created, and a digest of what was written."""
    bad: set[str] = msgspec.field(default_factory=set)
    """Digests of the runs that couldn't be understood, among those that were read the last time."""
    count: int = 0
    """How many runs the last increment found that weren't known for good."""

    @property
    def until(self) -> float:
        """All runs created before this time are known for good, unless they are open."""
        return float("-inf") if self.newest is None else self.newest - LATE

    def copy(self) -> "JobState":
        """A copy, for another reading."""
        return JobState(self.newest, dict(self.recent), dict(self.open), set(self.bad), self.count)


@attrs.define
class Reading:
    """What one export learns about a job, which earlier exports may know already.

    `known` is what the next export will know.
    """

    before: JobState
    known: JobState = attrs.field(init=False)
    unseen: set[str] = attrs.field(init=False)
    """The runs that were open the last time, and weren't read yet."""
    gone: list[str] = attrs.Factory(list)
    """Those of them that no longer exist."""

    def __attrs_post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start the reading from the beginning."""
        self.known = self.before.copy()
        self.known.bad.clear()
        self.known.count = 0
        self.unseen = set(self.before.open)
        self.gone = []

    @property
    def since(self) -> float | None:
        """All runs created before this, in milliseconds since 1970 UTC, are known for good, unless they are open."""
        return None if self.before.newest is None else self.before.until

    def wanted(self, page: Page) -> Page:
        """Those of the page's runs that were open the last time, and weren't read yet."""
        return page.only([at for at, run in enumerate(page.runs) if run.id in self.unseen])

    def news(self, page: Page) -> Page:
        """Take note of some runs, and return those whose present state wasn't written yet."""
        if not page.runs:
            return page
        known, recent_before, since = self.known, self.before.recent, self.before.until
        newest = min(max([run.created_at for run in page.runs]), time.time() * 1000)
        if known.newest is None or known.newest < newest:
            known.newest = newest
        until = known.until
        texts: Sequence[bytes] | None = None
        fresh: list[int] = []
        for at, run in enumerate(page.runs):
            run_id, created_at = run.id, run.created_at
            is_new = created_at >= since
            if run.status in _ENDED:
                if known.open.pop(run_id, None) is not None or (is_new and run_id not in recent_before):
                    fresh.append(at)
                if created_at >= until:
                    known.recent[run_id] = created_at
            else:
                texts = page.texts() if texts is None else texts
                found = created_at, _digest(texts[at])
                if known.open.get(run_id) != found:
                    fresh.append(at)
                known.open[run_id] = found
            known.count += is_new
        self.unseen.difference_update([run.id for run in page.runs])
        known.recent = {run_id: created_at for run_id, created_at in known.recent.items() if created_at >= until}
        if self.before.newest is None:  # all is new this time
            known.count = len(known.recent)
        return page if len(fresh) == len(page.runs) else page.only(fresh)

    def bad_news(self, bad: Iterable[BadRun]) -> list[BadRun]:
        """The same for runs that can't be understood."""
        by_digest = {_digest(run.text): run for run in bad}
        self.known.bad.update(by_digest)
        return [run for digest, run in by_digest.items() if digest not in self.before.bad]

    def lose(self, run_id: str) -> None:
        """An open run no longer exists."""
        self.known.open.pop(run_id, None)
        self.unseen.discard(run_id)
        self.gone.append(run_id)


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=8).hexdigest()


class _Versioned(msgspec.Struct):
    version: int


class _Content(_Versioned):
    """The content of the file."""

    about: dict[str, Any]
    exports: Annotated[int, msgspec.Meta(ge=1)]
    jobs: dict[str, JobState]


@attrs.define
class State:
    """What earlier exports have read of all jobs, as it is kept in a small file."""

    path: Path
    about: Mapping[str, Any]
    """The control plane and the filters: they stay the same from export to export."""
    exports: int = 0
    """How many there were."""
    jobs: dict[str, JobState] = attrs.Factory(dict)

    @classmethod
    def load(cls, path: Path, about: Mapping[str, Any]) -> Self:
        """The state in a file; none yet if the file isn't there.

        Raises:
            ExportError: the file isn't a state, or it is the state of other exports.
        """
        about = json.loads(json.dumps(about))
        if not path.parent.is_dir():
            raise ExportError(f"there is no folder {path.parent} for the state")
        try:
            text = path.read_bytes()
            if msgspec.json.decode(text, type=_Versioned).version != _VERSION:
                raise ExportError(f"{path} is of another version of tfruns: delete it to export all runs again")
            content = msgspec.json.decode(text, type=_Content)
        except FileNotFoundError:
            return cls(path, about)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ExportError(f"{path} isn't the state of an export: delete it to export all runs again") from None
        if content.about != about:
            names = ", ".join(name for name in about if content.about.get(name) != about[name])
            raise ExportError(f"{path} is the state of exports with another {names}: give another file for these")
        return cls(path, about, content.exports, content.jobs)

    def save(self) -> None:
        """Write it to the file, in place of the state before."""
        content = _Content(_VERSION, dict(self.about), self.exports, self.jobs)
        fresh = self.path.with_name(self.path.name + ".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(content))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.path)


def numbered(name: str, form: Format, number: int) -> str:
    """The file of one of several exports: `runs.0001.jsonl` is the second for `runs.jsonl`."""
    suffix = next((suffix for suffix in form.suffixes if name.lower().endswith(suffix)), "")
    stem = name[: len(name) - len(suffix)]
    return f"{stem}.{number:04}{name[len(stem) :]}"


def check_names(names: Iterable[str], name: str, form: Format, state: Path | None) -> None:
    """Check that the file of a full or a first export can't be mistaken for one of other exports.

    Args:
        names: what is there already.
        name: the name of the destination.
        form: its format.
        state: the file of the state, which has no export yet; None for an export without a state.

    Raises:
        ExportError: there are files of other exports.
    """
    first = numbered(name, form, 0)
    before, after = first.rsplit(".0000", 1)
    pattern = re.compile(rf"{re.escape(before)}\.[0-9]{{4}}{re.escape(after)}")
    found = sorted(filter(pattern.fullmatch, names))
    if state is None and first in found:
        raise ExportError(
            f"{first} is of exports with a state: a file of all runs beside it would be taken for newer than those to"
            " come. Give the state, or another destination"
        )
    if state is not None and found[-1:] > [first]:
        raise ExportError(
            f"{found[-1]} is of earlier exports, but their state, {state}, is gone: move the earlier files away, or"
            " what they hold would be taken for newer"
        )


def check_number(number: int, state: Path) -> None:
    """Check that one more file can be named.

    Raises:
        ExportError: there were too many.
    """
    if number >= MOST_EXPORTS:
        raise ExportError(
            f"there were {MOST_EXPORTS:,} exports with {state}, and no more files can be named in their order: delete"
            " it, and move the files away, to write all runs anew"
        )


def state_path(state: str | os.PathLike[str], destination: Path | str) -> Path:
    """The file of the state.

    Raises:
        ValueError: it is the destination.
    """
    path = Path(os.path.realpath(state))
    if path == destination:
        text = f" must name another file than the destination, got {os.fspath(state)!r}"
        raise argument_error(ValueError, "state", text)
    if destination in path.parents:
        text = f" must name a file outside of {destination}, whose files are runs, got {path}"
        raise argument_error(ValueError, "state", text)
    return path
