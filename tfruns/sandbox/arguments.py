"""Checks of the arguments of a sandbox. Each error says what was given and what is allowed."""

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from os import PathLike, fspath
from typing import Any, TypeGuard

from tfruns._checks import checked_int, checked_number
from tfruns.sandbox.data import made_up_job_ids

_LATEST = 250_000_000_000_000  # in the year 9892: some runs can still be created before the calendar ends


def checked_text(name: str, value: Any) -> str:
    """The value, if it is a string that can be sent in a header.

    Raises:
        TypeError: it isn't a string.
        ValueError: it is empty, or holds something other than visible ASCII characters.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}")
    if not value or not all("!" <= character <= "~" for character in value):
        raise ValueError(f"{name} must be one or more visible ASCII characters, without spaces, got {value!r}")
    return value


def checked_strings(name: str, values: Any) -> tuple[str, ...]:
    """The values, if they are strings.

    Raises:
        TypeError: they aren't, or a single string was given.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of strings, got {values!r}")
    strings = tuple(values)
    for value in strings:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a sequence of strings, got {value!r} in it")
    return strings


def checked_path(name: str, value: Any) -> str:
    """The path of a file.

    Raises:
        TypeError: it isn't one.
        ValueError: it is empty, or holds a NUL.
    """
    path = fspath(value) if isinstance(value, PathLike) else value
    if not isinstance(path, str):
        raise TypeError(f"{name} must be the path of a file, got {value!r}")
    if not path or "\0" in path:
        raise ValueError(f"{name} must be the path of a file, got {path!r}")
    return path


def checked_start(value: Any) -> float | None:
    """When a clock starts, in ms since 1970; None for the default.

    Raises:
        TypeError: it isn't a time.
        ValueError: it is a datetime without a time zone, or beyond the calendar.
    """
    allowed = 'an aware datetime, "now", None, or milliseconds since 1970'
    if value is None:
        return None
    if value == "now":
        return time.time() * 1000
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"clock_start must be {allowed}, got {value!r}, which has no time zone")
        return value.timestamp() * 1000
    return float(checked_number(value, "clock_start", f"{allowed}, from 0 to {_LATEST:.0f}", least=0, most=_LATEST))


def checked_job_ids(jobs: Any, seed: int) -> tuple[str, ...]:
    """The ids of the jobs: those given, or made-up ones if their number was given.

    Raises:
        TypeError: neither a whole number nor a sequence of strings was given.
        ValueError: there are no jobs; or an id is empty, given twice, or not valid Unicode.
    """
    if isinstance(jobs, int):
        return made_up_job_ids(seed, checked_int(jobs, "jobs", least=1))
    allowed = "jobs must be a number of jobs or a sequence of job ids"
    if not _is_sequence(jobs) or not all(isinstance(job_id, str) for job_id in jobs):
        raise TypeError(f"{allowed}, got {jobs!r}")
    if not jobs or "" in jobs or len(set(jobs)) < len(jobs):
        raise ValueError(f"{allowed}, at least one, none empty, none twice, got {jobs!r}")
    for job_id in jobs:
        try:
            job_id.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{allowed}, each valid Unicode, got {job_id!r}") from None
    return tuple(jobs)


def checked_run_counts(runs: Any, job_count: int) -> tuple[int, ...]:
    """How many runs each job has.

    Raises:
        TypeError: neither a whole number nor a sequence of them was given.
        ValueError: a number is negative, or there aren't as many numbers as jobs.
    """
    if isinstance(runs, int):
        return (checked_int(runs, "runs", least=0),) * job_count
    if not _is_sequence(runs) or not all(isinstance(count, int) for count in runs):
        raise TypeError(f"runs must be a number of runs or a sequence of them, one for each job, got {runs!r}")
    if len(runs) != job_count:
        raise ValueError(f"runs must hold one number for each job, {job_count} in all, got {len(runs)}: {runs!r}")
    return tuple(checked_int(count, "each of runs", least=0) for count in runs)


def _is_sequence(values: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(values, Sequence) and not isinstance(values, (str, bytes))
