"""Job runs as a Spark data source, with a real Spark in this machine's threads."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyspark")
from pyspark.errors import AnalysisException, PythonException
from pyspark.sql import SparkSession

from tests.support.examples import examples, run_example
from tests.support.readme import ROOMS, blocks
from tests.support.sparking import KEY, ServedSandbox, in_order, needs_java, served, spark_session
from tfruns import arrow
from tfruns.sandbox import Fault
from tfruns.spark.__main__ import main, write

pytestmark = needs_java

JOBS = ["none", "one", "few", "page", "many"]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    with spark_session("local[2]", tmp_path_factory.mktemp("home")) as session:
        yield session


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ServedSandbox]:
    with served(jobs=JOBS, runs=[0, 1, 7, 1000, 2300], forbidden=["secret-job"]) as it:
        yield it


def rows(frame: Any) -> list[dict[str, Any]]:
    return in_order(frame.toArrow().to_pylist())


def test_every_run_of_every_job_is_a_row_once_with_the_values_of_the_client(
    spark: SparkSession, sandbox: ServedSandbox
) -> None:
    assert rows(sandbox.load(spark)) == sandbox.rows()


def test_the_columns_are_those_of_the_export_and_moments_are_timestamps(
    spark: SparkSession, sandbox: ServedSandbox
) -> None:
    schema = sandbox.load(spark).schema
    assert schema.names == arrow.SCHEMA.names
    assert schema["created_at"].dataType.simpleString() == schema["end_time"].dataType.simpleString() == "timestamp"
    assert {field.name for field in schema if not field.nullable} == {
        field.name for field in arrow.SCHEMA if not field.nullable
    }


def test_filter_options_are_those_of_the_client_and_jobs_may_stand_in_a_file(
    spark: SparkSession, sandbox: ServedSandbox, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.txt"
    path.write_text("\n".join(["", *JOBS, " many "]))
    found = sandbox.load(spark, jobsPath=str(path), STATUS="FAILED, TERMINATED", version_numbers="1,2,3", page_size=100)
    expected = sandbox.rows(status=["FAILED", "TERMINATED"], version_numbers=[1, 2, 3])
    assert expected
    assert rows(found) == expected


def test_several_queries_of_one_load_are_all_right(spark: SparkSession, sandbox: ServedSandbox) -> None:
    frame = sandbox.load(spark)
    failed, finished = frame.filter("status = 'FAILED'"), frame.filter("status = 'FINISHED'")
    expected = sandbox.rows(status=["FAILED", "FINISHED"])
    assert rows(failed.union(finished)) == expected
    assert frame.count() == 3308


LOAD_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"jobs": " , "}, "jobs names no job"),
    ({"jobsPath": "/nowhere/jobs.txt"}, "jobsPath '/nowhere/jobs.txt' can't be read by the driver: No such file"),
    ({"job": "few"}, "unknown option 'job': the options are jobs, jobsPath, baseUrl,"),
    ({"apiKey": "something-secret"}, "Spark wouldn't hide one of that name in its UI and logs. Set TFY_API_KEY"),
    ({"base_url": "http://127.0.0.1:1", "baseUrl": "http://127.0.0.1:2"}, "the option baseUrl is given twice"),
    ({"numPartitions": "many"}, "numPartitions must be a whole number, 1 or more, got 'many'"),
    ({"pageSize": 1001}, "pageSize must be a whole number from 1 to 1000, got 1001"),
    ({"timeout": "-1"}, "timeout must be a number above 0, got '-1'"),
    ({"allowHttp": "yes"}, "allowHttp must be one of 'true', 'false', got 'yes'"),
    ({"splitRuns": "5"}, "unknown option 'splitruns'"),
    ({"jobsPath": "jobs.txt", "JOBS": "a"}, "must name the jobs: give one of them, not both"),
    ({"maxRate": "0.0001"}, "max_rate must be requests a second, from 0.001 to 1,000,000"),
    ({"versionNumbers": "3,x"}, "version_numbers must be finite numbers, got 'x'"),
    ({"baseUrl": "acme.truefoundry.cloud"}, "base_url must begin with https://"),
    ({"onError": "ignore"}, "onError must be one of 'raise', 'skip', got 'ignore'"),
    ({"status": "fail"}, "status must be one of 'CREATED'"),
    ({"apiToken": "two words"}, "the API key from the argument api_key holds white space (U+0020) at position 3"),
]


@pytest.mark.parametrize(("options", "says"), LOAD_ERRORS)
def test_a_wrong_option_fails_at_load_and_says_how(
    spark: SparkSession, sandbox: ServedSandbox, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(AnalysisException) as caught:
        sandbox.load(spark, **options)
    assert says in str(caught.value)
    assert "something-secret" not in str(caught.value)


PLAN_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"jobs": "few,gone,one,lost"}, "NotFoundError: job 'gone', offset 0: 404 Not Found"),
    ({"jobs": "few,gone,one,lost"}, "Other jobs failed in the same way: job 'lost', offset 0: 404"),
    ({"jobs": "few,secret-job"}, "PermissionDeniedError: job 'secret-job', offset 0: 403 Forbidden"),
    ({"jobs": "few", "apiToken": "a-wrong-key-0123456789"}, "AuthenticationError: job 'few', offset 0: 401"),
]


@pytest.mark.parametrize(("options", "says"), PLAN_ERRORS)
def test_what_the_control_plane_refuses_is_reported_on_the_driver_before_any_task(
    spark: SparkSession, sandbox: ServedSandbox, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(AnalysisException) as caught:
        sandbox.load(spark, **options).count()
    text = str(caught.value)
    assert says in text
    assert "asyncio" not in text
    assert "a-wrong-key" not in text


def test_jobs_that_are_refused_are_skipped_on_request(spark: SparkSession, sandbox: ServedSandbox) -> None:
    frame = sandbox.load(spark, jobs="gone,few,secret-job,one", onError="skip")
    assert frame.count() == 8
    assert sandbox.load(spark, jobs="gone", onError="skip").count() == 0


@pytest.mark.beyond_contract
def test_a_job_that_is_refused_in_the_middle_fails_by_name_or_keeps_what_it_brought(spark: SparkSession) -> None:
    # The fifth page of the job: the count is the first request.
    faults = [Fault(status=404, job_id="a", nth=5)]
    with served(jobs=["a", "b"], runs=[5000, 10], faults=faults) as it:
        with pytest.raises(PythonException) as caught:
            it.load(spark, maxConcurrency=1, numPartitions=1).collect()
        assert "tfruns.errors.NotFoundError: job 'a', offset" in str(caught.value)
        assert "asyncio" not in str(caught.value)
    with served(jobs=["a", "b"], runs=[5000, 10], faults=faults) as it:
        kept = it.load(spark, maxConcurrency=1, numPartitions=1, onError="skip").groupBy("job_id").count().collect()
        found = {row["job_id"]: row["count"] for row in kept}
        assert 0 < found["a"] < 5000
        assert found["b"] == 10


def test_the_key_is_in_no_plan_and_no_text(
    spark: SparkSession, sandbox: ServedSandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    spark.sparkContext.setLogLevel("INFO")
    try:
        frame = sandbox.load(spark, apiToken=KEY).filter("status = 'FAILED'")
        for mode in ("extended", "formatted", "cost"):
            frame.explain(mode)
        shown = repr(frame) + frame._jdf.queryExecution().toString()
        frame.count()
        options = f"jobs 'few', baseUrl '{sandbox.sandbox.url}', apiToken '{KEY}'"
        spark.sql(f"EXPLAIN EXTENDED CREATE TEMPORARY VIEW few USING tfruns OPTIONS ({options})").show(1, False)
        spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW few USING tfruns OPTIONS ({options})")
        assert spark.sql("SELECT * FROM few").count() == 7
        with pytest.raises(AnalysisException) as caught:
            sandbox.load(spark, apiToken=KEY, jobs="gone").count()
    finally:
        spark.sparkContext.setLogLevel("OFF")
    out, err = capfd.readouterr()
    assert "apiToken -> *********(redacted)" in out
    assert "BatchScan tfruns" in out
    for text in (shown, str(caught.value), out, err):
        assert KEY not in text


def test_the_example_job_writes_a_partitioned_table_and_can_be_run_again(spark: SparkSession, tmp_path: Path) -> None:
    table = str(tmp_path / "runs")
    with served(jobs=["a", "b"], runs=[6, 9]) as it:
        options = {"baseUrl": it.sandbox.url, "jobs": "a,b"}
        for _ in range(2):
            write(spark, options, table)
            written = spark.read.parquet(table)
            assert rows(written.drop("created_on")) == it.rows()
            days = {day.name for day in Path(table).glob("created_on=*")}
            assert days == {f"created_on={row['created_at']:%Y-%m-%d}" for row in it.rows()}
            newest = it.sandbox.runs("a")[0]
            it.do(it.sandbox.create_run("a"))
            it.do(it.sandbox.update_run("a", newest.id, name="renamed"))


def statuses(frame: Any) -> dict[tuple[str, str], str]:
    return {(row["job_id"], row["id"]): row["status"] for row in frame.toArrow().to_pylist()}


def test_the_example_job_deletes_no_run_that_it_did_not_read(spark: SparkSession, tmp_path: Path) -> None:
    """Neither those of a job that is skipped, nor those that a filter leaves out, nor those that are gone."""
    table = str(tmp_path / "runs")
    with served(jobs=["a", "b", "c"], runs=[60, 60, 60]) as it:
        url = it.sandbox.url
        write(spark, {"baseUrl": url, "jobs": "a,b,c"}, table)
        before = statuses(spark.read.parquet(table))
        assert len(before) == 180
        it.sandbox.faults.append(Fault(status=404, job_id="b"))
        write(spark, {"baseUrl": url, "jobs": "a,b", "onError": "skip"}, table)
        assert statuses(spark.read.parquet(table)) == before
        it.sandbox.faults.clear()
        gone, failing = it.sandbox.runs("a")[3], it.sandbox.runs("b")[5]
        it.do(it.sandbox.delete_run("a", gone.id))
        it.do(it.sandbox.update_run("b", failing.id, status="FAILED"))
        write(spark, {"baseUrl": url, "jobs": "a,b,c", "status": "FAILED"}, table)
        found = spark.read.parquet(table)
        assert found.schema.names == [*arrow.SCHEMA.names, "created_on"]
        assert statuses(found) == {**before, ("b", failing.id): "FAILED"}
        assert found.count() == 180


def test_the_example_job_leaves_other_days_as_they_are(spark: SparkSession, tmp_path: Path) -> None:
    """Their files aren't written again."""
    table = tmp_path / "runs"
    day = 86_400_000
    with served(jobs=["a"], runs=0) as it:
        for number in range(3):
            it.do(it.sandbox.create_run("a", status="FINISHED", created_at=1_700_000_000_000 + number * day))
        write(spark, {"baseUrl": it.sandbox.url, "jobs": "a"}, str(table))
        files = {path: path.stat().st_mtime_ns for path in table.glob("created_on=*/*.parquet")}
        (oldest,) = [run for run in it.sandbox.runs("a") if run.created_at == 1_700_000_000_000]
        it.do(it.sandbox.delete_run("a", oldest.id))
        write(spark, {"baseUrl": it.sandbox.url, "jobs": "a"}, str(table))
        again = {path: path.stat().st_mtime_ns for path in table.glob("created_on=*/*.parquet")}
    assert len(files) == len(again) == 3
    assert len(files.items() & again.items()) == 1
    assert spark.read.parquet(str(table)).count() == 3


