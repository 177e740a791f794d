"""The types in the signatures of tfruns, for your own annotations.

Example:
    >>> from tfruns.types import OnError
    >>> async def count_all(job_ids: list[str], on_error: OnError = "raise") -> int:
    ...     return len([run async for job_id, run in client.iter_runs_for(job_ids, on_error=on_error)])
    >>> print(await count_all(["job-a", "job-b"]))
    500
"""

from collections.abc import Awaitable, Callable
from typing import Literal

from tfruns.errors import TfRunsError
from tfruns.query import Filters, Moment, Order, RunFilter, SortBy, Status

__all__ = ["ApiKey", "Filters", "Interval", "Moment", "OnError", "Order", "RunFilter", "SortBy", "Start", "Status"]

ApiKey = str | Callable[[], str | Awaitable[str]]
"""A key, or a function, sync or async, that returns one: see `tfruns.Client`."""

Interval = float | tuple[float, float]
"""Seconds between two polls of a job, always the same; or the least and the most: see `tfruns.Client.watch_runs`."""

OnError = Literal["raise", "skip"] | Callable[[str, TfRunsError], Awaitable[object] | object]
"""What to do if a job fails: see `tfruns.Client.iter_runs_for`."""

Start = Literal["now", "open", "existing"]
"""What a watch reports first: see `tfruns.Client.watch_runs`."""

for _public in (Filters, RunFilter):  # in `help()`, tracebacks and pickles
    _public.__module__ = __name__
