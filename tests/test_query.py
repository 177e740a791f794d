"""Bad arguments fail at the call, before any request, and say what was given and what is allowed."""

import inspect
import traceback
from datetime import timedelta
from typing import Any, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from tests.support.seeds import examples
from tfruns import Client, JobRunsSortBy, JobRunStatus, SortDirection
from tfruns.export import export_runs
from tfruns.query import Order, PageRequest, RunFilter, SortBy, Status

TRIED = settings(max_examples=examples(50, share=0.25))
CLIENT = Client("http://127.0.0.1:1", "key")


@pytest.mark.parametrize(
    ("argument", "value", "error", "says"),
    [
        ("page_size", 0, ValueError, "page_size must be a whole number from 1 to 1000, got 0"),
        ("page_size", 1001, ValueError, "page_size must be a whole number from 1 to 1000, got 1001"),
        ("page_size", True, TypeError, "page_size must be a whole number from 1 to 1000, got True"),
        ("page_size", "10", TypeError, "page_size must be a whole number from 1 to 1000, got '10'"),
        ("page_size", 10.0, TypeError, "got 10.0"),
        ("offset", -1, ValueError, "offset must be a whole number, 0 or more, got -1"),
        ("offset", "0", TypeError, "got '0'"),
        ("max_runs", -1, ValueError, "max_runs must be a whole number, 0 or more, got -1"),
        ("max_runs", 1.5, TypeError, "got 1.5"),
        ("status", "BOGUS", ValueError, "status must be one of 'CREATED', .* got 'BOGUS'.*JobRunStatus\\('BOGUS'\\)"),
        ("status", "fail", ValueError, "got 'fail'"),
        ("status", ["FAILED", 5], TypeError, "got 5"),
        ("status", [], ValueError, "status is empty"),
        ("status", 5, TypeError, "got 5"),
        ("status", b"FAILED", TypeError, "got b'FAILED'"),
        ("status", True, TypeError, "got True"),
        ("status", "", ValueError, "got ''"),
        ("status", iter(()), ValueError, "status is empty"),
        ("status", (one for one in ["FAILED", "BOGUS"]), ValueError, "got 'BOGUS'"),
        ("status", JobRunStatus("\ud800"), ValueError, "isn't valid Unicode"),
        ("sort_by", "start_time", ValueError, "sort_by must be one of 'startTime', .* got 'start_time'"),
        ("sort_by", 1, TypeError, "got 1"),
        ("order", "up", ValueError, "order must be one of 'asc', 'desc', got 'up'"),
        ("triggered_by", [None], TypeError, "got None"),
        ("triggered_by", 5, TypeError, "got 5"),
        ("triggered_by", (), ValueError, "triggered_by is empty"),
        ("triggered_by", "\udfff", ValueError, "triggered_by can't be sent, .* isn't valid Unicode"),
        ("triggered_by", ["jane", "\udfff"], ValueError, "isn't valid Unicode"),
        ("version_numbers", True, TypeError, "got True"),
        ("version_numbers", "v1", TypeError, "got 'v1'"),
        ("version_numbers", float("nan"), ValueError, "got nan"),
        ("version_numbers", [float("inf")], ValueError, "got inf"),
        ("version_numbers", [1, -float("inf")], ValueError, "got -inf"),
        ("version_numbers", [], ValueError, "version_numbers is empty"),
        ("version_numbers", [[1]], TypeError, "got \\[1\\]"),
        ("version_numbers", "\u0663", TypeError, "got '\u0663'"),
        ("search_prefix", 5, TypeError, "search_prefix must be a string, got 5"),
        ("search_prefix", "\ud800", ValueError, "isn't valid Unicode"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
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


async def test_a_bad_filter_is_named_by_every_call_that_takes_it() -> None:
    for call in (CLIENT.list_runs("job", status="BOGUS"), CLIENT.count_runs("job", status="BOGUS")):
        with pytest.raises(ValueError, match="status must be one of .* got 'BOGUS'"):
            await call
    with pytest.raises(ValueError, match="offset must be a whole number, 0 or more, got -1"):
        await CLIENT.list_runs("job", offset=-1)


def test_a_version_too_big_for_a_float_is_sent_digit_by_digit() -> None:
    assert parse_qsl(RunFilter(version_numbers=[10**400]).query_string()) == [("versionNumbers", str(10**400))]


@pytest.mark.parametrize("limit", [0, 1001, True, "10"])
async def test_a_bad_limit_is_named(limit: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="limit must be a whole number from 1 to 1000"):
        await CLIENT.list_runs("job", limit=limit)


@pytest.mark.property
@TRIED
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip() and text.strip("."))
)
@example("../x")
@example("a/../../b")
@example("%2e%2e")
@example("a%2Fb?c=d&e#f;g")
@example(" a+b \t")
@example("a\r\nX-Admin: 1")
@example("...")
@example("\\")
@example("\x00")
@example("\U0001f600\u0301")
def test_a_job_id_is_one_path_segment_whatever_it_holds(job_id: str) -> None:
    target = PageRequest(job_id, RunFilter(), 10, 5).target()
    assert target.isascii()
    url = urlsplit("http://host" + target)
    before, segment, after = url.path.rpartition("/")[0], url.path.split("/")[-2], url.path.split("/")[-1]
    assert before == "/api/svc/v1/jobs/" + segment
    assert unquote(segment) == job_id
    assert after == "runs"
    assert (url.query, url.fragment) == ("limit=10&offset=5", "")
    assert URL("http://host/prefix" + target, encoded=True).raw_path_qs == "/prefix" + target


@pytest.mark.parametrize(
    ("given_", "sent"),
    [
        ({"status": "FAILED"}, [("status", "FAILED")]),
        ({"status": JobRunStatus.FAILED}, [("status", "FAILED")]),
        ({"status": JobRunStatus("PAUSED")}, [("status", "PAUSED")]),
        ({"status": (one for one in ["FAILED", "RUNNING"])}, [("status", "FAILED"), ("status", "RUNNING")]),
        ({"status": ["RUNNING", JobRunStatus.FAILED]}, [("status", "RUNNING"), ("status", "FAILED")]),
        ({"status": {"FAILED": 1}.keys()}, [("status", "FAILED")]),
        ({}, []),
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
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_a_filter_takes_a_member_or_its_string_and_one_or_many(given_: dict[str, Any], sent: list[Any]) -> None:
    assert parse_qsl(RunFilter(**given_).query_string()) == sent


def test_a_list_is_a_repeated_key_after_the_paging() -> None:
    wanted = RunFilter(status=["FAILED", "RUNNING"], search_prefix="a b", version_numbers=[1, 2])
    assert PageRequest("job", wanted, 10, 0).target() == (
        "/api/svc/v1/jobs/job/runs?limit=10&offset=0"
        "&searchPrefix=a%20b&status=FAILED&status=RUNNING&versionNumbers=1&versionNumbers=2"
    )


@pytest.mark.property
@TRIED
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1), st.text(st.characters(codec="utf-8")))
def test_any_text_reaches_the_server_as_it_was_given(slugs: list[str], prefix: str) -> None:
    sent = parse_qsl(
        RunFilter(triggered_by=slugs, search_prefix=prefix).query_string(), keep_blank_values=True, strict_parsing=True
    )
    assert sent == [("searchPrefix", prefix), *(("triggeredBy", slug) for slug in slugs)]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"status": "failed"}, "status=FAILED"),
        ({"status": ["Failed", "running"]}, "status=FAILED&status=RUNNING"),
        ({"order": "DESC"}, "order=desc"),
        ({"sort_by": "starttime"}, "sortBy=startTime"),
    ],
)
def test_words_are_taken_in_any_case_as_on_the_command_line(given: dict[str, Any], sent: str) -> None:
    assert RunFilter(**given).query_string() == sent


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"status": "FAILD"}, r"got 'FAILD'; did you mean 'FAILED'\? Or for one .* pass JobRunStatus\('FAILD'\)"),
        ({"status": ["FAILED", "finnished"]}, r"got 'finnished'; did you mean 'FINISHED'\?"),
        ({"status": "PAUSED"}, r"got 'PAUSED'; for one that is newer than this version, pass JobRunStatus\('PAUSED'\)"),
        ({"sort_by": "startime"}, r"got 'startime'; did you mean 'startTime'\?"),
        ({"order": "up"}, r"got 'up'$"),
    ],
)
def test_a_slip_of_the_keys_gets_the_value_that_is_meant(filters: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CLIENT.iter_runs("job", **filters)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("created_at", "startTime"),
        ("createdAt", "startTime"),
        ("start_time", "startTime"),
        ("deployment_version", "deploymentVersion"),
        ("triggered_by", "triggeredBy"),
    ],
)
def test_the_name_of_a_field_gets_the_key_to_sort_by(given: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"got '{given}'; did you mean '{meant}'\\?"):
        CLIENT.iter_runs("job", sort_by=given)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("SUCCEEDED", "FINISHED"),
        ("Completed", "FINISHED"),
        ("PENDING", "SCHEDULED"),
        ("queued", "SCHEDULED"),
        ("CANCELLED", "TERMINATED"),
        ("canceled", "TERMINATED"),
        ("KILLED", "TERMINATED"),
        ("ERROR", "FAILED"),
        ("succeded", "FINISHED"),
        ("canceld", "TERMINATED"),
        ("in-progress", "RUNNING"),
        ("termination requested", "TERMINATION_REQUESTED"),
    ],
)
def test_what_other_systems_call_a_status_gets_the_name_that_it_has_here(given: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"got '{given}'; did you mean '{meant}'\\?"):
        CLIENT.iter_runs("job", status=given)


