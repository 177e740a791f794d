"""What earlier exports have read for good, so that the next reads only what is new or wasn't final."""

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import attrs
import msgspec

from tfruns.export.errors import ExportError
from tfruns.export.formats import Format
from tfruns.models import JobRun

LATE = 3_600_000
"""Milliseconds: a run may show up in the list that much later than others that were created after it."""
_VERSION = 1


class _Versioned(msgspec.Struct):
    version: int


class _Content(_Versioned):
    """What is in the file."""

    about: dict[str, Any]
    exports: Annotated[int, msgspec.Meta(ge=1)]
    jobs: dict[str, tuple[float | None, dict[str, float]]]


@attrs.define
class Known:
    """What is known of a job."""

    newest: float | None = None
    """When the newest of its runs was created, in milliseconds since 1970 UTC; never later than when that was read: a
    run from a clock that is ahead must not make those to come look old."""
    open: dict[str, float] = attrs.Factory(dict)
    """The runs that hadn't ended, by id, and when they were created."""
    gone: list[str] = attrs.Factory(list)
    """Of the runs that hadn't ended the last time, those that are no more."""

    @property
    def until(self) -> float:
        """Runs created before that are known for good, unless they are open."""
        return float("-inf") if self.newest is None else self.newest - LATE

    def see(self, runs: Iterable[JobRun]) -> None:
        """Some of its runs were read."""
        now = time.time() * 1000
        for run in runs:
            created_at = min(run.created_at, now)
            if self.newest is None or created_at > self.newest:
                self.newest = created_at
            if run.status.is_terminal:
                self.open.pop(run.id, None)
            else:
                self.open[run.id] = run.created_at


@attrs.define
class State:
    """What all jobs' earlier exports have read, as a small file keeps it."""

    path: Path
    about: Mapping[str, Any]
    """The control plane and the filters: they stay the same from export to export."""
    exports: int = 0
    """How many there were."""
    jobs: dict[str, Known] = attrs.Factory(dict)

    @classmethod
    def load(cls, path: Path, about: Mapping[str, Any]) -> Self:
        """The state in a file; none yet if the file isn't there.

        Raises:
            ExportError: the file is no such state, or that of other exports.
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
        jobs = {job_id: Known(newest, open_) for job_id, (newest, open_) in content.jobs.items()}
        return cls(path, about, content.exports, jobs)

    def save(self) -> None:
        """Put it in the place of the one before."""
        jobs = {job_id: (known.newest, known.open) for job_id, known in self.jobs.items()}
        content = {"version": _VERSION, "about": self.about, "exports": self.exports, "jobs": jobs}
        fresh = self.path.with_name(self.path.name + ".new")
        with fresh.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.path)


def delta_name(name: str, form: Format, number: int) -> str:
    """Where the runs of a later export go: `runs.0001.jsonl` after `runs.jsonl`."""
    suffix = next((suffix for suffix in form.suffixes if name.lower().endswith(suffix)), "")
    stem = name[: len(name) - len(suffix)]
    return f"{stem}.{number:04}{name[len(stem) :]}"


def is_delta(found: str, name: str, form: Format) -> bool:
    """Whether an export after the first has written the file of that name."""
    before, _, after = delta_name(name, form, 0).rpartition(".0000")
    return re.fullmatch(rf"{re.escape(before)}\.[0-9]{{4,}}{re.escape(after)}", found) is not None


def state_path(state: str | os.PathLike[str], destination: Path | str) -> Path:
    """The file of the state.

    Raises:
        ValueError: it is the destination.
    """
    path = Path(os.path.realpath(state))
    if path == destination:
        raise ValueError(f"state must name another file than the destination, got {os.fspath(state)!r}")
    return path
