"""Job runs as a Spark data source on a cluster of two executors, each a process of its own, one of which dies."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("pyspark")
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812

from tests.support.sparking import ServedSandbox, needs_java, served, spark_session
from tfruns._table.arrow import PLAIN_SCHEMA, plain_batch
from tfruns.sandbox import Fault

pytestmark = [*needs_java, pytest.mark.beyond_contract]  # checking 200,000 runs takes long

JOBS = 50
RUNS = [500 + 7000 * (number % 2) for number in range(JOBS)]  # uneven, 200,000 in all


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ServedSandbox]:
    with served(jobs=JOBS, runs=RUNS, seed=3) as it:
        yield it


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    conf = {"spark.executor.memory": "1g", "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1"}
    with spark_session("local-cluster[2,1,1024]", tmp_path_factory.mktemp("home"), **conf) as session:
        yield session


@pytest.fixture(scope="module")
def expected(sandbox: ServedSandbox) -> pa.Table:
    """What `iter_runs` brings."""

    async def read() -> pa.RecordBatch:
        found = [pair async for pair in sandbox.runs()]
        return plain_batch([job_id for job_id, _ in found], [run for _, run in found])

    table = in_order(pa.Table.from_batches([asyncio.run(read())]))
    assert table.num_rows == sum(RUNS) == 200_000
    return table


def in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([("job_id", "ascending"), ("id", "ascending")]).combine_chunks()


def test_two_executors_read_the_rows_that_iter_runs_brings(
    spark: SparkSession, sandbox: ServedSandbox, expected: pa.Table
) -> None:
    found = sandbox.load(spark, numPartitions=2).withColumn("task", F.spark_partition_id()).toArrow()
    assert in_order(found.drop_columns("task").cast(PLAIN_SCHEMA)).equals(expected)
    sizes = [task["counts"] for task in found["task"].value_counts().to_pylist()]
    assert len(sizes) == 2
    assert max(sizes) - min(sizes) <= max(RUNS)


def processes() -> dict[int, tuple[int, str]]:
    """Each process with its parent and its command line."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat, command = (folder / "stat").read_text(), (folder / "cmdline").read_text()
            except OSError:
                continue  # it has ended meanwhile
            found[int(folder.name)] = int(stat.rpartition(")")[2].split()[1]), command.replace("\0", " ")
    return found


def executor() -> list[int]:
    """One of the executors that this process has started, by way of others."""
    known = processes()

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in known and is_ours(known[pid][0]))

    found = [pid for pid, (_, command) in known.items() if "CoarseGrainedExecutorBackend" in command and is_ours(pid)]
    return found[:1]


def python_workers() -> list[int]:
    """The Python processes of one executor, but for the one that starts them."""
    known = processes()
    (theirs,) = executor()
    daemons = [pid for pid, (parent, _) in known.items() if parent == theirs]
    return [pid for pid, (parent, _) in known.items() if parent in daemons]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_the_rows_are_the_same_after_python_workers_and_an_executor_were_killed_in_the_midst(
    spark: SparkSession, sandbox: ServedSandbox, expected: pa.Table
) -> None:
    requests = sandbox.sandbox.requests
    requests.clear()
    sandbox.sandbox.faults[:] = [Fault(latency=0.03)]  # so that there is a midst
    try:
        with ThreadPoolExecutor(1) as other:
            reading = other.submit(sandbox.load(spark, numPartitions=4, pageSize=500, maxConcurrency=2).toArrow)
            for pages, victims in ((60, python_workers), (120, executor)):
                while len(requests) < JOBS + pages:
                    assert not reading.done()
                    time.sleep(0.01)
                killed = victims()
                assert killed
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            found = reading.result()
    finally:
        sandbox.sandbox.faults.clear()
    assert in_order(found.cast(PLAIN_SCHEMA)).equals(expected)
    times = Counter((request.path, request.query) for request in requests)
    assert max(times.values()) > 1  # what was lost was read again
