"""The run history of TrueFoundry jobs, async, typed, and exact while the list changes.

Example:
    >>> import tfruns
    >>> async with tfruns.Client() as client:  # TFY_HOST and TFY_API_KEY, or the CLI's credentials file
    ...     async for run in client.iter_runs("my-job-id", status=["FAILED"]):
    ...         print(run.name, run.status, run.created)

The examples here run unchanged in the asyncio REPL (`python -m asyncio`), with `client = tfruns.Client()`.

What to look up, with `help(tfruns.Client)` and so on:

- listing: `Client`, whose methods are `iter_runs`, `list_runs`, `count_runs`, and `iter_runs_for` for many jobs
- following: `Client.watch_runs` (`RunWatch`, `RunChange`, `ChangeKind`), `Client.wait_for_run`
- results: `JobRun`, `Subject`, `RunPage`, `Pagination`, `RawPage`, `BadRun`, `RunList`, `JobsRunList`, `RunPaginator`,
  `JobsPaginator`, `JobsProgress`, `RunsProgress`
- values of filters and fields: `JobRunStatus`, `JobRunsSortBy`, `SortDirection`, `SubjectType`
- errors: `TfRunsError` is the root; `help("tfruns.errors")` draws the tree
- retries, and what a client does: `RetryPolicy`, `RequestEvent`, `ResponseEvent`, `RetryEvent`, `FailureEvent`,
  `ClientStats`
- beside it: `tfruns.export`, `tfruns.arrow`, `tfruns.spark`, `tfruns.otel`; for tests
  `tfruns.sandbox` and `tfruns.pytest_plugin`
"""

from typing import TYPE_CHECKING, Any

from tfruns.version import __version__ as __version__

if TYPE_CHECKING:
    from tfruns._names import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        # `import tfruns`, and so `tfruns --help`, doesn't wait for aiohttp. (Every public name is that of a class.)
        if name == "__all__" or name[:1].isupper():
            from tfruns._names import PUBLIC

            globals().update(PUBLIC, __all__=["__version__", *PUBLIC])
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module 'tfruns' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
