"""Checks of the arguments of a sandbox. Each error says what was given and what is allowed."""

import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from os import PathLike, fspath
from typing import Any, TypeVar

from tfruns._checks import checked_int, checked_number
from tfruns.sandbox.data import made_up_job_ids

_T = TypeVar("_T")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LATEST = 250_000_000_000_000  # in the year 9892: some runs can still be created before the calendar ends


def checked(value: Any, name: str, kind: type[_T], allowed: str, fits: Callable[[_T], object] = lambda _: True) -> _T:
    """The value, if it is of this type, and fits."""
    if not isinstance(value, kind) or not fits(value):
        error = ValueError if isinstance(value, kind) else TypeError
        raise error(f"{name} must be {allowed}, got {value!r}")
    return value


def checked_items(values: Any, name: str, kind: Any, allowed: str) -> tuple[Any, ...]:
    """The items of something iterable, if each is of this type. A string isn't taken for a sequence of strings."""
    items = tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else (None,)
    if not all(isinstance(item, kind) for item in items):
        raise TypeError(f"{name} must be {allowed}, got {values!r}")
    return items


def checked_text(name: str, value: Any) -> str:
    """The value, if it can be sent in a header."""
    checked(value, name, str, "a string")
    visible = "one or more visible ASCII characters, without spaces"
    return checked(value, name, str, visible, lambda text: text and all("!" <= one <= "~" for one in text))


def checked_path(value: Any) -> str:
    """The path of a file."""
    path = fspath(value) if isinstance(value, PathLike) else value
    return checked(path, "runs_from", str, "the path of a file", lambda path: path and "\0" not in path)


def checked_start(value: Any) -> float:
    """When a clock starts, in ms since 1970."""
    allowed = 'an aware datetime, "now", None, or milliseconds since 1970'
    if value == "now":
        return time.time() * 1000
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"clock_start must be {allowed}, got {value!r}, which has no time zone")
        return value.timestamp() * 1000
    return checked_number(value, "clock_start", f"{allowed}, from 0 to {_LATEST:.0f}", least=0, most=_LATEST)


def checked_job_ids(jobs: Any, seed: int) -> tuple[str, ...]:
    """The ids of the jobs: those given, or made-up ones if their number was given."""
    if isinstance(jobs, int):
        return made_up_job_ids(seed, checked_int(jobs, "jobs", least=1))
    allowed = "a number of jobs or a sequence of job ids"
    ids = checked_items(jobs, "jobs", str, allowed)
    if not ids or "" in ids or len({*ids}) < len(ids) or any(map(_SURROGATE.search, ids)):
        raise ValueError(
            f"jobs must be {allowed}, at least one, none empty, none twice, each valid Unicode, got {jobs!r}"
        )
    return ids


def checked_run_counts(runs: Any, job_count: int) -> tuple[int, ...]:
    """How many runs each job has."""
    if isinstance(runs, int):
        return (checked_int(runs, "runs", least=0),) * job_count
    counts = checked_items(runs, "runs", int, "a number of runs or a sequence of them, one for each job")
    if len(counts) != job_count:
        raise ValueError(f"runs must hold one number for each job, {job_count} in all, got {len(counts)}: {runs!r}")
    return tuple(checked_int(count, "each of runs", least=0) for count in counts)
