"""What an export is to do: its arguments, checked before any request."""

import hashlib
import json
import os
from collections.abc import AsyncIterable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs

from tfruns.client import Client
from tfruns.export.errors import ExportError
from tfruns.export.finish import check_alone, checked_destination
from tfruns.export.formats import Format, find_format
from tfruns.export.parts import NUMBER
from tfruns.export.watermark import MOST_EXPORTS, State, later_files, numbered, own_database, state_path
from tfruns.query import MAX_PAGE_SIZE, checked_int, checked_job_id

ON_BAD_RUN = ("quarantine", "raise")
_NOT_WITH_STATE = ("sort_by", "order", "status", "created_after", "created_before")


@attrs.frozen
class Request:
    """What an export was called with."""

    path: Path
    """The destination."""
    form: Format
    filters: Mapping[str, Any]
    about: Mapping[str, Any]
    """The control plane, the format and the filters, as they are compared with those of an earlier call."""
    jobs: tuple[tuple[int, str], ...]
    """Number and id of each job."""
    work: Path
    """The working folder."""
    quarantines: bool
    page_size: int
    state_path: Path | None

    @property
    def arguments(self) -> dict[str, Any]:
        """What has to be the same for a call that goes on."""
        digest = hashlib.sha256(json.dumps([job_id for _, job_id in self.jobs]).encode()).hexdigest()
        bad = {} if self.quarantines else {"on_bad_run": "raise"}
        return {**self.about, **bad, "jobs": f"{len(self.jobs):,} with the digest {digest[:12]}"}


async def prepare(
    client: Client,
    job_ids: Iterable[str] | AsyncIterable[str],
    destination: str | os.PathLike[str],
    *,
    format: str | None,  # noqa: A002
    state: str | os.PathLike[str] | None,
    work_dir: str | os.PathLike[str] | None,
    on_bad_run: str,
    page_size: int,
    filters: Mapping[str, Any],
) -> Request:
    """Check the arguments of `export_runs`.

    Raises:
        TypeError, ValueError: one is wrong.
        ExportError: there can be no file at the destination.
    """
    if on_bad_run not in ON_BAD_RUN:
        raise ValueError(f"on_bad_run must be one of {', '.join(ON_BAD_RUN)}, got {on_bad_run!r}")
    filters = {name: _kept(value) for name, value in filters.items()}
    path = checked_destination(destination)
    form = find_format(format, path)
    if state is not None and any(filters[name] is not None for name in _NOT_WITH_STATE):
        raise ValueError(
            f"state goes with no {', '.join(_NOT_WITH_STATE)}: it reads the newest runs of any status first"
        )
    state_file = None if state is None else state_path(state, path)
    resolved = client.iter_runs("each", **filters).filter  # it says what is wrong
    window = {name: getattr(resolved, name) for name in ("created_after", "created_before")}  # the same for all jobs
    # So many hours ago is another time when the call is made again, and yet the same argument.
    ago = {name: f"{filters[name]} ago" for name in window if isinstance(filters[name], timedelta)}
    about = {
        "control plane": client.base_url,
        "format": form.name,
        **attrs.asdict(resolved),
        **ago,
    }
    return Request(
        path=path,
        form=form,
        filters={**filters, **window},
        about=about,
        jobs=tuple(enumerate(await _read_ids(job_ids))),
        # With a state, files may get another name each time: what was interrupted goes on under the new one.
        work=_work_folder(path if form.is_database or state_file is None else state_file, work_dir),
        quarantines=on_bad_run == "quarantine",
        page_size=checked_int(page_size, "page_size", least=1, most=MAX_PAGE_SIZE),
        state_path=state_file,
    )


def _work_folder(path: Path, work_dir: str | os.PathLike[str] | None) -> Path:
    if work_dir is None:
        return path.with_name(path.name + ".tfruns-partial")
    folder = Path(os.path.realpath(work_dir))
    if not folder.is_dir():
        raise ExportError(f"there is no folder {folder} to work in: make it first")
    # Two destinations of one name may share it.
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return folder / f"{path.name}.{digest}.tfruns-partial"


def _kept(values: Any) -> Any:
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else values


async def _read_ids(job_ids: Iterable[str] | AsyncIterable[str]) -> list[str]:
    """The ids, each once."""
    if isinstance(job_ids, (str, bytes)) or not isinstance(job_ids, (Iterable, AsyncIterable)):
        raise TypeError(f"job_ids must be an iterable of job ids, sync or async, got {job_ids!r}")
    ids = [job_id async for job_id in job_ids] if isinstance(job_ids, AsyncIterable) else job_ids
    return list(dict.fromkeys(map(checked_job_id, ids)))


@attrs.frozen
class Target:
    """Where the runs go this time."""

    path: Path
    quarantine: Path
    state: State | None
    is_merged: bool
    """Whether they go into a database that is there."""
    arguments: Mapping[str, Any]


def choose_target(request: Request) -> Target:
    """See where the runs go, by the state of earlier exports. (It reads files: for the thread.)

    Raises:
        ExportError: the state doesn't fit what is there.
    """
    path, form = request.path, request.form
    arguments = request.arguments
    first = numbered(path, form, 0)
    if request.state_path is None:
        check_alone(path, form)
        if not form.is_database and first.exists():
            raise ExportError(
                f"{first} is of exports with a state: a file of all runs beside it would be taken for newer than those"
                " to come. Give the state, or another destination"
            )
        return Target(path, _quarantine(path), None, False, arguments)
    state = State.load(request.state_path, {**request.about, **own_database(form, path)})
    arguments[NUMBER] = state.exports
    file = numbered(path, form, state.exports)
    target_path = path if form.is_database else file
    if target_path == request.state_path:
        raise ExportError(f"{target_path} can't be both the state and what is written: give the state another name")
    if state.exports == 0:
        if later := later_files(path, form):
            raise ExportError(
                f"{later[0]} is of earlier exports, but their state, {request.state_path}, is gone: move the earlier"
                " files away, or what they hold would be taken for newer"
            )
        check_alone(path, form)
    elif form.is_database and not path.exists():
        raise ExportError(
            f"{path} isn't there, but by {request.state_path} it was written before: delete that to write it anew"
        )
    elif not form.is_database and state.exports >= MOST_EXPORTS:
        raise ExportError(
            f"there were {MOST_EXPORTS:,} exports with {request.state_path}, and no more files can be named in their"
            " order: delete it, and move the files away, to write all runs anew"
        )
    return Target(target_path, _quarantine(file), state, form.is_database and state.exports > 0, arguments)


def _quarantine(path: Path) -> Path:
    return path.with_name(path.name + ".rejected.jsonl")