def test_the_example_job_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--to", "somewhere", "--option", "jobs"])
    assert "must be NAME=VALUE, got 'jobs'" in capsys.readouterr().err


async def test_the_examples_of_the_docstrings_run(spark: SparkSession) -> None:
    found = [one for one in examples() if one.of.startswith("tfruns.spark")]
    with served(jobs=["job-a", "job-b"], runs=200) as sandbox:
        # Spark's own processes began before there was a host for their environment.
        read = spark.read.option("baseUrl", sandbox.sandbox.url)
        for example in found:
            names: dict[str, Any] = {"spark": types.SimpleNamespace(dataSource=spark.dataSource, read=read)}
            await run_example(example, names)
            assert names["runs"].count() > 0
    assert len(found) == 2


def test_the_snippet_of_the_readme_reads_what_it_says(
    spark: SparkSession, sandbox: ServedSandbox, tmp_path: Path
) -> None:
    [block] = [block for block in blocks("python", ROOMS / "spark" / "README.md") if "spark.read" in block.source]
    path = tmp_path / "jobs.txt"
    path.write_text("".join(f"{job_id}\n" for job_id in sandbox.sandbox.job_ids))
    # This Spark was started elsewhere and without TFY_HOST.
    given = f'.option("jobsPath", {str(path)!r}).option("baseUrl", {sandbox.sandbox.url!r})'
    names: dict[str, Any] = {"spark": spark}
    exec(block.source.replace('.option("jobsPath", "jobs.txt")', given), names)  # noqa: S102
    assert names["runs"].count() == len(sandbox.rows(status=["FAILED", "TERMINATED"])) > 0
