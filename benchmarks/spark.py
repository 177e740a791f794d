"""Rows a second through the Spark data source: `python -m benchmarks.spark`; it needs the extra `spark` and Java 17.

The same runs are read by the plain client, with each step that the data source adds, and then by Spark on clusters of
one and of two executors of one core each. All of it, with the server and Spark's driver, is on this machine: where it
has two cores, two executors have no core each to themselves.

On paper: 100 executors of 4 cores are 400 tasks, each with up to 16 requests in flight: 6,400 at once. A core takes
some 80 pages of 1,000 runs a second, so they would request 32,000 pages a second, 18 GB of JSON: no control plane has
that to give. What it gives is set by `maxRate`. 50,000 jobs of 1,000 runs are 50,000 count requests by the driver and
50,000 pages by the tasks; at `maxRate` 50 they take 33 minutes, with one executor as with 100, for one core reads 50
pages a second with ease. Each partition has a share of the rate, and the shares make up the whole: with 400 partitions
of 125 jobs a share is a request every 8 seconds. The driver has done counting, by the same rate, before they begin. So
the ceiling holds however many tasks run, without a word between them; what it can't see is a copy of a task that
speculation starts, or an executor that is cut off and goes on reading while its task is tried elsewhere. A 429 slows
down the task that gets it. What executors are good for is what Spark does with the rows.
"""

import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import SparkSession

import tfruns
from benchmarks.server import serving
from tfruns.spark import TfRunsDataSource

JOBS = [f"job-{size}" for size in range(7_989, 8_013)]  # few enough pages for the server to keep them all
RUNS = sum(int(job_id.removeprefix("job-")) for job_id in JOBS)
REPEATS = 5


def measured(**works: Callable[[], object]) -> dict[str, float]:
    """The medians of seconds, by name. Rounds are interleaved, for the machine isn't always as quick; the first is not
    counted."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def show(what: str, seconds: float) -> None:
    """One line of the table."""
    print(f"{what:58} {seconds:6.2f} s {RUNS / seconds:10,.0f} rows/s {seconds / RUNS * 1e6:6.2f} us a row", flush=True)


async def pages(url: str) -> None:
    """Read every page and look at no run."""
    async with tfruns.Client(url, "key") as client:

        async def walk(job_id: str) -> None:
            async with contextlib.aclosing(client.iter_runs(job_id).pages()) as walked:
                async for _ in walked:
                    pass

        await asyncio.gather(*map(walk, JOBS))


async def rows(url: str) -> None:
    """Read every run, as `iter_runs_for` yields it."""
    async with tfruns.Client(url, "key") as client:
        async for _ in client.iter_runs_for(JOBS):
            pass


def without_spark(url: str) -> None:
    """The client, and what the data source does with its runs, in this process."""
    source = TfRunsDataSource({"baseUrl": url, "jobs": ",".join(JOBS), "numPartitions": "1"})
    reader = source.reader(source.schema())
    (partition,) = reader.partitions()

    async def batches() -> None:
        async for _ in reader._batches(partition):  # type: ignore[attr-defined]
            pass

    seconds = measured(
        pages=lambda: asyncio.run(pages(url)),
        rows=lambda: asyncio.run(rows(url)),
        batches=lambda: asyncio.run(batches()),
        handed=lambda: sum(1 for _ in reader.read(partition)),
        planning=reader.partitions,
    )
    show("the client's pages", seconds["pages"])
    show("run by run, with the job's id", seconds["rows"])
    show("... made into Arrow batches", seconds["batches"])
    show("... handed to another thread", seconds["handed"])
    print(f"{'planning: a count request for each of the jobs':58} {seconds['planning']:6.2f} s", flush=True)


def with_spark(url: str, executors: int) -> None:
    """A cluster of so many executors, with and without rows to read."""
    spark = (
        SparkSession.builder.master(f"local-cluster[{executors},1,1024]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    spark.dataSource.register(TfRunsDataSource)

    def read(jobs: list[str]) -> None:
        options = {"baseUrl": url, "jobs": ",".join(jobs), "numPartitions": str(executors)}
        frame = spark.read.format("tfruns").options(**options).load()
        frame.write.format("noop").mode("overwrite").save()

    seconds = measured(all=lambda: read(JOBS), none=lambda: read(["job-0", "job-1"]))
    show(f"Spark, {executors} executor{'s' * (executors > 1)}", seconds["all"])
    print(f"{'... of which for a query with next to no rows':58} {seconds['none']:6.2f} s", flush=True)
    spark.stop()


def main() -> None:
    """Print the table."""
    os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(Path.cwd()), "SPARK_LOCAL_IP": "127.0.0.1"}
    os.environ["TFY_API_KEY"] = "key"
    print(f"{RUNS:,} runs of {len(JOBS)} jobs, {os.cpu_count()} cores, medians of {REPEATS}")
    with serving(10_000) as url:
        without_spark(url)
        for executors in (1, 2):
            with_spark(url, executors)


if __name__ == "__main__":
    main()
