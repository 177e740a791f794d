"""What the tests with a real Spark share: a session, and a sandbox that serves while the test waits for Spark."""

import asyncio
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

import tfruns
from tests.support.hostile import Request, page, response, serve
from tfruns.models import JobRun
from tfruns.sandbox import Sandbox
from tfruns.spark import TfRunsDataSource

KEY = "key-of-the-environment-0123"

ROOT = Path(__file__).parents[2]

needs_java = [
    pytest.mark.spark,
    pytest.mark.skipif(
        not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="Spark needs Java 17, and there is none"
    ),
    # PySpark 4.3 on pandas 3, and its gateway's sockets, which live as long as the process.
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess \\d+ is still running:ResourceWarning"),
]


@contextmanager
def spark_session(master: str, home: Path, **conf: str) -> Iterator[SparkSession]:
    """A Spark whose processes have `KEY` in their environment, and nobody's credentials file."""
    given = {
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "TFY_API_KEY": KEY,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        patch.delenv("TFY_HOST", raising=False)
        builder = SparkSession.builder.master(master).appName("tfruns")
        for name, value in {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": "2",
            # Quick to start, which is most of what such small queries take.
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.warehouse.dir": str(home / "warehouse"),
            **conf,
        }.items():
            builder = builder.config(name, value)
        spark = builder.getOrCreate()
        try:
            spark.sparkContext.setLogLevel("OFF")
            spark.dataSource.register(TfRunsDataSource)
            yield spark
        finally:
            spark.stop()


class ServedSandbox:
    """A sandbox that runs in a thread of its own."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def do(self, work: Any) -> Any:
        """What the coroutine returns."""
        return asyncio.run(work)

    def load(self, spark: SparkSession, **options: Any) -> Any:
        """A data frame of its runs: of all its jobs by default, without the column for corrupt records."""
        given = {"baseUrl": self.sandbox.url, "jobs": ",".join(self.sandbox.job_ids)}
        if "jobsPath" in options:
            del given["jobs"]
        return spark.read.format("tfruns").options(**{**given, **options}).load().drop("_corrupt_record")

    async def runs(self, **filters: Any) -> AsyncIterator[tuple[str, JobRun]]:
        """The same by the plain client."""
        async with tfruns.Client(self.sandbox.url, KEY) as client:
            async for found in client.iter_runs_for(self.sandbox.job_ids, **filters):
                yield found

    def rows(self, **filters: Any) -> list[dict[str, Any]]:
        """The same as rows, as they should be."""

        async def rows() -> list[dict[str, Any]]:
            return [row(job_id, run) async for job_id, run in self.runs(**filters)]

        return in_order(asyncio.run(rows()))


def row(job_id: str, run: JobRun) -> dict[str, Any]:
    """A run as the row it should make."""
    made: dict[str, Any] = {"job_id": job_id}
    subject_fields = [name for name in tfruns.Subject.__annotations__ if not name.startswith("_")]
    for name in tfruns.JobRun.__annotations__:
        if name == "triggered_by_subject":
            made |= {part: getattr(run.triggered_by_subject, part, None) for part in subject_fields}
        else:
            made[name] = getattr(run, name)
    return {**made, "created_at": run.created, "end_time": run.ended}


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in an order of our own: Spark has none."""
    return sorted(rows, key=lambda row: (row["job_id"], row["id"] or ""))


@contextmanager
def served(**arguments: Any) -> Iterator[ServedSandbox]:
    """A sandbox with those arguments that takes `KEY`, in a thread of its own."""
    with Sandbox(**{"api_key": KEY, **arguments}) as sandbox:
        yield ServedSandbox(sandbox)


@contextmanager
def serving(jobs: dict[str, list[Any]]) -> Iterator[str]:
    """A control plane that sends these runs as they are, in a thread of its own: its URL."""

    def reply(request: Request) -> bytes:
        runs = jobs[request.target.split("/")[5]]
        return response(200, page(runs[request.offset : request.offset + request.limit], len(runs)))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()
    try:
        url, _ = asyncio.run_coroutine_threadsafe(stack.enter_async_context(serve(reply)), loop).result()
        yield url
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
