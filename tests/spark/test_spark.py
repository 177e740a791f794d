"""Job runs as a Spark data source, with a real Spark in this machine's threads."""

import json
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyspark")
from pyspark.errors import AnalysisException, PythonException
from pyspark.sql import SparkSession

from tests.support.examples import examples, run_example
from tests.support.hostile import run
from tests.support.readme import ROOMS, blocks
from tests.support.sparking import KEY, ServedSandbox, in_order, needs_java, served, serving, spark_session
from tfruns import arrow
from tfruns.sandbox import Fault

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


def test_the_columns_are_those_of_the_export(spark: SparkSession, sandbox: ServedSandbox) -> None:
    """And one for corrupt records, which may lack every other but the job; in modes without such rows, without it."""
    schema = sandbox.load(spark, mode="FAILFAST").schema
    assert schema.names == arrow.SCHEMA.names
    assert schema["created_at"].dataType.simpleString() == schema["end_time"].dataType.simpleString() == "timestamp"
    assert {field.name for field in schema if not field.nullable} == {
        field.name for field in arrow.SCHEMA if not field.nullable
    }
    given = {"baseUrl": sandbox.sandbox.url, "jobs": "few"}
    schema = spark.read.format("tfruns").options(**given).load().schema
    assert schema.names == [*arrow.SCHEMA.names, "_corrupt_record"]
    assert [field.name for field in schema if not field.nullable] == ["job_id"]


