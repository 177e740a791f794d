"""Bad arguments fail at the call, before any request, and say what was given and what is allowed."""

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfruns import Client, JobRunsSortBy, JobRunStatus, SortDirection
from tfruns.query import PageRequest, RunFilter

CLIENT = Client("http://127.0.0.1:1", "key")


@pytest.mark.parametrize(
    ("argument", "value", "error", "says"),
    [
        ("page_size", 0, ValueError, "page_size must be a whole number from 1 to 1000, got 0"),
        ("page_size", 1001, ValueError, "page_size must be a whole number from 1 to 1000, got 1001"),
        ("page_size", True, TypeError, "page_size must be a whole number from 1 to 1000, got True"),
        ("page_size", "10", TypeError, "page_size must be a whole number from 1 to 1000, got '10'"),
        ("page_size", None, TypeError, "got None"),
        ("page_size", 10.0, TypeError, "got 10.0"),
        ("offset", -1, ValueError, "offset must be a whole number, 0 or more, got -1"),
        ("offset", "0", TypeError, "got '0'"),
        ("max_runs", -1, ValueError, "max_runs must be a whole number, 0 or more, got -1"),
        ("max_runs", 1.5, TypeError, "got 1.5"),
        ("status", "BOGUS", ValueError, "status must be one of 'CREATED', .* got 'BOGUS'.*JobRunStatus\\('BOGUS'\\)"),
        ("status", "failed", ValueError, "got 'failed'"),
        ("status", ["FAILED", 5], TypeError, "got 5"),
        ("status", [], ValueError, "status is empty"),
        ("status", 5, TypeError, "got 5"),
        ("sort_by", "start_time", ValueError, "sort_by must be one of 'startTime', .* got 'start_time'"),
        ("sort_by", 1, TypeError, "got 1"),
        ("order", "up", ValueError, "order must be one of 'asc', 'desc', got 'up'"),
        ("triggered_by", [None], TypeError, "got None"),
        ("triggered_by", (), ValueError, "triggered_by is empty"),
        ("version_numbers", True, TypeError, "got True"),
        ("version_numbers", "v1", TypeError, "got 'v1'"),
        ("version_numbers", float("nan"), ValueError, "got nan"),
        ("version_numbers", [float("inf")], ValueError, "got inf"),
        ("search_prefix", 5, TypeError, "search_prefix must be a string, got 5"),
        ("search_prefix", "\ud800", ValueError, "isn't valid Unicode"),
    ],
    ids=repr,
)
def test_a_bad_argument_is_named(argument: str, value: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        CLIENT.iter_runs("job", **{argument: value})


@pytest.mark.parametrize(
    ("job_id", "error", "says"),
    [
        ("", ValueError, "job_id is empty"),
        (" \t", ValueError, "job_id is empty"),
        (".", ValueError, "another path"),
        ("..", ValueError, "another path"),
        ("\udcff", ValueError, "isn't valid Unicode"),
        (None, TypeError, "job_id must be a string, got None"),
        (b"job", TypeError, "got b'job'"),
    ],
)
async def test_a_bad_job_id_is_named(job_id: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        CLIENT.iter_runs(job_id)
    for call in (CLIENT.list_runs(job_id), CLIENT.count_runs(job_id)):
        with pytest.raises(error, match=says):
            await call


@pytest.mark.parametrize("limit", [0, 1001, True, "10"])
async def test_a_bad_limit_is_named(limit: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="limit must be a whole number from 1 to 1000"):
        await CLIENT.list_runs("job", limit=limit)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip() and text.strip("."))
)
def test_a_job_id_is_one_path_segment_whatever_it_holds(job_id: str) -> None:
    target = PageRequest(job_id, RunFilter(), 10, 5).target()
    assert target.isascii()
    url = urlsplit("http://host" + target)
    before, segment, after = url.path.rpartition("/")[0], url.path.split("/")[-2], url.path.split("/")[-1]
    assert before == "/api/svc/v1/jobs/" + segment
    assert unquote(segment) == job_id
    assert after == "runs"
    assert (url.query, url.fragment) == ("limit=10&offset=5", "")


@pytest.mark.parametrize(
    ("given_", "sent"),
    [
        ({"status": "FAILED"}, [("status", "FAILED")]),
        ({"status": JobRunStatus.FAILED}, [("status", "FAILED")]),
        ({"status": JobRunStatus("PAUSED")}, [("status", "PAUSED")]),
        ({"status": (one for one in ["FAILED", "RUNNING"])}, [("status", "FAILED"), ("status", "RUNNING")]),
        ({"triggered_by": "a@b.c"}, [("triggeredBy", "a@b.c")]),
        ({"triggered_by": ["a&b", "ü"]}, [("triggeredBy", "a&b"), ("triggeredBy", "ü")]),
        ({"version_numbers": 3}, [("versionNumbers", "3")]),
        ({"version_numbers": [3.0, 2.5, "12"]}, [("versionNumbers", n) for n in ("3", "2.5", "12")]),
        ({"search_prefix": "a b+c%"}, [("searchPrefix", "a b+c%")]),
        (
            {"sort_by": JobRunsSortBy.START_TIME, "order": SortDirection.ASC},
            [("sortBy", "startTime"), ("order", "asc")],
        ),
        ({"sort_by": "status", "order": "desc"}, [("sortBy", "status"), ("order", "desc")]),
    ],
    ids=repr,
)
def test_a_filter_takes_a_member_or_its_string_and_one_or_many(given_: dict[str, Any], sent: list[Any]) -> None:
    assert parse_qsl(RunFilter(**given_).query_string()) == sent