@pytest.mark.parametrize(
    ("method", "given", "says"),
    [
        ("iter_runs", "limit", "Client.iter_runs() has no argument 'limit': did you mean 'max_runs'?"),
        ("iter_runs", "pagesize", "Client.iter_runs() has no argument 'pagesize': did you mean 'page_size'?"),
        ("iter_runs", "since", "Client.iter_runs() has no argument 'since': did you mean 'created_after'?"),
        ("count_runs", "until", "Client.count_runs() has no argument 'until': did you mean 'created_before'?"),
        ("watch_runs", "since", "Client.watch_runs() has no argument 'since': did you mean 'start'?"),
        ("iter_runs_for", "limit", "Client.iter_runs_for() has no argument 'limit': did you mean 'max_runs'?"),
        ("iter_runs", "sort", "Client.iter_runs() has no argument 'sort': did you mean 'sort_by'?"),
        ("list_runs", "max_runs", "Client.list_runs() has no argument 'max_runs': did you mean 'limit'?"),
        ("list_runs", "page_size", "Client.list_runs() has no argument 'page_size': did you mean 'limit'?"),
        ("count_runs", "statuses", "Client.count_runs() has no argument 'statuses': did you mean 'status'?"),
        ("iter_runs", "retries", "Client.iter_runs() has no argument 'retries': did you mean 'retry'?"),
        ("count_runs", "color", "Client.count_runs() has no argument 'color'"),
    ],
)
async def test_the_error_for_a_wrong_name_of_an_argument_gives_the_right_one(
    method: str, given: str, says: str
) -> None:
    job_ids = ["job"] if method == "iter_runs_for" else "job"
    with pytest.raises(TypeError) as caught:
        called = getattr(CLIENT, method)(job_ids, **{given: 5})
        await called  # the async ones say so when they are awaited
    assert str(caught.value) == says


