"""The arguments of an export, checked before any request."""

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs

from tfruns._checks import check_job_ids, checked_int, checked_job_id
from tfruns.client import Client
from tfruns.export.databases import TABLES, TableFile
from tfruns.export.dataset import MS_A_DAY, Dataset, day_of, find_layout
from tfruns.export.destination import Claim, Destination, File, work_folder_of
from tfruns.export.formats import find_format
from tfruns.export.postgres import PostgresTable, check_url, table_parts
from tfruns.export.results import ExportError
from tfruns.export.secrets import Hidden, scheme_of
from tfruns.export.store import LocalStore, checked_destination, checked_folder, remote_store
from tfruns.export.store import check_url as check_remote
from tfruns.export.watermark import State, state_path
from tfruns.query import MAX_PAGE_SIZE, RunFilter

ON_BAD_RUN = ("quarantine", "raise")
_WINDOW = ("created_after", "created_before")
_OF_A_FOLDER = ("search_prefix", "triggered_by", "status", "version_numbers")
"""The filters of which a folder holds all runs."""
_NOT_WITH_STATE = ("sort_by", "order", "status", "created_after", "created_before")


@attrs.frozen
class Request:
    """The checked arguments of an export."""

    destination: Destination
    filters: Mapping[str, Any]
    about: Mapping[str, Any]
    """The control plane, the format and the filters, which are compared with those of an earlier call."""
    jobs: tuple[tuple[int, str], ...]
    """Number and id of each job."""
    work: Path
    """The working folder."""
    quarantines: bool
    replace: bool
    """Whether what earlier exports have written is thrown away."""
    page_size: int
    state_path: Path | None

    @property
    def is_filtered(self) -> bool:
        """Whether some runs of the jobs are left out."""
        return any(value is not None for name, value in self.filters.items() if name not in ("sort_by", "order"))

    @property
    def arguments(self) -> dict[str, Any]:
        """What has to be the same in a call that resumes this export."""
        digest = hashlib.sha256(json.dumps([job_id for _, job_id in self.jobs]).encode()).hexdigest()
        more = {"on_bad_run": None if self.quarantines else "raise", "replace": self.replace or None}
        return {
            **self.about,
            **{name: value for name, value in more.items() if value},
            "jobs": f"{len(self.jobs):,} with the digest {digest[:12]}",
        }

    def claim(self, state: State | None) -> Claim:
        """What this export writes."""
        after, before = (self.filters[name] for name in _WINDOW)
        return Claim(
            about={name: self.about[name] for name in ("control plane", *_OF_A_FOLDER)},
            jobs=[job_id for _, job_id in self.jobs],
            days=(-math.inf if after is None else day_of(after), math.inf if before is None else day_of(before)),
            state=state,
            replace=self.replace,
        )


async def prepare(
    client: Client,
    job_ids: Iterable[str] | AsyncIterable[str],
    given: Hidden,
    *,
    options: Hidden,
    table: str,
    format: str | None,  # noqa: A002
    state: str | os.PathLike[str] | None,
    replace: bool,
    work_dir: str | os.PathLike[str] | None,
    on_bad_run: str,
    page_size: int,
    filters: Mapping[str, Any],
) -> Request:
    """Check the arguments of `export_runs`.

    Args:
        given: the destination.
        options: those of the object store.
    """
    if on_bad_run not in ON_BAD_RUN:
        allowed = ", ".join(ON_BAD_RUN)
        raise ValueError(f"on_bad_run must be one of {allowed}, got {on_bad_run!r}")
    if not isinstance(replace, bool):
        raise TypeError(f"replace must be True or False, got {replace!r}")
    filters = {name: _kept(value) for name, value in filters.items()}
    destination = find_destination(given, options, table, format)
    if state is not None and any(filters[name] is not None for name in _NOT_WITH_STATE):
        others = ", ".join(_NOT_WITH_STATE)
        raise ValueError(f"state goes with no {others}: it reads the newest runs of any status first")
    state_file = None if state is None else state_path(state, destination.path)
    folder = None if work_dir is None else _checked_work_dir(work_dir)
    resolved = RunFilter(**filters)
    window = {name: getattr(resolved, name) for name in _WINDOW}  # the same for all jobs
    if isinstance(destination, Dataset):  # whose files are of whole days
        ends = zip(_WINDOW, (math.floor, math.ceil), strict=True)
        window = {name: window[name] and whole(window[name] / MS_A_DAY) * MS_A_DAY for name, whole in ends}
    # With a timedelta, a second call means another time, and yet has the same argument.
    ago = {name: f"{filters[name]} ago" for name in window if isinstance(filters[name], timedelta)}
    about = {
        "control plane": client.base_url,
        "format": destination.format_.name,
        **attrs.asdict(resolved),
        **window,
        **ago,
    }
    ids = await _read_ids(job_ids)
    if not ids:
        raise ValueError("job_ids is empty: an export without a job would replace what is there")
    return Request(
        destination=destination,
        filters={**filters, **window},
        about=about,
        jobs=tuple(enumerate(ids)),
        # With a state, files may get another name each time: an interrupted export goes on under the new name.
        work=work_folder_of(destination.path if state_file is None or not destination.is_file else state_file, folder),
        quarantines=on_bad_run == "quarantine",
        replace=replace,
        page_size=checked_int(page_size, "page_size", least=1, most=MAX_PAGE_SIZE),
        state_path=state_file,
    )


