"""The filters of runs as one checked value, and the target of a request for a page of runs."""

import difflib
import enum
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import attrs

from tfruns._checks import checked_number, checked_string
from tfruns.models import JobRunsSortBy, JobRunStatus, SortDirection, wire_name

MAX_PAGE_SIZE = 1000
"""The most runs a page can hold (contract: the maximum of `limit`)."""


Moment = datetime | timedelta | float
"""A time: an aware datetime, a timedelta before now, or milliseconds since 1970."""

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
    values = {member.value.lower(): member.value for member in cls}
    word = text.strip().lower().replace("-", "_").replace(" ", "_")
    if (found := values.get(word) or _OTHER_NAMES[cls].get(word)) is not None:
        return found
    return next(map(values.get, difflib.get_close_matches(word, values, n=1)), None)


def _member(value: object, cls: type[enum.StrEnum], name: str) -> str:
    if isinstance(value, cls):
        return value.value
    allowed = "one of " + ", ".join(repr(member.value) for member in cls)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    if value not in cls.__members__.values():
        meant = meant_value(value, cls)
        if meant is not None and meant.lower() == value.lower():
            return meant
        hints = [f"did you mean {meant!r}?"] if meant else []
        if cls is JobRunStatus:
            hints.append(f"for one that is newer than this version, pass {cls.__name__}({value!r})")
        hint = f"; {' Or '.join(hints)}" if hints else ""
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
    return None if value is None else checked_string(value, "search_prefix")


def _sort_by(value: JobRunsSortBy | str | None) -> str | None:
    return None if value is None else _member(value, JobRunsSortBy, "sort_by")


def _order(value: SortDirection | str | None) -> str | None:
    return None if value is None else _member(value, SortDirection, "order")


def _triggered_by(value: Iterable[str] | str | None) -> tuple[str, ...] | None:
    return _several(value, "triggered_by", lambda one: checked_string(one, "triggered_by", "subject slugs, as strings"))


def _status(value: Iterable[JobRunStatus | str] | JobRunStatus | str | None) -> tuple[str, ...] | None:
    return _several(value, "status", lambda one: checked_string(_member(one, JobRunStatus, "status"), "status"))


def _version_numbers(value: Iterable[float | str] | float | str | None) -> tuple[str, ...] | None:
    def number(one: Any) -> str:
        if isinstance(one, str) and one.isascii() and one.isdigit():  # as JobRun.deployment_version has it
            return one
        checked = checked_number(one, "version_numbers", "finite numbers")
        return str(int(checked) if checked == int(checked) else checked)

    return _several(value, "version_numbers", number)


def _moment(value: Moment | None, name: str) -> float | None:
    """A time in milliseconds since 1970."""
    allowed = "an aware datetime, a timedelta before now, or milliseconds since 1970"
    if value is None:
        return None
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
    """Which runs of a job, and in which order: the filters of `Client.iter_runs`, checked.

    The API has all of these filters but `created_after` and `created_before`, which a walk applies to the runs that it
    reads.

    Raises:
        TypeError, ValueError: a value can't be used; the message says what is allowed.

    Example:
        >>> failed = client.iter_runs("my-job-id", status="failed").filter
        >>> print(failed.status, failed.sort_by)
        ('FAILED',) None

    .. versionadded:: 0.2.0
    """

    search_prefix: str | None = attrs.field(default=None, converter=_search_prefix)
    """The beginning of the name or the id of the run."""
    sort_by: str | None = attrs.field(default=None, converter=_sort_by)
    """The key that runs are sorted by; None for the server's order, newest first."""
    order: str | None = attrs.field(default=None, converter=_order)
    """"asc" or "desc"; None for the server's choice."""
    triggered_by: tuple[str, ...] | None = attrs.field(default=None, converter=_triggered_by)
    """Slugs of subjects, one of which started the run."""
    status: tuple[str, ...] | None = attrs.field(default=None, converter=_status)
    """Statuses, one of which the run has."""
    version_numbers: tuple[str, ...] | None = attrs.field(default=None, converter=_version_numbers)
    """Versions of the deployment, one of which the run is of."""
    created_after: float | None = attrs.field(default=None, converter=_created_after)
    """In ms since 1970: the run was created then or later."""
    created_before: float | None = attrs.field(default=None, converter=_created_before, validator=_is_window)
    """In ms since 1970: the run was created earlier."""

    @property
    def has_window(self) -> bool:
        """Whether only runs created within a certain time are wanted."""
        return self.created_after is not None or self.created_before is not None

    @property
    def is_newest_first(self) -> bool:
        """Whether every run is older than those before it."""
        # `startTime` isn't the time of creation.
        return self.sort_by is None and self.order != SortDirection.ASC

    def is_within(self, created_at: float) -> bool:
        """Whether a run that was created at this time is within the wanted time.

        Args:
            created_at: the time, in ms since 1970.

        Returns:
            Whether it is.

        Example:
            >>> recent = client.iter_runs("my-job-id", created_after=1_700_000_000_000).filter
            >>> print(recent.is_within(1_600_000_000_000))
            False
        """
        return (self.created_after is None or created_at >= self.created_after) and (
            self.created_before is None or created_at < self.created_before
        )

    @property
    def is_by_creation(self) -> bool:
        """Whether the runs come in the order of their creation, one way or the other."""
        return self.sort_by in (None, JobRunsSortBy.START_TIME)

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
    """A request for one page."""

    job_id: str
    filter: RunFilter
    limit: int
    offset: int

    def target(self) -> str:
        """Path and query. The job id is always one path segment, whatever characters it has."""
        paging = f"limit={self.limit}&offset={self.offset}"
        query = self.filter.query_string()
        return f"/api/svc/v1/jobs/{quote(self.job_id, safe='')}/runs?{paging}{query and '&' + query}"
