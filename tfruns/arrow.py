"""Runs as Arrow tables (extra `arrow`): for pandas, Polars, DuckDB and Parquet."""

from tfruns._table.arrow import SCHEMA, record_batch, table

__all__ = ["SCHEMA", "record_batch", "table"]
