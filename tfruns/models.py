"""The payloads of the API as immutable attrs classes: the one description from which everything else is derived.

A field's name in the JSON is its Python name in camel case (`wire_name`), and a field with a default may be left out or
be null. Decoding, validation, serialisation and tests all read these classes.
"""

import enum
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Self, SupportsIndex, overload

import attrs
import msgspec

from tfruns._payload import Interchange, Payload, payload
from tfruns._payload import wire_name as wire_name
from tfruns._text import EPOCH, counted, html_table, printable, shown_instant

MOST_RUNS = 2**62
"""More runs than any list has: a larger total is refused."""


class _Word(enum.StrEnum):
    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        return Interchange.json_schema(cls, schema, handler)

    # An enum hashes by name; but a member that equals its string must hash like it, or a dict can't find one by the
    # other.
    __hash__ = str.__hash__


class _OpenEnum(_Word):
    """An enum that the server may extend: an unknown value becomes a separate member, which is never listed."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = printable(value)  # which the repr shows unquoted
        member._value_ = value
        return member

    @property
    def is_known(self) -> bool:
        """False for a value that this version of tfruns doesn't list."""
        return self._value_ in type(self)._value2member_map_


class JobRunStatus(_OpenEnum):
    """The status of a run (contract: `JobRunStatus`).

    A status that is not listed here is kept: `JobRunStatus("PAUSED")` has that value, equals only itself, and
    `is_known` is False.

    Example:
        >>> tfruns.JobRunStatus.FAILED.is_terminal, tfruns.JobRunStatus("PAUSED").is_known
        (True, False)
    """

    CREATED = "CREATED"
    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    TERMINATION_REQUESTED = "TERMINATION_REQUESTED"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    UNKNOWN = "UNKNOWN"

    @property
    def is_terminal(self) -> bool:
        """True once the run has ended and its status won't change again: FINISHED, FAILED or TERMINATED."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobRunStatus.FINISHED, JobRunStatus.FAILED, JobRunStatus.TERMINATED})


class SubjectType(_OpenEnum):
    """What kind of subject started a run (contract: `SubjectType`). Types not listed here are kept as they are.

    Example:
        >>> async for run in client.iter_runs("my-job-id"):
        ...     if run.triggered_by_subject and run.triggered_by_subject.subject_type == tfruns.SubjectType.USER:
        ...         print(run.name, "was started by a person")
    """

    USER = "user"
    TEAM = "team"
    SERVICEACCOUNT = "serviceaccount"
    VIRTUALACCOUNT = "virtualaccount"
    EXTERNAL_IDENTITY = "external-identity"
    AGENT_IDENTITY = "agent-identity"
    ROLE = "role"


class JobRunsSortBy(_Word):
    """What to sort runs by (contract: `JobRunsSortBy`).

    Example:
        >>> longest = await client.iter_runs("my-job-id", sort_by=tfruns.JobRunsSortBy.DURATION, order="desc").first()
    """

    START_TIME = "startTime"
    DURATION = "duration"
    DEPLOYMENT_VERSION = "deploymentVersion"
    TRIGGERED_BY = "triggeredBy"
    STATUS = "status"


class SortDirection(_Word):
    """Which way to sort (contract: `SortDirection`).

    Example:
        >>> oldest = await client.iter_runs("my-job-id", order=tfruns.SortDirection.ASC).first()
    """

    ASC = "asc"
    DESC = "desc"


def _instant(milliseconds: float, field: str) -> datetime:
    try:
        return EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise ValueError(f"{field} is {milliseconds!r} ms since 1970, beyond the years a datetime can hold") from None


def _repr_instant(milliseconds: float | None) -> str:
    shown = "" if milliseconds is None else shown_instant(milliseconds)
    return f"{milliseconds!r} <{shown}>" if shown else repr(milliseconds)


@payload(kw_only=True)
class Subject(Payload):
    """Who started a run (contract: `Subject`).

    Example:
        >>> async for run in client.iter_runs("my-job-id"):
        ...     if (subject := run.triggered_by_subject) is not None:
        ...         print(run.name, "was started by", subject.subject_slug, "a", subject.subject_type)
    """

    subject_id: str
    """Id of the subject."""
    subject_type: SubjectType
    """Kind of the subject."""
    subject_slug: str | None = None
    """Readable id: an e-mail address, or the account's name."""
    subject_display_name: str | None = None
    """Name for people."""
    subject_pat_name: str | None = None
    """Name of the personal access token that was used."""
    subject_controller_name: str | None = None
    """Name of the controller that acted."""
    subject_external_identity_slug: str | None = None
    """`external_identity_id:sub:email`."""


