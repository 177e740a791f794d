"""What is asked for: the filters as one validated value, and the request target they make.

Everything here fails before any request, with a ValueError or a TypeError that says what was given and what is allowed.
"""

import difflib
import enum
import functools
import inspect
import math
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode

import attrs

from tfruns.models import JobRunsSortBy, JobRunStatus, SortDirection, wire_name

MAX_PAGE_SIZE = 1000
"""The most runs a page can hold (contract: the maximum of `limit`)."""


Moment = datetime | timedelta | float
"""A time: an aware datetime, a timedelta before now, or milliseconds since 1970."""

_LATEST = 1e17
"""In ms since 1970: no datetime, and no run, is as late."""

_Method = TypeVar("_Method", bound=Callable[..., Any])
_OTHER_NAMES = {  # `limit` is for a page, `max_runs` for walks; `since` and `until` are the command line's words
    "limit": ("max_runs",),
    "max_runs": ("limit",),
    "since": ("created_after", "start"),
    "until": ("created_before",),
}


def names_arguments(method: _Method) -> _Method:
    """Let a method of the client answer an argument that it doesn't have with the one that may be meant."""
    allowed = [name for name in inspect.signature(method).parameters if name != "self"]

    def check(given: Iterable[str]) -> None:
        for name in given:
            if name not in allowed:
                close = difflib.get_close_matches(name, allowed, n=1)
                meant = next((other for other in (*_OTHER_NAMES.get(name, ()), *close) if other in allowed), None)
                hint = "" if meant is None else f": did you mean {meant!r}?"
                raise TypeError(f"Client.{method.__name__}() has no argument {name!r}{hint}")

    def call(*args: Any, **kwargs: Any) -> Any:
        check(kwargs)
        return method(*args, **kwargs)

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        check(kwargs)
        return await method(*args, **kwargs)

    checked = functools.wraps(method)(call_async if inspect.iscoroutinefunction(method) else call)
    checked.__qualname__ = f"Client.{method.__name__}"
    return cast("_Method", checked)


_SORT_KEYS_BY_FIELD = {
    **dict.fromkeys(("created_at", "createdAt", "created", "start_time"), JobRunsSortBy.START_TIME.value),
    **{key.name.lower(): key.value for key in JobRunsSortBy},
}


def checked_job_id(job_id: str) -> str:
    """The job id, if it can be one."""
    if not isinstance(job_id, str):
        raise TypeError(f"job_id must be a string, got {job_id!r}")
    if not job_id.strip():
        raise ValueError(f"job_id is empty: {job_id!r}")
    if job_id in (".", ".."):
        # Percent-encoded dots are dots still: a proxy that tidies paths would make another path of them.
        raise ValueError(f"job_id can't be {job_id!r}: in a URL that names another path")
    return _encodable(job_id, "job_id")


def checked_int(value: int, name: str, *, least: int | None = None, most: int | None = None) -> int:
    """The value, if it is an int (no bool) from `least` to `most`."""
    allowed = "a whole number"
    if least is not None:
        allowed += f" from {least} to {most}" if most is not None else f", {least} or more"
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    if (least is not None and value < least) or (most is not None and value > most):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return value


def _encodable(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} can't be sent, for it isn't valid Unicode: {text!r}") from None
    return text


def _member(value: object, cls: type[enum.StrEnum], name: str) -> str:
    if isinstance(value, cls):
        return value.value
    allowed = "one of " + ", ".join(repr(member.value) for member in cls)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    if value not in cls.__members__.values():
        if (meant := next((member.value for member in cls if member.value.lower() == value.lower()), None)) is not None:
            return meant
        hint = ""
        if (meant := _SORT_KEYS_BY_FIELD.get(value)) is not None and cls is JobRunsSortBy:
            hint = f"; did you mean {meant!r}?"
        elif cls is JobRunStatus:
            hint = f"; for one that is newer than this version, pass {cls.__name__}({value!r})"
        raise ValueError(f"{name} must be {allowed}, got {value!r}{hint}")
    return value


def _several(value: Any, name: str, single: Callable[[Any], str]) -> tuple[str, ...] | None:
    if value is None:
        return None
    many = (value,) if isinstance(value, (str, bytes, int, float)) or not isinstance(value, Iterable) else tuple(value)
    if not many:
        raise ValueError(f"{name} is empty, which would match no run; leave it out for all runs")
    return tuple(map(single, many))


def _search_prefix(value: str | None) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"search_prefix must be a string, got {value!r}")
    return None if value is None else _encodable(value, "search_prefix")


def _sort_by(value: JobRunsSortBy | str | None) -> str | None:
    return None if value is None else _member(value, JobRunsSortBy, "sort_by")


def _order(value: SortDirection | str | None) -> str | None:
    return None if value is None else _member(value, SortDirection, "order")


