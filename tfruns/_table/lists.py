"""Runs as tables for notebooks and other libraries: those of a walk that was read, and those of lists."""

import operator
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from tfruns import _interchange
from tfruns._extras import require
from tfruns._text import counted
from tfruns.models import JobRun

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_T = TypeVar("_T")


class Tables:
    """What a walk that yields record batches can do."""

    __slots__ = ()

    def arrow_batches(self) -> "AsyncGenerator[pyarrow.RecordBatch]":
        raise NotImplementedError

    async def to_arrow(self) -> "pyarrow.Table":
        """Every run, as one Arrow table with `tfruns.arrow.SCHEMA` (extra `arrow`). Takes memory for all of them.

        DuckDB can query the table by the name of its variable; for pandas and Polars there are `to_pandas` and
        `to_polars`.

        Returns:
            The table: the runs of one job in the server's order, those of several as their pages arrived.

        Raises:
            ImportError: pyarrow isn't installed.
            ValueError: a number is beyond what 64 bits hold.
            TfRunsError: see `Client.iter_runs` and `Client.iter_runs_for`.

        Example:
            >>> table = await client.iter_runs_for(["job-a", "job-b"]).to_arrow()
            >>> print(table.num_rows, "runs of", len(table["job_id"].unique()), "jobs")
            500 runs of 2 jobs
        """
        from tfruns._table.arrow import table

        async with aclosing(self.arrow_batches()) as batches:
            return table([batch async for batch in batches])

    async def to_pandas(self) -> "pandas.DataFrame":
        """Every run, as a pandas data frame: `to_arrow`, converted.

        Returns:
            The data frame, its rows as in `to_arrow`.

        Raises:
            ImportError: pyarrow or pandas isn't installed.
            ValueError, TfRunsError: as `to_arrow`.

        Example:
            >>> frame = await client.iter_runs("my-job-id").to_pandas()
            >>> print(len(frame))
            250

        .. versionadded:: 0.2.0
        """
        require("pandas", "to_pandas()")  # before the runs are fetched
        return (await self.to_arrow()).to_pandas()

    async def to_polars(self) -> "polars.DataFrame":
        """Every run, as a Polars data frame: `to_arrow`, converted.

        Returns:
            The data frame, its rows as in `to_arrow`.

        Raises:
            ImportError: pyarrow or Polars isn't installed.
            ValueError, TfRunsError: as `to_arrow`.

        Example:
            >>> frame = await client.iter_runs("my-job-id").to_polars()
            >>> print(frame.height)
            250

        .. versionadded:: 0.2.0
        """
        package = require("polars", "to_polars()")  # before the runs are fetched
        frame: polars.DataFrame = package.DataFrame(await self.to_arrow())
        return frame


def _arrow_stream(runs: Sequence[JobRun], requested_schema: object) -> object:
    from tfruns._table.arrow import runs_alone

    batch: Any = runs_alone(runs)
    return batch.__arrow_c_stream__(requested_schema)


_interchange.arrow_stream = _arrow_stream


class _Collected(list[_T]):
    def _pairs(self) -> Sequence[tuple[str, JobRun]]:
        raise NotImplementedError

    def to_arrow(self) -> "pyarrow.Table":
        """These runs, as one Arrow table with `tfruns.arrow.SCHEMA` (extra `arrow`).

        Returns:
            The table, its rows in the order of this list.

        Raises:
            ImportError: pyarrow isn't installed.
            ValueError: a number is beyond what 64 bits hold.

        Example:
            >>> runs = await client.iter_runs("my-job-id", status="FAILED").collect()
            >>> table = runs.to_arrow()
            >>> table.num_rows == len(runs)
            True

        .. versionadded:: 0.3.0
        """
        from tfruns._table.arrow import record_batch, table

        by_job = groupby(self._pairs(), operator.itemgetter(0))
        return table([record_batch(job_id, [run for _, run in pairs]) for job_id, pairs in by_job])

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        table: Any = self.to_arrow()
        return table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        most = _interchange.MOST_SHOWN
        shown = repr(self[:most])
        return shown if len(self) <= most else f"{shown[:-1]}, … and {len(self) - most:,} more]"


class RunList(_Collected[JobRun]):
    """The runs of a job, as `RunPaginator.collect` returns them: a list that is a table, too.

    A notebook shows it as one, and `to_arrow` makes one. Whatever reads Arrow's streams can read it:
    `pyarrow.RecordBatchReader.from_stream(runs)`. (Polars, pandas and DuckDB would take it for a list of objects: give
    them `runs.to_arrow()`.)

    Attributes:
        job_id: the job.

    Example:
        >>> runs = await client.iter_runs("my-job-id", status="FAILED").collect()
        >>> print(len(runs) == runs.to_arrow().num_rows, runs.job_id)
        True my-job-id

    .. versionadded:: 0.3.0
    """

    def __init__(self, runs: Iterable[JobRun] = (), *, job_id: str = "") -> None:
        super().__init__(runs)
        self.job_id = job_id

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Any) -> Any:
        return handler.generate_schema(list[JobRun])

    def _pairs(self) -> Sequence[tuple[str, JobRun]]:
        return [(self.job_id, run) for run in self]

    def _repr_html_(self) -> str:
        return _interchange.html_table(self, counted(len(self), "run"))


class JobsRunList(_Collected[tuple[str, JobRun]]):
    """The runs of many jobs, as `JobsPaginator.collect` returns them: `(job_id, run)` for each. See `RunList`.

    Example:
        >>> runs = await client.iter_runs_for(["job-a", "job-b"], status="FAILED").collect()
        >>> for job_id, run in runs:
        ...     print(job_id, run.name, run.error)

    .. versionadded:: 0.3.0
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Any) -> Any:
        return handler.generate_schema(list[tuple[str, JobRun]])

    def _pairs(self) -> Sequence[tuple[str, JobRun]]:
        return self

    def _repr_html_(self) -> str:
        job_ids, runs = [job_id for job_id, _ in self], [run for _, run in self]
        return _interchange.html_table(runs, counted(len(self), "run"), job_ids)
