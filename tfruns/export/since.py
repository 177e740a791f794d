"""What earlier exports have read for good, so that the next reads only what is new or wasn't final."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from tfruns.export.errors import ExportError
from tfruns.models import JobRun

LATE = 3_600_000
"""Milliseconds: a run may show up in the list that much later than others that were created after it."""
_VERSION = 1


@attrs.define
class Known:
    """What is known of a job."""

    newest: float | None = None
    """When the newest of its runs was created, in milliseconds since 1970 UTC."""
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
        for run in runs:
            if self.newest is None or run.created_at > self.newest:
                self.newest = run.created_at
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
        try:
            content = json.loads(path.read_bytes())
            if content["version"] != _VERSION:
                raise ExportError(f"{path} is of another version of tfruns: delete it to export all runs again")
            jobs = {job_id: Known(newest, dict(open_)) for job_id, (newest, open_) in content["jobs"].items()}
            state = cls(path, content["about"], content["exports"], jobs)
        except FileNotFoundError:
            return cls(path, about)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ExportError(f"{path} isn't the state of an export: delete it to export all runs again") from None
        if state.about != about:
            names = ", ".join(name for name in about if state.about.get(name) != about[name])
            raise ExportError(f"{path} is the state of exports with another {names}: give another file for these")
        return state

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
