"""An example job: the runs of some jobs as a Parquet table, partitioned by the day (UTC) on which they were created.

    python -m tfruns.spark --to /lake/runs --option jobsPath=jobs.txt --option maxRate=50

It can be run again, with any jobs and filters: a run that it reads replaces the table's row of that run, and nothing
else is removed. So runs that the control plane has deleted, and those of jobs that were skipped, stay. Only the days of
the runs that it reads are written again, each as a whole and at the end. Run it where you run other Spark jobs, or by
`spark-submit` with a file that calls `main`.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812  # as everyone has it

from tfruns.spark import TfRunsDataSource


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the job with these arguments, or with those of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tfruns.spark", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--to", required=True, metavar="PATH", help="where the table is, or will be")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", type=_option, dest="options")
    parser.add_argument("--master", help="which Spark, such as local[4]; else as Spark is configured")
    given = parser.parse_args(arguments)
    builder = SparkSession.builder.appName("tfruns")
    if given.master:
        builder = builder.master(given.master)
        if given.master.startswith("local"):
            # Spark would start the first python3 in the path, which may not be the one that has tfruns.
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    write(builder.getOrCreate(), dict(given.options), given.to)


def write(spark: SparkSession, options: dict[str, str], path: str) -> None:
    """Write the runs that these options of the data source select to the table at that path."""
    spark.dataSource.register(TfRunsDataSource)
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    runs = spark.read.format("tfruns").options(**options).load().withColumn("created_on", F.to_date("created_at"))
    (
        _with_old(spark, runs, path)
        .repartition("created_on")  # one file a day, rather than one for each day and task
        .write.partitionBy("created_on")
        .option("partitionOverwriteMode", "dynamic")
        .mode("overwrite")
        .parquet(path)
    )


def _with_old(spark: SparkSession, runs: DataFrame, path: str) -> DataFrame:
    """These runs, and the other rows that the table has for their days.

    The query uses the runs only once: each use would read them again, and might find other runs.
    """
    try:
        old = spark.read.parquet(path)
    except AnalysisException as error:
        if error.getCondition() not in ("PATH_NOT_FOUND", "UNABLE_TO_INFER_SCHEMA"):  # the latter if it is empty
            raise
        return runs
    old = old.withColumn("created_on", F.col("created_on").cast("date")).withColumn("_is_read", F.lit(0))
    same_run, same_day = Window.partitionBy("job_id", "id"), Window.partitionBy("created_on")
    return (
        runs.withColumn("_is_read", F.lit(1))
        .unionByName(old, allowMissingColumns=True)
        .withColumn("_was_read", F.max("_is_read").over(same_run))
        .filter("_is_read = _was_read")
        .withColumn("_of_day", F.max("_is_read").over(same_day))
        .filter("_of_day = 1")
        .select(runs.columns)
    )


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text!r}")
    return name, value


if __name__ == "__main__":
    main()