def _triggered_by(value: Iterable[str] | str | None) -> tuple[str, ...] | None:
    def slug(one: object) -> str:
        if not isinstance(one, str):
            raise TypeError(f"triggered_by must be subject slugs, as strings, got {one!r}")
        return _encodable(one, "triggered_by")

    return _several(value, "triggered_by", slug)


def _status(value: Iterable[JobRunStatus | str] | JobRunStatus | str | None) -> tuple[str, ...] | None:
    return _several(value, "status", lambda one: _encodable(_member(one, JobRunStatus, "status"), "status"))


def _version_numbers(value: Iterable[float | str] | float | str | None) -> tuple[str, ...] | None:
    def number(one: object) -> str:
        if isinstance(one, str) and one.isascii() and one.isdigit():  # as JobRun.deployment_version has it
            return one
        if isinstance(one, bool) or not isinstance(one, (int, float)):
            raise TypeError(f"version_numbers must be numbers, got {one!r}")
        if isinstance(one, float) and not math.isfinite(one):
            raise ValueError(f"version_numbers must be finite numbers, got {one!r}")
        return str(int(one) if one == int(one) else one)

    return _several(value, "version_numbers", number)


def _moment(value: Moment | None, name: str) -> float | None:
    """A time in milliseconds since 1970."""
    allowed = f"{name} must be an aware datetime, a timedelta before now, or milliseconds since 1970"
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{allowed}; this datetime has no time zone: {value!r}")
        return value.timestamp() * 1000
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise ValueError(f"{allowed}, got {value!r}, which lies in the future")
        return (time.time() - value.total_seconds()) * 1000
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{allowed}, got {value!r}")
    if not abs(value) < _LATEST:  # a comparison takes an int that no float can hold, which isfinite doesn't
        raise ValueError(f"{allowed}, got {value!r}")
    if 0 < value < 1e11:  # in 1973 as milliseconds, now as seconds
        raise ValueError(f"{allowed}, got {value!r}: are these seconds?")
    return value


def _created_after(value: Moment | None) -> float | None:
    return _moment(value, "created_after")


def _created_before(value: Moment | None) -> float | None:
    return _moment(value, "created_before")


def _is_window(run_filter: "RunFilter", _: object, before: float | None) -> None:
    after = run_filter.created_after
    if after is not None and before is not None and after >= before:
        raise ValueError("created_after must be earlier than created_before: no run matches")


@attrs.frozen(kw_only=True)
class RunFilter:
    """Which runs of a job, and in which order.

    The API knows all of it but `created_after` and `created_before`: a walk applies these to what it reads.
    """

    search_prefix: str | None = attrs.field(default=None, converter=_search_prefix)
    sort_by: str | None = attrs.field(default=None, converter=_sort_by)
    order: str | None = attrs.field(default=None, converter=_order)
    triggered_by: tuple[str, ...] | None = attrs.field(default=None, converter=_triggered_by)
    status: tuple[str, ...] | None = attrs.field(default=None, converter=_status)
    version_numbers: tuple[str, ...] | None = attrs.field(default=None, converter=_version_numbers)
    created_after: float | None = attrs.field(default=None, converter=_created_after)
    created_before: float | None = attrs.field(default=None, converter=_created_before, validator=_is_window)

    @property
    def has_window(self) -> bool:
        """Whether only runs are wanted that were created within some time."""
        return self.created_after is not None or self.created_before is not None

    @property
    def is_newest_first(self) -> bool:
        """Whether every run that follows an old one is older still. (`startTime` isn't the time of creation.)"""
        return self.sort_by is None and self.order != SortDirection.ASC

    def is_within(self, created_at: float) -> bool:
        """Whether a run that was created then is within the time that is wanted."""
        return (self.created_after is None or created_at >= self.created_after) and (
            self.created_before is None or created_at < self.created_before
        )

    @property
    def is_by_creation(self) -> bool:
        """Whether the runs come in the order of their creation, one way or the other."""
        return self.sort_by in (None, JobRunsSortBy.START_TIME)

    @property
    def runs_jump(self) -> bool:
        """Whether a run changes its place in the order while it lives."""
        return self.sort_by in (JobRunsSortBy.DURATION, JobRunsSortBy.STATUS)

    def query_string(self) -> str:
        """The filter as a percent-encoded query string, a list as a repeated key."""
        ours = ("created_after", "created_before")
        given = {
            wire_name(name): value
            for name, value in attrs.asdict(self).items()
            if value is not None and name not in ours
        }
        return urlencode(given, doseq=True, quote_via=quote)


@attrs.frozen
class PageRequest:
    """One page to ask for."""

    job_id: str
    filter: RunFilter
    limit: int
    offset: int

    def target(self) -> str:
        """Path and query. The job id is one path segment, whatever it holds."""
        paging = f"limit={self.limit}&offset={self.offset}"
        query = self.filter.query_string()
        return f"/api/svc/v1/jobs/{quote(self.job_id, safe='')}/runs?{paging}{query and '&' + query}"