@pytest.mark.parametrize("job_id", ["job\n", " job", "job\u00a0"])
async def test_a_job_id_with_white_space_around_it(job_id: str) -> None:
    """It comes from a file or a copied text, and the server would only say that there is no such job."""
    for call in (CLIENT.iter_runs, CLIENT.watch_runs, CLIENT.iter_runs_for):
        with pytest.raises(ValueError, match="job_id begins or ends with white space: '"):
            async for _ in call([job_id] if call == CLIENT.iter_runs_for else job_id):  # type: ignore[operator]
                pass


def test_the_methods_are_what_they_were_to_those_who_inspect_them() -> None:
    assert inspect.signature(Client.iter_runs).parameters["max_runs"].default is None
    assert inspect.iscoroutinefunction(Client.count_runs)
    assert Client.iter_runs.__qualname__ == "Client.iter_runs"


@pytest.mark.parametrize(("alias", "values"), [(Status, JobRunStatus), (SortBy, JobRunsSortBy), (Order, SortDirection)])
def test_the_typed_strings_are_the_values_of_the_enum(alias: Any, values: Any) -> None:
    """So that a type checker and an editor know them all, and no other."""
    enum, strings = get_args(alias)
    assert enum is values
    assert [*get_args(strings)] == [member.value for member in values]