def test_filter_options_are_those_of_the_client_and_jobs_may_stand_in_a_file(
    spark: SparkSession, sandbox: ServedSandbox, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.txt"
    path.write_text("\n".join(["# as of --jobs-from", "", *JOBS, " many "]))
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
    ({"timeout": "-1"}, "timeout must be a number of seconds above 0, got -1"),
    ({"allowHttp": "yes"}, "allowHttp must be one of 'true', 'false', got 'yes'"),
    ({"splitRuns": "5"}, "unknown option 'splitruns'"),
    ({"jobsPath": "jobs.txt", "JOBS": "a"}, "must name the jobs: give one of them, not both"),
    ({"maxRate": "0.0001"}, "maxRate must be requests a second, from 0.001 to 1,000,000"),
    ({"versionNumbers": "3,x"}, "versionNumbers must be finite numbers, got 'x'"),
    ({"baseUrl": "acme.truefoundry.cloud"}, "baseUrl must begin with https://"),
    ({"onError": "ignore"}, "onError must be one of 'raise', 'skip', got 'ignore'"),
    ({"status": "fail"}, "status must be one of 'CREATED'"),
    ({"apiToken": "two words"}, "the API key from the option apiToken holds white space (U+0020) at position 3"),
    ({"mode": "lenient"}, "mode must be one of 'permissive', 'dropmalformed', 'failfast', got 'lenient'"),
    ({"columnNameOfCorruptRecord": "Status"}, "must be the name of a column that isn't one of a run, got 'Status'"),
    (
        {"createdAfter": "2026-11-23"},
        "createdAfter must be a time with its zone (2026-11-23T08:30Z), a time ago (7 days)",
    ),
    ({"createdBefore": "soon"}, "createdBefore must be a time with its zone (2026-11-23T08:30Z), a time ago (7 days)"),
    ({"createdAfter": 1_700_000_000}, "are these seconds?"),
    ({"createdAfter": "99999999999999 days"}, "createdAfter must be a time with its zone"),
    ({"createdAfter": "1M"}, "createdAfter must be a time with its zone"),
    ({"createdAfter": "1:00:1.2.3"}, "createdAfter must be a time with its zone"),
    ({"jobs": "['few' 'one']"}, "jobs must be a text with commas between, or a list of texts, got \"['few' 'one']\""),
    ({"status": "[FAILED]"}, "status must be a text with commas between, or a list of texts, got '[FAILED]'"),
    ({"pageSize": "nan"}, "pageSize must be a whole number from 1 to 1000"),
    ({"maxConcurrency": "1.5"}, "maxConcurrency must be a whole number, 1 or more, got 1.5"),
    ({"sortBy": "duration"}, "unknown option 'sortby'"),
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
    ({"jobs": "few", "apiToken": "a-wrong-key-0123456789"}, "the key from the option apiToken was refused"),
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


# --- runs that can't be understood ---

BAD: list[tuple[Any, dict[str, Any], set[str]]] = [
    ({"status": None}, {}, {"status"}),
    ({"id": 5}, {}, {"id"}),
    ({"createdAt": "now", "duration": [1]}, {}, {"created_at", "duration"}),
    ({"totalRetries": None, "exitCode": 3}, {"exit_code": 3}, {"total_retries"}),
    (
        {"triggeredBySubject": {"subjectId": 5, "subjectType": "user"}, "triggeredBy": "me"},
        {"triggered_by": "me"},
        set(),
    ),
    ({"duration": 2**63}, {}, {"duration"}),
    ({"createdAt": 253_402_300_800_000}, {}, {"created_at"}),
    ({"endTime": 1e300, "totalRetries": 2**70}, {}, {"end_time", "total_retries"}),
    ("no run at all", {}, set(arrow.SCHEMA.names) - {"job_id"}),
]


@pytest.fixture(scope="module")
def bad_url() -> Iterator[str]:
    bad = [{**run(number), **fields} if isinstance(fields, dict) else fields for number, (fields, *_) in enumerate(BAD)]
    runs = [run(number) for number in range(1000, 1100)]
    with serving({"bad": [*runs[:50], *bad, *runs[50:]], "good": [run(1), run(2)]}) as url:
        yield url


def of(spark: SparkSession, url: str, **options: Any) -> Any:
    return spark.read.format("tfruns").options(**{"baseUrl": url, "jobs": "bad,good", **options}).load()


@pytest.mark.parametrize("options", [{}, {"mode": "permissive", "columnNameOfCorruptRecord": "broken"}])
def test_a_run_that_cannot_be_understood_is_a_row_with_its_text(
    spark: SparkSession, bad_url: str, options: dict[str, str]
) -> None:
    """As in Spark's own sources: in PERMISSIVE, the default, what can be understood of it has its columns, and the rest
    is null. The other runs of the load are there."""
    column = options.get("columnNameOfCorruptRecord", "_corrupt_record")
    frame = of(spark, bad_url, **options)
    assert frame.filter(f"{column} IS NULL").count() == 102
    found = frame.filter(f"{column} IS NOT NULL").toArrow().to_pylist()
    assert len(found) == len(BAD)
    by_text = {row[column]: row for row in found}
    for number, (fields, others, null) in enumerate(BAD):
        sent = {**run(number), **fields} if isinstance(fields, dict) else fields
        [row] = [row for text, row in by_text.items() if json.loads(text) == sent]
        assert row["job_id"] == "bad"
        for name in ("id", "name", "created_at", "total_retries", "status", "duration", "end_time"):
            assert (row[name] is None) == (name in {"duration", "end_time"} | null), (fields, name)
        assert others.items() <= row.items()
    assert len(frame.collect()) == 102 + len(BAD)


def test_malformed_runs_can_be_dropped_or_fail_the_load(spark: SparkSession, bad_url: str) -> None:
    """DROPMALFORMED and FAILFAST, as in Spark's own sources. A failure names the job and the run."""
    assert of(spark, bad_url, mode="DROPMALFORMED").count() == 102
    with pytest.raises(PythonException, match="job 'bad', offset 0: the response can't be understood"):
        of(spark, bad_url, mode="FAILFAST").count()
    with serving({"bad": [run(1), run(2, duration=2**63)], "good": []}) as url:
        with pytest.raises(PythonException, match="job 'bad', run 'run-2': Spark can't hold its duration; mode=PERM"):
            of(spark, url, mode="failFast").count()
        assert of(spark, url, mode="dropMalformed").count() == 1


# --- other ways to give options ---


def test_a_window_of_creation_is_that_of_the_client(spark: SparkSession, sandbox: ServedSandbox) -> None:
    """`createdAfter` and `createdBefore`, in every form in which Spark hands them over; a walk ends at the first older
    run."""
    times = sorted(row["created_at"] for row in sandbox.rows())
    after, before = times[2000], times[3000]
    expected = sandbox.rows(created_after=after, created_before=before)
    assert len(expected) == 1000
    milliseconds = [round(when.timestamp() * 1000) for when in (after, before)]
    for pair in ((after, before), (after.isoformat(), before.isoformat()), milliseconds):
        assert rows(sandbox.load(spark, createdAfter=pair[0], created_before=pair[1])) == expected
    sent = len(sandbox.sandbox.requests)
    assert sandbox.load(spark, jobs="many", createdAfter=times[-1], pageSize=50).count() <= 50
    assert len(sandbox.sandbox.requests) - sent <= 1 + 17  # the count, and what is fetched ahead
    for ago in (timedelta(weeks=99_999 // 7), "99999 days", "14285 weeks"):
        assert sandbox.load(spark, jobs="few", createdAfter=ago).count() == 7
    assert sandbox.load(spark, jobs="few", createdBefore=timedelta(days=99_999)).count() == 0


def test_options_may_be_lists_and_numbers_of_python(
    spark: SparkSession, sandbox: ServedSandbox, tmp_path: Path
) -> None:
    """Spark makes texts of them. A file of jobs may begin with a byte-order mark, as Windows writes it."""
    found = sandbox.load(
        spark, jobs=["few", "many"], versionNumbers=3.0, pageSize=1000.0, status=("FINISHED", "FAILED")
    )
    runs = sandbox.rows(version_numbers=3, status=["FINISHED", "FAILED"])
    expected = [row for row in runs if row["job_id"] in ("few", "many")]
    assert expected
    assert rows(found) == expected
    assert sandbox.load(spark, jobs='["few", "one"]', status=None).count() == 8
    path = tmp_path / "jobs.txt"
    path.write_text("few\r\none\r\n", encoding="utf-8-sig")
    assert sandbox.load(spark, jobsPath=str(path)).count() == 8


def test_a_table_keeps_its_options(spark: SparkSession, sandbox: ServedSandbox) -> None:
    """`CREATE TABLE … USING tfruns` makes a table that each query reads from the control plane, by its options and
    those of the query."""
    options = f"jobs 'few,one', baseUrl '{sandbox.sandbox.url}', numPartitions 3"
    spark.sql(f"CREATE TABLE some_runs USING tfruns OPTIONS ({options}) COMMENT 'ours' TBLPROPERTIES ('team' = 'ml')")
    try:
        assert spark.sql("SELECT * FROM some_runs").count() == 8
        assert spark.read.option("jobs", "one").table("some_runs").count() == 1
        expected = [row for row in sandbox.rows() if row["job_id"] in ("few", "one")]
        assert rows(spark.table("some_runs").drop("_corrupt_record")) == expected
        spark.sql(f"CREATE TABLE columns_given (id STRING) USING tfruns OPTIONS ({options})")
        with pytest.raises(AnalysisException, match="no options if its columns were given: leave them out"):
            spark.table("columns_given").count()
        with pytest.raises(AnalysisException, match="unknown option 'job'"):
            spark.sql("CREATE TABLE others USING tfruns OPTIONS (job 'few')")
        with pytest.raises(AnalysisException, match="apiToken would be stored with the table") as caught:
            spark.sql(f"CREATE TABLE others USING tfruns OPTIONS ({options}, apiToken 'something-secret')")
        assert "something-secret" not in str(caught.value)
    finally:
        spark.sql("DROP TABLE some_runs")
        spark.sql("DROP TABLE IF EXISTS columns_given")


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


ROOM = ROOMS / "spark" / "README.md"


@pytest.fixture
def recipe(spark: SparkSession) -> Any:
    """`load` and `newest` of the page."""
    [block] = [block for block in blocks("python", ROOM) if "def newest" in block.source]
    names: dict[str, Any] = {}
    exec(block.source, names)  # noqa: S102
    return types.SimpleNamespace(load=names["load"], newest=lambda lake: rows(names["newest"](spark, lake)))


def test_loads_to_folders_of_their_own_lose_nothing(spark: SparkSession, recipe: Any, tmp_path: Path) -> None:
    """With a job that is added, a run that is created and one that ends in between, loads side by side, and one that
    was killed in its commit: the newest rows are the list."""
    lake = str(tmp_path / "lake")
    with served(jobs=["a", "b", "c"], runs=[60, 40, 50]) as it:
        url = it.sandbox.url
        recipe.load(spark, lake, baseUrl=url, jobs="a,b")
        found = recipe.newest(lake)
        assert len(found) == 100
        [open_run] = [run for run in it.sandbox.runs("a") if run.name == "train-7f3a"]
        it.do(it.sandbox.finish_run("a", open_run.id, "FAILED"))
        it.do(it.sandbox.create_run("b"))
        with ThreadPoolExecutor(2) as threads:
            loads = [threads.submit(recipe.load, spark, lake, baseUrl=url, jobs=jobs) for jobs in ("a,b", "b,c")]
            folders = [load.result() for load in loads]
        expected = [{**row, "_corrupt_record": None} for row in it.rows()]
        assert recipe.newest(lake) == expected
        for killed in Path(folders[0]).glob("part-*"):
            killed.unlink()  # what hadn't been put in place
        Path(folders[0], "_SUCCESS").unlink()
        assert len(recipe.newest(lake)) == len(expected)
        recipe.load(spark, lake, baseUrl=url, jobs="a,b,c")
        assert recipe.newest(lake) == expected


def test_a_corrupt_record_has_one_newest_row_too(
    spark: SparkSession, recipe: Any, bad_url: str, tmp_path: Path
) -> None:
    """Also if its id can't be understood."""
    for _ in range(2):
        recipe.load(spark, str(tmp_path), baseUrl=bad_url, jobs="bad")
        assert len(recipe.newest(str(tmp_path))) == 100 + len(BAD)


def test_the_merge_of_the_readme_is_sql_of_spark(spark: SparkSession) -> None:
    """Which needs a table of Delta Lake or Iceberg to run: here Spark reads it, and has the columns."""
    [block] = blocks("sql", ROOM)
    plan = spark._jsparkSession.sessionState().sqlParser().parsePlan(block.source).toString()  # type: ignore[attr-defined]
    assert "MergeIntoTable" in plan
    assert "_corrupt_record" in plan


def test_the_snippet_of_the_readme_reads_what_it_says(
    spark: SparkSession, sandbox: ServedSandbox, tmp_path: Path
) -> None:
    [block] = [block for block in blocks("python", ROOM) if '"jobsPath"' in block.source]
    path = tmp_path / "jobs.txt"
    path.write_text("".join(f"{job_id}\n" for job_id in sandbox.sandbox.job_ids))
    # This Spark was started elsewhere and without TFY_HOST; and the runs of the sandbox are of 2025.
    given = f'.option("jobsPath", {str(path)!r}).option("baseUrl", {sandbox.sandbox.url!r})'
    names: dict[str, Any] = {"spark": spark}
    source = block.source.replace('.option("jobsPath", "jobs.txt")', given).replace('"7 days"', '"9999 days"')
    exec(source, names)  # noqa: S102
    assert names["runs"].count() == len(sandbox.rows(status=["FAILED", "TERMINATED"])) > 0
