"""The run history of TrueFoundry jobs, async, typed, and exact while the list changes.

Example:
    >>> import tfruns
    >>> async with tfruns.Client() as client:  # TFY_HOST and TFY_API_KEY, or the CLI's credentials file
    ...     async for run in client.iter_runs("my-job-id", status=["FAILED"]):
    ...         print(run.name, run.status, run.created)

The examples here run as they stand in the asyncio REPL (`python -m asyncio`), with `client = tfruns.Client()`.

What to look up, with `help(tfruns.Client)` and so on:

- ask: `Client`, whose methods are `iter_runs`, `list_runs`, `count_runs`, and `iter_runs_for` for many jobs
- follow: `Client.watch_runs` (`RunWatch`, `RunChange`, `ChangeKind`), `Client.wait_for_run`
- answers: `JobRun`, `Subject`, `RunPage`, `Pagination`, `RawPage`, `BadRun`, `RunPaginator`, `JobsPaginator`,
  `JobsProgress`
- values of filters and fields: `JobRunStatus`, `JobRunsSortBy`, `SortDirection`, `SubjectType`
- errors: `TfRunsError` is the root; `help("tfruns.errors")` draws the tree
- retries, and what a client does: `RetryPolicy`, `RequestEvent`, `ResponseEvent`, `RetryEvent`, `FailureEvent`,
  `ClientStats`
- beside it: `tfruns.export`, `tfruns.arrow`, `tfruns.spark`, `tfruns.otel`; for tests
  `tfruns.sandbox` and `tfruns.pytest_plugin`
"""

# Names are imported when they are first used: `import tfruns`, and so `tfruns --help`, doesn't wait for aiohttp. The
# imports below are for type checkers and editors; a test holds both lists equal.
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tfruns.version import __version__ as __version__

if TYPE_CHECKING:
    from tfruns._http.events import ClientStats as ClientStats
    from tfruns._http.events import FailureEvent as FailureEvent
    from tfruns._http.events import RequestEvent as RequestEvent
    from tfruns._http.events import ResponseEvent as ResponseEvent
    from tfruns._http.events import RetryEvent as RetryEvent
    from tfruns._http.retry import RetryPolicy as RetryPolicy
    from tfruns._walk.jobs import JobsPaginator as JobsPaginator
    from tfruns._walk.jobs import JobsProgress as JobsProgress
    from tfruns._walk.paginator import RunPaginator as RunPaginator
    from tfruns._watch.diff import ChangeKind as ChangeKind
    from tfruns._watch.watcher import RunChange as RunChange
    from tfruns._watch.watcher import RunWatch as RunWatch
    from tfruns.client import Client as Client
    from tfruns.errors import APIConnectionError as APIConnectionError
    from tfruns.errors import APIError as APIError
    from tfruns.errors import APIStatusError as APIStatusError
    from tfruns.errors import APITimeoutError as APITimeoutError
    from tfruns.errors import AuthenticationError as AuthenticationError
    from tfruns.errors import BadRequestError as BadRequestError
    from tfruns.errors import ClientClosedError as ClientClosedError
    from tfruns.errors import ConfigurationError as ConfigurationError
    from tfruns.errors import ConflictError as ConflictError
    from tfruns.errors import DecodeError as DecodeError
    from tfruns.errors import EventLoopError as EventLoopError
    from tfruns.errors import FieldProblem as FieldProblem
    from tfruns.errors import IncompleteWalkError as IncompleteWalkError
    from tfruns.errors import InternalServerError as InternalServerError
    from tfruns.errors import NotFoundError as NotFoundError
    from tfruns.errors import PermissionDeniedError as PermissionDeniedError
    from tfruns.errors import RateLimitError as RateLimitError
    from tfruns.errors import ResponseTooLargeError as ResponseTooLargeError
    from tfruns.errors import RunDeletedError as RunDeletedError
    from tfruns.errors import RunFailedError as RunFailedError
    from tfruns.errors import RunNotFoundError as RunNotFoundError
    from tfruns.errors import TfRunsError as TfRunsError
    from tfruns.errors import UnprocessableEntityError as UnprocessableEntityError
    from tfruns.errors import WaitError as WaitError
    from tfruns.errors import WaitTimeoutError as WaitTimeoutError
    from tfruns.models import BadRun as BadRun
    from tfruns.models import JobRun as JobRun
    from tfruns.models import JobRunsSortBy as JobRunsSortBy
    from tfruns.models import JobRunStatus as JobRunStatus
    from tfruns.models import Pagination as Pagination
    from tfruns.models import RawPage as RawPage
    from tfruns.models import RunPage as RunPage
    from tfruns.models import SortDirection as SortDirection
    from tfruns.models import Subject as Subject
    from tfruns.models import SubjectType as SubjectType

_HOMES = {
    "_watch.diff": ("ChangeKind",),
    "client": ("Client",),
    "errors": (
        "APIConnectionError",
        "APIError",
        "APIStatusError",
        "APITimeoutError",
        "AuthenticationError",
        "BadRequestError",
        "ClientClosedError",
        "ConfigurationError",
        "ConflictError",
        "DecodeError",
        "EventLoopError",
        "FieldProblem",
        "IncompleteWalkError",
        "InternalServerError",
        "NotFoundError",
        "PermissionDeniedError",
        "RateLimitError",
        "ResponseTooLargeError",
        "RunDeletedError",
        "RunFailedError",
        "RunNotFoundError",
        "TfRunsError",
        "UnprocessableEntityError",
        "WaitError",
        "WaitTimeoutError",
    ),
    "_http.events": ("ClientStats", "FailureEvent", "RequestEvent", "ResponseEvent", "RetryEvent"),
    "_walk.jobs": ("JobsPaginator", "JobsProgress"),
    "models": (
        "BadRun",
        "JobRun",
        "JobRunStatus",
        "JobRunsSortBy",
        "Pagination",
        "RawPage",
        "RunPage",
        "SortDirection",
        "Subject",
        "SubjectType",
    ),
    "_walk.paginator": ("RunPaginator",),
    "_http.retry": ("RetryPolicy",),
    "_watch.watcher": ("RunChange", "RunWatch"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME_OF]  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # type checkers would take any name to be there

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module 'tfruns' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"tfruns.{_HOME_OF[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
