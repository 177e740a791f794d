"""An example job: the runs of some jobs as a Parquet table, partitioned by the day (UTC) on which they were created.

    python -m tfruns.spark --to /lake/runs --option jobsPath=jobs.txt --option maxRate=50

It can be run again: the days it finds runs of are replaced, as a whole and at the end, and others are left as they are.
So runs that the control plane has forgotten stay, but for those of the oldest day that it still has. A table is for one
list of jobs: another list would replace days of the first. Run it where you run other Spark jobs, or by `spark-submit`
with a file that calls `main`.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from pyspark.sql import SparkSession
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
    """Write the runs that these options of the data source ask for to the table at that path."""
    spark.dataSource.register(TfRunsDataSource)
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    runs = spark.read.format("tfruns").options(**options).load()
    (
        runs.withColumn("created_on", F.to_date("created_at"))
        .repartition("created_on")  # one file a day, rather than one for each day and task
        .write.partitionBy("created_on")
        .option("partitionOverwriteMode", "dynamic")
        .mode("overwrite")
        .parquet(path)
    )


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text!r}")
    return name, value


if __name__ == "__main__":
    main()
