"""What the Spark data source is made of, without a Spark."""

import asyncio
import pickle
import re
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("pyspark")
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql.datasource import InputPartition

from tests.spark.test_spark import BAD, LOAD_ERRORS
from tests.support.hostile import run
from tests.support.sparking import KEY, ServedSandbox, in_order, served, serving
from tfruns.errors import TfRunsError
from tfruns.query import RunFilter
from tfruns.sandbox import Fault
from tfruns.spark.options import parse
from tfruns.spark.source import RunsPartition, TfRunsDataSource, balanced, columns_of, in_background

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFY_API_KEY", KEY)


def reader_of(it: ServedSandbox, **options: Any) -> Any:
    given = {"baseUrl": it.sandbox.url, "jobs": ",".join(it.sandbox.job_ids)}
    source = TfRunsDataSource({**given, **{name: str(value) for name, value in options.items()}})
    return source.reader(source.schema())


def rows_of(reader: Any, partition: Any) -> list[dict[str, Any]]:
    rows = [row for batch in reader.read(partition) for row in batch.to_pylist()]
    assert [row.pop("_corrupt_record") for row in rows] == [None] * len(rows)
    return rows


@given(requests=st.lists(st.integers(1, 200), max_size=40), groups=st.integers(1, 12))
def test_each_job_is_in_one_group_and_no_group_is_much_larger_than_another(requests: list[int], groups: int) -> None:
    by_job = {f"job-{number}": count for number, count in enumerate(requests)}
    shares = balanced(by_job, groups)
    assert len(shares) == min(groups, len(by_job))
    assert all(shares)
    assert sorted(job_id for share in shares for job_id in share) == sorted(by_job)
    loads = [sum(by_job[job_id] for job_id in share) for share in shares]
    assert max(loads, default=0) - min(loads, default=0) <= max(requests, default=0)


def test_the_shares_of_the_rate_make_up_the_rate_and_follow_the_requests() -> None:
    with served(jobs=["small", "large"], runs=[10, 3000]) as it:
        small, large = sorted(reader_of(it, maxRate=50).partitions(), key=lambda partition: partition.max_rate)
    assert small.max_rate + large.max_rate == pytest.approx(50)
    assert large.job_ids == ["large"]
    assert small.max_rate == pytest.approx(50 * 2 / 6)


def test_all_tasks_together_keep_to_the_rate() -> None:
    with served(jobs=4, runs=[200, 200, 200, 400]) as it:
        reader = reader_of(it, maxRate=40, pageSize=21)
        partitions = reader.partitions()
        it.sandbox.requests.clear()
        started = time.monotonic()
        with ThreadPoolExecutor(len(partitions)) as tasks:
            found = tasks.map(lambda partition: len(rows_of(reader, partition)), partitions)
            assert sorted(found) == [200, 200, 200, 400]
        took = time.monotonic() - started
        sent = len(it.sandbox.requests)
    assert sent >= 50
    assert sent <= 40 * took + 2 * len(partitions)  # the first of each needn't wait


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1712111400000", 1712111400000),  # which is also a date of 1712 in the basic form of ISO 8601
        ("1712111400000.5", 1712111400000.5),
        ("2026-11-23T08:30Z", datetime(2026, 11, 23, 8, 30, tzinfo=UTC)),
        ("2026-11-23 10:30:00+02:00", datetime(2026, 11, 23, 8, 30, tzinfo=UTC)),
        ("36 Hours", timedelta(hours=36)),
        ("1 week", timedelta(weeks=1)),
        ("1h30m", timedelta(minutes=90)),
        (str(timedelta(days=2, seconds=3661.5)), timedelta(days=2, seconds=3661.5)),
        (str(timedelta(minutes=5)), timedelta(minutes=5)),
    ],
)
def test_a_moment_may_have_several_forms(text: str, moment: Any) -> None:
    """Numbers are milliseconds, whatever else they may look like."""
    found = parse({"jobs": "a", "createdAfter": text}).filter.created_after
    expected = RunFilter(created_after=moment).created_after
    assert found is not None
    assert expected is not None
    assert abs(found - expected) < 60_000  # a time ago is counted from now
    assert (found == expected) or isinstance(moment, timedelta)


def test_jobs_that_are_named_twice_are_read_once() -> None:
    with served(jobs=["a"], runs=[5]) as it:
        reader = reader_of(it, jobs="a, a,a")
        assert [len(rows_of(reader, partition)) for partition in reader.partitions()] == [5]


@pytest.mark.parametrize(("status", "says"), [("FIALED", "got 'FIALED'; did you mean 'FAILED'?"), ("X", "got 'X'")])
def test_an_unknown_status_gets_no_advice_that_spark_can_not_follow(status: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says) + "$"):
        parse({"jobs": "a", "status": status})


def test_no_partition_and_no_text_holds_the_key() -> None:
    token = "another-key-0123456789"
    with served(jobs=["a"], runs=[5], api_key=token) as it:
        reader = reader_of(it, apiToken=token)
        partitions = reader.partitions()
        options = parse({"jobs": "a", "apiToken": token})
    assert token.encode() not in pickle.dumps(partitions)
    for thing in (partitions, reader, vars(reader), options):
        assert token not in repr(thing)
    with served(jobs=["a"], runs=[5]) as it:
        assert KEY.encode() not in pickle.dumps(reader_of(it))


