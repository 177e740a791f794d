"""The filters of runs as one checked value, and the target of a request for a page of runs."""

import difflib
import enum
import functools
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import quote, urlencode

import attrs

from tfruns._checks import check_names, checked_kind, checked_number, checked_string
from tfruns.models import JobRunsSortBy, JobRunStatus, SortDirection, wire_name

MAX_PAGE_SIZE = 1000
"""The most runs a page can hold (contract: the maximum of `limit`)."""

Moment = datetime | timedelta | float
"""A time: an aware datetime, a timedelta before now, or milliseconds since 1970."""

Status = (
    JobRunStatus
    | Literal[
        "CREATED",
        "SCHEDULED",
        "RUNNING",
        "FINISHED",
        "FAILED",
        "TERMINATION_REQUESTED",
        "TERMINATING",
        "TERMINATED",
        "UNKNOWN",
    ]
)
"""A `JobRunStatus`, or its string. (For a string that isn't known before: `JobRunStatus(text)`.)"""

SortBy = JobRunsSortBy | Literal["startTime", "duration", "deploymentVersion", "triggeredBy", "status"]
"""A `JobRunsSortBy`, or its string."""

Order = SortDirection | Literal["asc", "desc"]
"""A `SortDirection`, or its string."""


class WatchFilters(TypedDict, total=False):
    """The filters of `Client.watch_runs`, but for `status`."""

    search_prefix: str | None
    triggered_by: Iterable[str] | str | None
    version_numbers: Iterable[float | str] | float | str | None


class PageFilters(WatchFilters, total=False):
    """The filters, and the order, of `Client.list_runs`."""

    status: Iterable[Status] | Status | None
    sort_by: SortBy | None
    order: Order | None


class Filters(PageFilters, total=False):
    """The filters and the order of `Client.iter_runs`, for functions of your own that take them, too.

    Example:
        >>> from typing import Unpack
        >>> from tfruns.types import Filters
        >>> async def names(job_id: str, **filters: Unpack[Filters]) -> list[str]:
        ...     return [run.name for run in await client.iter_runs(job_id, **filters).collect()]
        >>> print(len(await names("my-job-id", order="asc")))
        250
    """

    created_after: Moment | None
    created_before: Moment | None


_LATEST = 1e17
"""In ms since 1970: later than any datetime or run."""

_OTHER_NAMES: dict[type[enum.StrEnum], dict[str, str]] = {
    JobRunsSortBy: {
        **dict.fromkeys(("created_at", "createdat", "created", "start_time"), "startTime"),
        **{key.name.lower(): key.value for key in JobRunsSortBy},
    },
    JobRunStatus: {
        **dict.fromkeys(("succeeded", "success", "successful", "complete", "completed", "done", "ok"), "FINISHED"),
        **dict.fromkeys(("pending", "queued", "waiting"), "SCHEDULED"),
        **dict.fromkeys(("cancelled", "canceled", "killed", "aborted", "stopped", "terminate"), "TERMINATED"),
        **dict.fromkeys(("cancelling", "canceling", "stopping", "killing"), "TERMINATING"),
        **dict.fromkeys(("error", "errored", "failure", "crashed"), "FAILED"),
        **dict.fromkeys(("active", "started", "in_progress", "executing"), "RUNNING"),
    },
    SortDirection: {"ascending": "asc", "descending": "desc"},
}
"""What other systems, and the fields of a run, call the values."""


def meant_value(text: str, cls: type[enum.StrEnum]) -> str | None:
    """The value that is probably meant by a text that is none."""
    ours = {member.value.lower(): member.value for member in cls}
    values = _OTHER_NAMES[cls] | ours
    word = text.strip().lower().replace("-", "_").replace(" ", "_")
    close = [word] if word in values else difflib.get_close_matches(word, values, n=1, cutoff=0.8)
    return next((values[name] for name in (*close, *difflib.get_close_matches(word, ours, n=1))), None)


def _one_of(cls: type[enum.StrEnum]) -> Callable[[Any, str], str]:
    allowed = "one of " + ", ".join(repr(member.value) for member in cls)

    def check(value: Any, name: str) -> str:
        if isinstance(value, cls):
            return checked_string(value.value, name)
        checked_kind(value, name, allowed, str)
        meant = meant_value(value, cls)
        if meant is not None and meant.lower() == value.lower():
            return meant
        hints = [f"did you mean {meant!r}?"] if meant else []
        if cls is JobRunStatus:
            hints.append(f"for one that is newer than this version, pass {cls.__name__}({value!r})")
        raise ValueError(f"{name} must be {allowed}, got {value!r}{'; ' * bool(hints)}{' Or '.join(hints)}")

    return check


def _several(check: Callable[[Any, str], str]) -> Callable[[Any, str], tuple[str, ...]]:
    def check_each(value: Any, name: str) -> tuple[str, ...]:
        is_several = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
        checked = tuple(check(one, name) for one in (value if is_several else [value]))
        if not checked:
            raise ValueError(f"{name} is empty, which would match no run; leave it out for all runs")
        return checked

    return check_each


def _version_number(value: Any, name: str) -> str:
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):  # as JobRun.deployment_version has it
        return value
    checked = checked_number(value, name, "finite numbers")
    return str(int(checked) if checked == int(checked) else checked)


