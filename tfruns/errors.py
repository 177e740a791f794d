"""Every error tfruns raises, as one tree.

    TfRunsError
    ├── ConfigurationError (a ValueError too)     no host, no key, or one that can't be used
    ├── ClientClosedError (a RuntimeError too)    a client used after it was closed
    ├── EventLoopError (a RuntimeError too)       a client used from another event loop or process
    ├── APIError                                  a request that failed
    │   ├── APIConnectionError                    no response: refused, reset, cut off
    │   │   └── APITimeoutError                   no complete response in time
    │   ├── APIStatusError                        a response other than 200
    │   │   ├── BadRequestError                   400
    │   │   ├── AuthenticationError               401
    │   │   ├── PermissionDeniedError             403
    │   │   ├── NotFoundError                     404
    │   │   ├── ConflictError                     409
    │   │   ├── UnprocessableEntityError          422
    │   │   ├── RateLimitError                    429
    │   │   └── InternalServerError               5xx
    │   └── DecodeError                           a response that isn't what the contract says
    │       └── ResponseTooLargeError             a response that is larger than allowed
    ├── IncompleteWalkError                       a list that can't be walked to its end
    └── WaitError                                 a wait for a run that failed
        ├── RunNotFoundError                      there is no such run
        ├── RunDeletedError                       it was deleted meanwhile
        ├── RunFailedError                        it failed or was terminated
        └── WaitTimeoutError (a TimeoutError too) it hasn't ended in time

Wrong arguments aren't in this tree: they raise ValueError or TypeError before any request. The text of an error is one
printable line, whatever the server sent, and nothing in an error holds the API key.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from tfruns._text import shortened
from tfruns.models import HttpError, JobRun


class TfRunsError(Exception):
    """The root of every error of tfruns.

    Example:
        >>> try:
        ...     runs = await client.iter_runs("no-such-job").collect()
        ... except tfruns.NotFoundError:
        ...     print("there is no such job")
        ... except tfruns.TfRunsError as error:
        ...     print(f"the runs can't be listed: {error}")
        there is no such job
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors are sent to other processes (multiprocessing, Spark), which keyword-only arguments would otherwise
        # prevent.
        return type(self).__new__, (type(self),), {**self.__dict__, "args": self.args}


class ConfigurationError(TfRunsError, ValueError):
    """There is no host or no key, or one that can't be used; the message says where it came from."""


class ClientClosedError(TfRunsError, RuntimeError):
    """The client was closed and can make no more requests."""

    def __init__(self, text: str = "the client is closed: keep its use inside `async with`, or make a new one") -> None:
        super().__init__(text)


class EventLoopError(TfRunsError, RuntimeError):
    """The client is in use in another event loop, or was in use before this process was forked."""


class APIError(TfRunsError):
    """A request failed: it returned no page of runs.

    Attributes:
        job_id: the job of the request.
        offset: how many runs of the list it skips.
        attempts: how many attempts were made.
        gave_up_because: why it was not retried, if the retry policy's deadline or patience was the reason; else empty.
        is_transient: whether the same request may succeed later: it was retried, if the retry policy allows that.
            A host that never responded, and can't be reached, is retried for some seconds, and may be wrong: False.

    Example:
        >>> try:
        ...     count = await client.count_runs("no-such-job")
        ... except tfruns.APIError as error:
        ...     print(error.job_id, error.offset, error.attempts)
        no-such-job 0 1
    """

    _advice: ClassVar[str] = ""
    """What to do when all retries have failed."""
    _may_pass: bool = False

    def __init__(self, text: str, *, job_id: str = "", offset: int = 0) -> None:
        super().__init__(text)
        self.job_id = job_id
        self.offset = offset
        self.attempts = 1
        self.gave_up_because = ""
        self.is_transient = self._may_pass

    def __str__(self) -> str:
        text = super().__str__()
        if self.job_id:
            text = f"job {self.job_id!r}, offset {self.offset}: {text}"
        if self.attempts > 1:
            text += f" (after {self.attempts} attempts{self._advice and '; '}{self._advice})"
        if self.gave_up_because:
            text += f" (not retried{' again' if self.attempts > 1 else ''}: {self.gave_up_because})"
        return text


class APIConnectionError(APIError):
    """The server couldn't be reached, or the connection broke before the response was complete."""

    _advice = "is the host right, and the network in order?"
    _may_pass = True


class APITimeoutError(APIConnectionError):
    """There was no complete response in time."""

    _advice = "a longer timeout or smaller pages may help"


class APIStatusError(APIError):
    """The server responded with a status other than 200 (contract: `HttpError`).

    Attributes:
        status_code: HTTP status of the response.
        message: the server's message, or the start of the body if it isn't an `HttpError`.
        code: the server's own code, if it gave one.
        details: more about it, as the server sent it, if it gave any.
        request_id: the server's id of the request, for its operators, if it gave one.
        headers: headers of the response; the case of names makes no difference.

    Example:
        >>> try:
        ...     count = await client.count_runs("no-such-job")
        ... except tfruns.APIStatusError as error:
        ...     print(error.status_code, error.message, error.request_id)  # doctest: +ELLIPSIS
        404 ...
    """

    def __init__(self, *, body: HttpError, reason: str, headers: Mapping[str, str], hint: str = "") -> None:
        self.status_code = body.status_code
        self.message = body.message
        self.code = body.code
        self.details = body.details
        self.request_id = headers.get("x-request-id")
        self.headers = headers
        text = f"{self.status_code} {shortened(reason, 100)}".strip()
        text += f": {shortened(self.message)}" if self.message else ""
        text += f" ({hint})" if hint else ""
        text += f" (request id {shortened(self.request_id, 200)})" if self.request_id else ""
        self._may_pass = self.status_code in (408, 425, 429) or 500 <= self.status_code <= 599
        super().__init__(text)