def test_a_reader_and_its_partitions_survive_pickling() -> None:
    with served(jobs=["a", "b"], runs=[5, 3]) as it:
        reader, partitions = pickle.loads(pickle.dumps((reader := reader_of(it), reader.partitions())))  # noqa: S301
        assert in_order([row for part in partitions for row in rows_of(reader, part)]) == it.rows()


def test_load_asks_the_control_plane_nothing() -> None:
    with served(jobs=["a"], runs=[5]) as it:
        assert reader_of(it)
        assert TfRunsDataSource({"baseUrl": it.sandbox.url, "jobs": "a"}).schema() == columns_of("_corrupt_record")
        assert not it.sandbox.requests


@pytest.mark.parametrize(("options", "says"), LOAD_ERRORS)
def test_a_wrong_option_is_an_error_that_says_how(options: dict[str, Any], says: str) -> None:
    given = {"baseUrl": "http://127.0.0.1:1", **({} if "jobs" in str(options).lower() else {"jobs": "few"}), **options}
    source = TfRunsDataSource({name: str(value) for name, value in given.items()})
    with pytest.raises((ValueError, TypeError, TfRunsError)) as caught:
        source.reader(columns_of("_corrupt_record")).partitions()
    assert says.lower() in str(caught.value).lower()
    assert "something-secret" not in str(caught.value)


@pytest.mark.parametrize("mode", ["permissive", "dropMalformed", "failFast"])
def test_runs_that_cannot_be_rows(mode: str) -> None:
    """Each is a row with its text, or is dropped, or ends the load, as `mode` says."""
    bad = [{**run(number), **fields} if isinstance(fields, dict) else fields for number, (fields, *_) in enumerate(BAD)]
    with serving({"bad": [run(1000), *bad, run(1001)]}) as url:
        reader = TfRunsDataSource({"baseUrl": url, "jobs": "bad", "mode": mode}).reader(
            columns_of("_corrupt_record" if mode == "permissive" else None)
        )
        (partition,) = reader.partitions()
        if mode == "failFast":
            with pytest.raises(Exception, match="job 'bad'"):
                list(reader.read(partition))
            return
        rows = [row for batch in reader.read(partition) for row in batch.to_pylist()]
    broken = [row for row in rows if row.get("_corrupt_record")]
    assert len(broken) == (len(BAD) if mode == "permissive" else 0)
    assert [row["id"] for row in rows if row not in broken] == ["run-1000", "run-1001"]


def test_the_newest_run_cannot_be_understood() -> None:
    """It fails no load either: the jobs are counted by the page that it is on."""
    with serving({"a": [run(1, createdAt="now"), run(2)], "b": ["no run"]}) as url:
        source = TfRunsDataSource({"baseUrl": url, "jobs": "a,b"})
        reader = source.reader(source.schema())
        rows = [row for part in reader.partitions() for batch in reader.read(part) for row in batch.to_pylist()]
    found = sorted((row["job_id"], row["id"] or "", row["_corrupt_record"] is None) for row in rows)
    assert found == [("a", "run-1", False), ("a", "run-2", True), ("b", "", False)]


def test_no_schema_but_that_of_the_runs_is_taken() -> None:
    with pytest.raises(ValueError, match=r"leave out `\.schema\(\.\.\.\)`, and select the columns"):
        TfRunsDataSource({"jobs": "a"}).reader(columns_of(None)[:3])  # type: ignore[index]


def test_a_partition_that_is_not_ours_has_no_rows() -> None:
    with served(jobs=["a"], runs=[5]) as it:
        assert rows_of(reader_of(it), InputPartition(None)) == []


def test_an_executor_without_a_key_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(jobs=["a"], runs=[5]) as it:
        reader = reader_of(it)
        (partition,) = reader.partitions()
        monkeypatch.delenv("TFY_API_KEY")
        with pytest.raises(ValueError, match="no API key is given"):
            rows_of(reader, partition)


@pytest.mark.beyond_contract
def test_a_consumer_that_stops_early_leaves_no_thread_and_no_request() -> None:
    with served(jobs=["a"], runs=[20_000], faults=[Fault(latency=0.05)]) as it:
        reader = reader_of(it)
        (partition,) = reader.partitions()
        batches = reader.read(partition)
        assert 2000 <= next(batches).num_rows < 3000
        batches.close()
        assert "tfruns" not in [thread.name for thread in threading.enumerate()]


def test_the_loop_runs_while_the_consumer_is_busy() -> None:
    ticked = threading.Event()

    async def items() -> AsyncGenerator[int]:
        yield 1
        await asyncio.sleep(0.01)
        ticked.set()
        yield 2

    for _ in in_background(items()):
        assert ticked.wait(timeout=30)


def test_only_a_few_items_are_made_ahead() -> None:
    made = []

    async def items() -> AsyncGenerator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    for number in in_background(items()):
        assert len(made) <= number + 4


def test_an_error_comes_after_the_items_before_it() -> None:
    async def items() -> AsyncGenerator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    found = []
    with pytest.raises(KeyError, match="three"):
        for item in in_background(items()):
            found.append(item)  # noqa: PERF402
    assert found == [1, 2]


def test_a_partition_says_what_it_reads() -> None:
    partition = RunsPartition(["a"], RunFilter(status="FAILED"), "u", None)
    assert "'a'" in repr(partition)
    assert "FAILED" in repr(partition)
