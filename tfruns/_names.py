"""The public names of `tfruns`, listed once. They are imported together when the first of them is used."""

from tfruns._decode import schema as _schema  # noqa: F401  # it makes `from_dict` and pydantic's schemas
from tfruns._http.events import ClientStats as ClientStats
from tfruns._http.events import FailureEvent as FailureEvent
from tfruns._http.events import RequestEvent as RequestEvent
from tfruns._http.events import ResponseEvent as ResponseEvent
from tfruns._http.events import RetryEvent as RetryEvent
from tfruns._http.options import RetryPolicy as RetryPolicy
from tfruns._table.lists import JobsRunList as JobsRunList
from tfruns._table.lists import RunList as RunList
from tfruns._walk.jobs import JobsPaginator as JobsPaginator
from tfruns._walk.jobs import JobsProgress as JobsProgress
from tfruns._walk.paginator import RunPaginator as RunPaginator
from tfruns._walk.paginator import RunsProgress as RunsProgress
from tfruns._watch.diff import ChangeKind as ChangeKind
from tfruns._watch.diff import RunChange as RunChange
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

PUBLIC = {name: value for name, value in globals().items() if name[0].isupper()}
for _class in PUBLIC.values():  # so `help()`, tracebacks and pickles name the place that users know
    _class.__module__ = "tfruns"
