"""tfruns: the run history of TrueFoundry jobs, async, typed, and exact while the list changes.

import tfruns

async with tfruns.Client() as client:       # TFY_HOST and TFY_API_KEY, or the CLI's credentials file
    async for run in client.iter_runs("job-id", status=["FAILED"]):
        print(run.name, run.status, run.created)
"""

from tfruns.client import Client
from tfruns.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    DecodeError,
    FieldProblem,
    IncompleteWalkError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    TfRunsError,
    UnprocessableEntityError,
)
from tfruns.models import (
    JobRun,
    JobRunsSortBy,
    JobRunStatus,
    Pagination,
    RunPage,
    SortDirection,
    Subject,
    SubjectType,
)
from tfruns.paginate import RunPaginator
from tfruns.retry import RetryPolicy
from tfruns.version import __version__

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "Client",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "DecodeError",
    "FieldProblem",
    "IncompleteWalkError",
    "InternalServerError",
    "JobRun",
    "JobRunStatus",
    "JobRunsSortBy",
    "NotFoundError",
    "Pagination",
    "PermissionDeniedError",
    "RateLimitError",
    "RetryPolicy",
    "RunPage",
    "RunPaginator",
    "SortDirection",
    "Subject",
    "SubjectType",
    "TfRunsError",
    "UnprocessableEntityError",
    "__version__",
]