def find_destination(given: Hidden, options: Hidden, table: str, format: str | None) -> Destination:  # noqa: A002
    """The destination for what was given as one."""
    if not isinstance(given.value, (str, os.PathLike)):
        raise TypeError(f"destination must be a path or a URL, got {type(given.value).__name__}")
    if given.value in ("", "-"):
        hint = ": only the command line writes to standard output" if given.value else ""
        raise ValueError(f"destination must be a path or a URL, got {given.value!r}{hint}")
    scheme = scheme_of(given)
    if scheme is not None:  # libraries know it only in lower case
        given = Hidden(scheme + str(given.value)[len(scheme) :])
    if scheme in ("file", "local"):
        path_of_url = str(given.value).partition("://")[2]
        if sys.platform == "win32":
            path_of_url = re.sub("^/+(?=[A-Za-z]:)", "", path_of_url)
        given, scheme = Hidden(path_of_url), None
    if scheme in ("postgresql", "postgres"):
        if format is not None:
            raise ValueError(f"format goes with files, not with a table of PostgreSQL, got {format!r}")
        if options.value is not None:
            raise ValueError("storage_options go with object stores: what PostgreSQL is to know stands in its URL")
        check_url(given)
        return PostgresTable(given, table_parts(table))
    if table != "runs":
        raise ValueError(f"table goes with postgresql:// alone, got {table!r}")
    if scheme is None:
        if options.value is not None:
            raise ValueError("storage_options go with a URL that fsspec knows, such as s3://bucket/runs.parquet")
        if isinstance(given.value, str) and given.value.endswith(("/", os.sep)):
            path = checked_folder(given.value)
            return Dataset(LocalStore(path.parent), path.name, find_layout(format))
        path = checked_destination(given.value)
        format_ = find_format(format, path.name)
        if format_.name in TABLES:
            return TableFile(path, format_)
        return File(LocalStore(path.parent), path.name, format_)
    check_remote(given)
    store, name = remote_store(given, Hidden(dict(options.value or {})))
    if name.endswith("/"):
        return Dataset(store, name[:-1], find_layout(format))
    return File(store, name, find_format(format, name))


def _checked_work_dir(work_dir: str | os.PathLike[str]) -> Path:
    folder = Path(os.path.realpath(work_dir))
    if not folder.is_dir():
        raise ExportError(f"there is no folder {folder} to work in: make it first")
    return folder


def _kept(values: Any) -> Any:
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else values


async def _read_ids(job_ids: Iterable[str] | AsyncIterable[str]) -> list[str]:
    """The ids, each once."""
    check_job_ids(job_ids)
    ids = [job_id async for job_id in job_ids] if isinstance(job_ids, AsyncIterable) else job_ids
    return list(dict.fromkeys(map(checked_job_id, ids)))
