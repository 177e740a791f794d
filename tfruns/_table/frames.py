"""From the record batches of a walk to one table, in the form that a library of data frames has."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from tfruns._extras import require

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


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
            ValueError: a number is beyond what 64 bits hold.
            TfRunsError: see `Client.iter_runs` and `Client.iter_runs_for`.

        Example:
            >>> frame = await client.iter_runs("my-job-id").to_pandas()
            >>> print(len(frame))
            250

        .. versionadded:: 0.2.0
        """
        require("pandas", "to_pandas()")  # before the runs are fetched
        frame: pandas.DataFrame = (await self.to_arrow()).to_pandas()
        return frame

    async def to_polars(self) -> "polars.DataFrame":
        """Every run, as a Polars data frame: `to_arrow`, converted.

        Returns:
            The data frame, its rows as in `to_arrow`.

        Raises:
            ImportError: pyarrow or Polars isn't installed.
            ValueError: a number is beyond what 64 bits hold.
            TfRunsError: see `Client.iter_runs` and `Client.iter_runs_for`.

        Example:
            >>> frame = await client.iter_runs("my-job-id").to_polars()
            >>> print(frame.height)
            250

        .. versionadded:: 0.2.0
        """
        package = require("polars", "to_polars()")  # before the runs are fetched
        frame: polars.DataFrame = package.DataFrame(await self.to_arrow())
        return frame