@payload(kw_only=True)
class JobRun(Payload):
    """One run of a job (contract: `JobRun`). Immutable, hashable, equal when every field is equal.

    To add methods of your own, derive a class by a plain `class` statement: attrs' decorators don't work on it.

    Example:
        >>> run = await client.iter_runs("my-job-id", status="FINISHED").first()
        >>> print(run.name, run.created, run.duration, "s", run.exit_code)
        >>> run.to_dict()["createdAt"] == run.created_at
        True
    """

    id: str
    """Id of the run, made by the system."""
    name: str
    """Name of the run."""
    application_name: str = attrs.field(repr=False)
    """Name of the job's application."""
    deployment_version: str
    """Version of the deployment that ran. (Older servers send an integer.)"""
    created_at: int | float = attrs.field(repr=_repr_instant)
    """When the run was created, in milliseconds since 1970 UTC: a number. `created` is the same as a datetime, and can
    be compared with one. (Exports and Arrow tables have `created_at` as a timestamp.)"""
    command: str = attrs.field(repr=False)
    """The command that ran."""
    total_retries: int = attrs.field(default=0, repr=False)
    """How often the run was retried. (Older servers leave it out: 0.)"""
    status: JobRunStatus = attrs.field(repr=printable)
    """The status of the run."""
    end_time: int | float | None = attrs.field(default=None, repr=_repr_instant)
    """When the run ended, in milliseconds since 1970 UTC. `ended` is the same as a datetime."""
    duration: int | None = None
    """How long the run took, in seconds. (Older servers send it as a string.)"""
    error: str | None = attrs.field(default=None, repr=False)
    """What went wrong."""
    triggered_by: str | None = None
    """Slug of the subject that started the run."""
    triggered_by_subject: Subject | None = attrs.field(default=None, repr=False)
    """The subject that started the run."""
    exit_code: int | None = None
    """Exit code of the command."""
    spark_ui: str | None = attrs.field(default=None, repr=False)
    """URL of the Spark UI."""
    application_id: str | None = attrs.field(default=None, repr=False)
    """Id of the job's application."""
    deployment_id: str | None = attrs.field(default=None, repr=False)
    """Id of the deployment that ran."""
    tenant_name: str | None = attrs.field(default=None, repr=False)
    """Name of the tenant."""

    @property
    def created(self) -> datetime:
        """`created_at` as an aware datetime in UTC; a ValueError if it is beyond the years that a datetime can hold."""
        return _instant(self.created_at, "created_at")

    @property
    def ended(self) -> datetime | None:
        """`end_time` as an aware datetime in UTC, or None while the run has no end; a ValueError likewise."""
        return None if self.end_time is None else _instant(self.end_time, "end_time")


@payload
class Pagination(Payload):
    """The place of a page in the whole list (contract: `Pagination`).

    Example:
        >>> page = await client.list_runs("my-job-id", limit=10, offset=20)
        >>> page.pagination
        Pagination(total=250, offset=20, limit=10)
    """

    total: Annotated[int, msgspec.Meta(ge=0, le=MOST_RUNS)]
    """How many runs match in all, by the server's count at that moment."""
    offset: int | None = None
    """How many runs were skipped."""
    limit: int | None = None
    """The most runs that the page may hold."""