def _moment(value: Any, name: str) -> Any:
    allowed = "an aware datetime, a timedelta before now, or milliseconds since 1970"
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{name} must be {allowed}; this datetime has no time zone: {value!r}")
        return value.timestamp() * 1000
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise ValueError(f"{name} must be {allowed}, got {value!r}, which lies in the future")
        return (time.time() - value.total_seconds()) * 1000
    checked_number(value, name, allowed, above=-_LATEST, most=_LATEST)
    if 0 < value < 1e11:  # in 1973 as milliseconds, now as seconds
        raise ValueError(f"{name} must be {allowed}, got {value!r}: are these seconds?")
    return value


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "search_prefix": checked_string,
    "sort_by": _one_of(JobRunsSortBy),
    "order": _one_of(SortDirection),
    "triggered_by": _several(functools.partial(checked_string, what="subject slugs, as strings")),
    "status": _several(_one_of(JobRunStatus)),
    "version_numbers": _several(_version_number),
    "created_after": _moment,
    "created_before": _moment,
}


@attrs.frozen(kw_only=True, init=False)
class RunFilter:
    """Which runs of a job, and in which order: the filters of `Client.iter_runs`, checked.

    Give it to a method as `filter`, in place of the single filters. The API has all of these filters but
    `created_after` and `created_before`, which a walk applies to the runs that it reads.

    Args:
        **filters: those of `Client.iter_runs`, explained there.

    Raises:
        TypeError, ValueError: a value can't be used; the message says what is allowed.

    Example:
        >>> from datetime import timedelta
        >>> from tfruns.types import RunFilter
        >>> failed = RunFilter(status="FAILED", created_after=timedelta(days=1))
        >>> print(failed.status, failed.sort_by)
        ('FAILED',) None
        >>> for job_id in ["job-a", "job-b"]:
        ...     print(job_id, await client.count_runs(job_id, filter=failed), "failed")  # doctest: +ELLIPSIS
        job-a ... failed
        job-b ... failed
    """

    search_prefix: str | None = None
    """The beginning of the name or the id of the run."""
    sort_by: str | None = None
    """The key that runs are sorted by; None for the server's order, newest first."""
    order: str | None = None
    """"asc" or "desc"; None for the server's choice."""
    triggered_by: tuple[str, ...] | None = None
    """Slugs of subjects, one of which started the run."""
    status: tuple[str, ...] | None = None
    """Statuses, one of which the run has."""
    version_numbers: tuple[str, ...] | None = None
    """Versions of the deployment, one of which the run is of."""
    created_after: float | None = None
    """In ms since 1970: the run was created then or later."""
    created_before: float | None = None
    """In ms since 1970: the run was created earlier."""

    def __init__(self, **filters: Unpack[Filters]) -> None:
        check_names(filters, _CHECKS, "RunFilter")
        given = {name: _CHECKS[name](value, name) for name, value in filters.items() if value is not None}
        self.__attrs_init__(**given)  # pyright: ignore[reportAttributeAccessIssue]
        first, end = self.window
        if first >= end:
            raise ValueError("created_after must be earlier than created_before: no run matches")

    @property
    def window(self) -> tuple[float, float]:
        """When the runs were created, in ms since 1970: from the first time on, before the second. Else infinite."""
        after, before = self.created_after, self.created_before
        return -math.inf if after is None else after, math.inf if before is None else before

    @property
    def has_window(self) -> bool:
        """Whether only runs created within a certain time are wanted."""
        return self.window != (-math.inf, math.inf)

    @property
    def is_newest_first(self) -> bool:
        """Whether every run is older than those before it."""
        # `startTime` isn't the time of creation.
        return self.sort_by is None and self.order != SortDirection.ASC

    @property
    def is_by_creation(self) -> bool:
        """Whether the runs come in the order of their creation, one way or the other: requested without `sort_by`."""
        return self.sort_by is None

    @property
    def is_narrow(self) -> bool:
        """Whether it may match none of many runs: it names a prefix, subjects, statuses or versions."""
        return any((self.search_prefix, self.triggered_by, self.status, self.version_numbers))

    def query_string(self) -> str:
        """The filter as a percent-encoded query string, a list as a repeated key."""
        given = {wire_name(name): value for name in _SENT if (value := getattr(self, name)) is not None}
        return urlencode(given, doseq=True, quote_via=quote) if given else ""


def given_filters(run_filter: RunFilter) -> dict[str, Any]:
    """The filters that are given, in a form that is the same whatever the order of several values."""
    given = attrs.asdict(run_filter, filter=lambda _, value: value is not None)
    return {name: tuple(sorted({*value})) if isinstance(value, tuple) else value for name, value in given.items()}


_SENT = ("search_prefix", "sort_by", "order", "triggered_by", "status", "version_numbers")
"""The filters that the API has."""


_ALL_RUNS = RunFilter()


def chosen_filter(given: RunFilter | None, single: Mapping[str, object]) -> RunFilter:
    """The filter that was given as `filter`, or else as single filters."""
    others: Any = {name: value for name, value in single.items() if value is not None}
    if given is None:
        return RunFilter(**others) if others else _ALL_RUNS
    chosen: RunFilter = checked_kind(given, "filter", "a RunFilter", RunFilter)
    if others:
        raise ValueError(f"filter goes with no single filter, got {', '.join(others)} too")
    return chosen


@attrs.frozen
class PageRequest:
    job_id: str
    filter: RunFilter
    limit: int
    offset: int

    def target(self) -> str:
        """Path and query. The job id is always one path segment, whatever characters it has."""
        paging = f"limit={self.limit}&offset={self.offset}"
        query = self.filter.query_string()
        return f"/api/svc/v1/jobs/{quote(self.job_id, safe='')}/runs?{paging}{query and '&' + query}"
