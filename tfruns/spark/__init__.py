"""Job runs as a Spark data source (extra `spark`): for loads that one machine is too small for.

Example:
    >>> from tfruns.spark import TfRunsDataSource
    >>> spark.dataSource.register(TfRunsDataSource)
    >>> runs = spark.read.format("tfruns").option("jobs", "job-a,job-b").load()
"""

from tfruns._extras import install

try:
    import pyarrow  # noqa: F401
    import pyspark  # noqa: F401
except ImportError as error:
    raise ImportError(f"the Spark data source needs PySpark 4: {install('spark')}") from error

from tfruns.spark.source import TfRunsDataSource

__all__ = ["TfRunsDataSource"]

TfRunsDataSource.__module__ = __name__