@payload
class RunPage(Payload):
    """One page of runs (contract: `ListJobRunResponse`). Iterating over it yields its runs.

    Polars, DuckDB and pyarrow take it for a table of its runs (extra `arrow`): `polars.DataFrame(page)`,
    `duckdb.sql("FROM page")`, `pyarrow.table(page)`.

    Example:
        >>> page = await client.list_runs("my-job-id", limit=10)
        >>> print(len(page), "of", page.pagination.total, "the newest:", page[0].name)
    """

    data: tuple[JobRun, ...] = attrs.field(repr=lambda data: f"<{counted(len(data), 'run')}>")
    """The runs, in the server's order."""
    pagination: Pagination
    """The place of the page in the whole list."""

    @property
    def resume_token(self) -> str | None:
        """Where a walk by creation goes on after this page: for `Client.iter_runs`. None for other pages and copies."""
        token = vars(self).get("_resume_token")
        return None if token is None else str(token())

    def __iter__(self) -> Iterator[JobRun]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    @overload
    def __getitem__(self, index: SupportsIndex) -> JobRun: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[JobRun, ...]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> JobRun | tuple[JobRun, ...]:
        return self.data[index]

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return Interchange.arrow_stream(self.data, requested_schema)

    def _repr_html_(self) -> str:
        return html_table(self.data, f"{counted(len(self.data), 'run')} of {self.pagination.total:,}")


@attrs.frozen(kw_only=True, weakref_slot=False)
class BadRun:
    """A run that can't be understood, in a page whose other runs can be (see `raw_pages`).

    Example:
        >>> async for page in client.iter_runs("my-job-id").raw_pages(keep_bad=True):
        ...     for bad in page.bad:
        ...         print(bad.id, *bad.problems, bad.text)
    """

    id: str
    """Its id; if it has none, a text in brackets in its place."""
    created_at: int | float
    """When it was created, in milliseconds since 1970 UTC; if that is missing, the time of the run beside it."""
    text: bytes = attrs.field(repr=False)
    """The JSON text, as the server sent it."""
    problems: tuple[Any, ...]
    """What is wrong with it: each a `FieldProblem`."""


@attrs.frozen(weakref_slot=False)
class RawPage:
    """One page of runs, with the text of each as the server sent it, including unknown fields and the form of numbers.

    Example:
        >>> async for page in client.iter_runs("my-job-id").raw_pages():
        ...     print(len(page.data) == len(page.texts), page.texts[0][:1])
        True b'{'
    """

    data: tuple[JobRun, ...] = attrs.field(repr=lambda data: f"<{counted(len(data), 'run')}>")
    """The runs, in the server's order."""
    pagination: Pagination
    """The place of the page in the whole list."""
    bad: tuple[BadRun, ...] = ()
    """The runs that can't be understood, with `keep_bad`. They aren't in `data`."""
    _split: Callable[[], tuple[bytes, ...]] = attrs.field(default=tuple, repr=False, eq=False, alias="split")

    @property
    def texts(self) -> tuple[bytes, ...]:
        """The JSON text of each run in `data`, in UTF-8.

        A text may hold white space between its parts, line breaks too. Each use splits the page again.
        """
        return self._split()


def only(page: RawPage, indices: Sequence[int]) -> RawPage:
    """A page of some of its runs, by their indices in `data`. Those that are bad go into `bad`."""
    runs: list[Any] = [page.data[at] for at in indices]
    bad = tuple(run for run in runs if isinstance(run, BadRun))
    good = [at for at, run in zip(indices, runs, strict=True) if not isinstance(run, BadRun)] if bad else indices
    return RawPage(tuple(page.data[at] for at in good), page.pagination, bad, partial(_texts_at, page, good))


def _texts_at(page: RawPage, indices: Sequence[int]) -> tuple[bytes, ...]:  # not within `only`: pages can be pickled
    texts = page.texts
    return tuple(texts[at] for at in indices)


@payload
class HttpError(Payload):
    """What the server says about a request that failed (contract: `HttpError`)."""

    status_code: int
    """HTTP status code."""
    message: str
    """What went wrong."""
    code: int | str | None = None
    """The server's own code for it."""
    details: list[dict[str, Any]] | None = None
    """More about it, as the server sent it."""