async def test_a_checked_filter_takes_the_place_of_single_ones() -> None:
    chosen = RunFilter(status="failed", search_prefix="a", version_numbers=[2.5])
    assert CLIENT.iter_runs("job", filter=chosen).filter is chosen
    walked = CLIENT.iter_runs("job", status="failed", search_prefix="a", version_numbers=[2.5])
    assert walked.filter == chosen
    assert attrs.evolve(chosen, search_prefix=None) == RunFilter(status=["FAILED"], version_numbers="2.5")  # type: ignore[call-arg]


async def test_a_filter_that_is_none_or_goes_with_single_ones_is_refused() -> None:
    chosen = RunFilter(status="FAILED")
    with pytest.raises(ValueError, match="filter goes with no single filter, got order, status too"):
        CLIENT.iter_runs("job", filter=chosen, status="FAILED", order="asc")
    with pytest.raises(TypeError, match=r"filter must be a RunFilter, got \{'status': 'FAILED'\}"):
        await CLIENT.count_runs("job", filter={"status": "FAILED"})
    with pytest.raises(ValueError, match="filter has a time of creation"):
        await CLIENT.list_runs("job", filter=RunFilter(created_after=timedelta(days=1)))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"host": "h"}, "Client() has no argument 'host': did you mean 'base_url'?"),
        ({"url": "h"}, "Client() has no argument 'url': did you mean 'base_url'?"),
        ({"token": "tfy-secret"}, "Client() has no argument 'token': did you mean 'api_key'?"),
        ({"apikey": "tfy-secret"}, "Client() has no argument 'apikey': did you mean 'api_key'?"),
        ({"base_url": "tfy-secret", "retries": 3}, "Client() has no argument 'retries': did you mean 'retry'?"),
        ({"api_key": "tfy-secret", "colour": 3}, "Client() has no argument 'colour'"),
    ],
)
def test_an_argument_of_another_sdk_says_what_is_meant_and_shows_no_key(given: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError) as caught:
        Client(**given)
    assert str(caught.value) == says
    given.clear()
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert len(frames) > 1
    assert "tfy-secret" not in repr([frame.f_locals for frame in frames if "/tfruns/" in frame.f_code.co_filename])


async def test_an_export_names_the_argument_that_is_meant() -> None:
    with pytest.raises(TypeError, match=r"export_runs\(\) has no argument 'stauts': did you mean 'status'\?"):
        await export_runs(CLIENT, ["job"], "runs.csv", stauts="FAILED")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'storage_options'"):
        await export_runs(CLIENT, ["job"], "s3://bucket/runs.csv", storage_option={"secret": "s"})  # type: ignore[call-arg]