class BadRequestError(APIStatusError):
    """400: the server couldn't read the request."""


class AuthenticationError(APIStatusError):
    """401: the key is missing, wrong or expired."""


class PermissionDeniedError(APIStatusError):
    """403: the key's owner has no access to the job's workspace."""


class NotFoundError(APIStatusError):
    """404: there is no such job."""


class ConflictError(APIStatusError):
    """409: the request conflicts with the state of the server."""


class UnprocessableEntityError(APIStatusError):
    """422: the server rejected a parameter."""


class RateLimitError(APIStatusError):
    """429: too many requests, even after the last retry. See `max_rate` and `max_concurrency` of `Client`."""

    _advice = "try again later, or send fewer requests at once"


class InternalServerError(APIStatusError):
    """5xx: the server failed, even after the last retry."""

    _advice = "try again later"


NOT_ABOUT_ONE_JOB = (AuthenticationError, ClientClosedError, ConfigurationError, EventLoopError)
"""Errors that requests for other jobs would have too."""

_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error_class(status_code: int) -> type[APIStatusError]:
    """The class for a response with that status: APIStatusError if the status has no class of its own."""
    if 500 <= status_code <= 599:
        return InternalServerError
    return _BY_STATUS.get(status_code, APIStatusError)


@attrs.frozen
class FieldProblem:
    """One field of a response that isn't what the contract says.

    Example:
        >>> print(tfruns.FieldProblem("status", "expected `str`, got `int`", position=3, run_id="r-1"))
        run 'r-1' at 3: status: expected `str`, got `int`
    """

    field: str
    """Its path within the run, or within the page if `position` is None: `triggeredBySubject.subjectType`."""
    reason: str
    """What was expected and what was found."""
    position: int | None = None
    """The run's place in the list, from 0."""
    run_id: str | None = None
    """The run's id, if it could be read."""

    def __str__(self) -> str:
        if self.position is None:
            return f"{self.field}: {self.reason}"
        name = "the run" if self.run_id is None else f"run {shortened(self.run_id, 100)!r}"
        name += f" at {self.position}"
        return f"{name}: {self.field}: {self.reason}" if self.field else f"{name}: {self.reason}"


class DecodeError(APIError):
    """The server responded with 200, but not with a page of runs.

    Attributes:
        problems: every bad field, as `FieldProblem`; empty if the response wasn't JSON at all.
        is_page: whether it was a page, in which fields are wrong; else it is a proxy's own page, or was cut off.

    Example:
        >>> try:
        ...     runs = await client.iter_runs("my-job-id").collect()
        ... except tfruns.DecodeError as error:
        ...     for problem in error.problems:
        ...         print(problem.run_id, problem.field, problem.reason)
    """

    def __init__(
        self, text: str, *, job_id: str = "", offset: int = 0, problems: tuple[FieldProblem, ...] = ()
    ) -> None:
        super().__init__(text, job_id=job_id, offset=offset)
        self.problems = problems
        self.is_page = True


class ResponseTooLargeError(DecodeError):
    """A response is larger than allowed: request smaller pages, or raise `max_response_bytes`.

    Example:
        >>> try:
        ...     page = await client.iter_runs("my-job-id", max_response_bytes=1_000).fetch(offset=0, limit=100)
        ... except tfruns.ResponseTooLargeError:
        ...     page = await client.iter_runs("my-job-id").fetch(offset=0, limit=10)
    """


class IncompleteWalkError(TfRunsError):
    """The list couldn't be walked to its end with the guarantee that each run is yielded exactly once.

    Attributes:
        job_id: the job that was walked.
        offset: the offset at which the walk gave up.
        seen: how many runs were yielded before.
        total: how many runs the server last said there are.

    Example:
        >>> try:
        ...     runs = await client.iter_runs("my-job-id").collect()
        ... except tfruns.IncompleteWalkError as error:
        ...     print(f"{error.seen} of {error.total} runs: {error}")
    """

    def __init__(self, text: str, *, job_id: str, offset: int, seen: int, total: int) -> None:
        super().__init__(f"job {job_id!r}: {text}")
        self.job_id = job_id
        self.offset = offset
        self.seen = seen
        self.total = total


class WaitError(TfRunsError):
    """A wait for the end of a run failed, or the run did.

    Attributes:
        job_id: the job.
        run: the run as it was seen last; None if it was never seen.

    Example:
        >>> try:
        ...     run = await client.wait_for_run("my-job-id", "no-such-run", timeout=60)
        ... except tfruns.WaitError as error:
        ...     print(type(error).__name__, error.run)
        RunNotFoundError None
    """

    def __init__(self, text: str, *, job_id: str, run: JobRun | None) -> None:
        super().__init__(f"job {job_id!r}: {text}")
        self.job_id = job_id
        self.run = run


class RunNotFoundError(WaitError):
    """The job has no run with that id or name."""


class RunDeletedError(WaitError):
    """The run was deleted before it was seen to have ended."""


class RunFailedError(WaitError):
    """The run has ended as FAILED or TERMINATED."""


class WaitTimeoutError(WaitError, TimeoutError):
    """The run hasn't ended in time."""
