"""Bytes to attrs: what is accepted, that both paths agree, and what an error names."""

import json
import math
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import cattrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.plain import plain_converter
from tests.support.hostile import page, run
from tests.support.seeds import examples
from tfruns import DecodeError, FieldProblem, JobRun, JobRunStatus, Pagination, RunPage
from tfruns._decode.body import decode_http_error, decode_page, decode_runs, split_page
from tfruns._decode.explain import converter, decode_error
from tfruns.models import HttpError

TRIED = settings(max_examples=examples(25))
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
number = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63), 2**64 - 1)
junk = st.recursive(
    st.none() | st.booleans() | number | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


def nullable(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


subject = st.fixed_dictionaries(
    {"subjectId": text, "subjectType": st.sampled_from(["user", "external-identity", "agent"]) | text},
    optional={
        "subjectSlug": nullable(text),
        "subjectDisplayName": nullable(text),
        "subjectPatName": nullable(text),
        "subjectControllerName": nullable(text),
        "subjectExternalIdentitySlug": nullable(text),
        "novelty": junk,
    },
)
job_run = st.fixed_dictionaries(
    {
        "id": text,
        "name": text,
        "applicationName": text,
        "deploymentVersion": text,
        "createdAt": number,
        "command": text,
        "totalRetries": whole,
        "status": st.sampled_from([status.value for status in JobRunStatus]) | text,
    },
    optional={
        "endTime": nullable(number),
        "duration": nullable(whole),
        "error": nullable(text),
        "triggeredBy": nullable(text),
        "triggeredBySubject": nullable(subject),
        "exitCode": nullable(whole),
        "sparkUi": nullable(text),
        "applicationId": nullable(text),
        "deploymentId": nullable(text),
        "tenantName": nullable(text),
        "novelty": junk,
    },
)
payload = st.fixed_dictionaries(
    {
        "data": st.lists(job_run, max_size=3),
        "pagination": st.fixed_dictionaries(
            {"total": st.integers(0, 2**62)}, optional={"offset": nullable(whole), "limit": nullable(whole)}
        ),
    },
    optional={"novelty": junk},
)


PLAIN = plain_converter()


def explain_page(body: bytes, *, job_id: str, offset: int) -> RunPage:
    """The page by the explaining path alone."""
    try:
        return converter.structure(json.loads(body), RunPage)
    except (cattrs.BaseValidationError, ValueError, RecursionError):
        raise decode_error(body, RunPage, job_id=job_id, offset=offset, hide=str) from None


def decode(value: Any) -> RunPage:
    return decode_page(value if isinstance(value, bytes) else json.dumps(value).encode(), job_id="the job", offset=100)


def outcome(value: Any, path: Callable[..., RunPage] = decode_page) -> RunPage | DecodeError:
    """What comes of a body; any other exception than DecodeError fails the test."""
    try:
        return path(value if isinstance(value, bytes) else json.dumps(value).encode(), job_id="the job", offset=100)
    except DecodeError as error:
        return error


def refusal(value: Any) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(value)
    assert str(caught.value).startswith("job 'the job', offset 100: the response ")
    assert len(str(caught.value)) < 2500
    twin = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (str(twin), vars(twin)) == (str(caught.value), vars(caught.value))
    assert (twin.job_id, twin.offset) == ("the job", 100)
    return caught.value


@pytest.mark.property
@TRIED
@given(payload)
def test_both_paths_and_plain_cattrs_give_what_the_server_sent(sent: dict[str, Any]) -> None:
    body = json.dumps(sent).encode()
    fast = decode_page(body, job_id="j", offset=0)
    assert fast == PLAIN.structure(sent, RunPage)
    assert fast == explain_page(body, job_id="j", offset=0)
    assert fast.pagination.total == sent["pagination"]["total"]
    assert len(fast.data) == len(sent["data"])
    for got, wire in zip(fast.data, sent["data"], strict=True):
        back = got.to_dict()
        for name, value in back.items():
            if name == "triggeredBySubject" and value is not None:
                assert value == {key: wire[name].get(key) for key in value}
            else:
                assert value == wire.get(name)
                assert type(value) is type(wire.get(name))


# A field of each kind with values around the border of what is accepted, as it stands in the JSON.
FIELDS = ["id", "status", "deploymentVersion", "createdAt", "totalRetries", "endTime", "duration", "exitCode", "error"]
near = junk.map(json.dumps) | st.sampled_from(
    ["10e0", "1e2", "-0", "-0.0", "12.0", "12.5", "1e400", "-1e400", "1e-400", "NaN", "-Infinity", "9007199254740993.0"]
    + ["9" * digits for digits in (19, 20, 308)]
    + [
        json.dumps(text)
        for text in ["", "0", "12", "007", "12.0", "12.", ".0", "12.5", " 12", "12\n", "+1", "1_0", "1e2"]
    ]
    + [json.dumps(text) for text in ["\u0661", "\uff11", "-1", "9" * 19, "cut \ud83d", "whole \U0001f600", "\x00"]]
)


def is_accepted(name: str, value: Any) -> bool:
    """The contract, and what older servers are known to send, in plain Python."""
    is_integer = type(value) is int or (type(value) is float and value.is_integer())
    match name:
        case "id" | "status":
            return isinstance(value, str)
        case "error":
            return value is None or isinstance(value, str)
        case "deploymentVersion":
            return isinstance(value, str) or type(value) is int
        case "createdAt" | "endTime":
            is_number = type(value) is int or (type(value) is float and math.isfinite(value))
            return is_number or (value is None and name == "endTime")
        case "duration" if isinstance(value, str):
            return re.fullmatch(r"[0-9]{1,18}(\.0+)?", value) is not None
        case _:
            return is_integer or (value is None and name != "totalRetries")


@pytest.mark.property
@settings(max_examples=examples(60))
@given(st.sampled_from(FIELDS), near)
@example("createdAt", "NaN")
def test_both_paths_accept_and_refuse_the_same_field_and_what_plain_python_would(name: str, raw: str) -> None:
    body = json.dumps(page([run(0, **{name: "@@@"})])).replace('"@@@"', raw).encode()
    got, explained = outcome(body), outcome(body, explain_page)
    if is_accepted(name, json.loads(raw)):
        assert isinstance(got, RunPage)
        assert got == explained
    else:
        assert isinstance(got, DecodeError)
        assert str(got) == str(explained)
        assert [problem.field for problem in got.problems] == [name]
        assert "expected" in got.problems[0].reason


@pytest.mark.parametrize("name", ["createdAt", "endTime", "totalRetries", "duration", "exitCode"])
@pytest.mark.parametrize("value", [10**309, -(10**309), int("9" * 4300)], ids=["309", "-309", "4300"])
def test_a_whole_number_too_big_for_a_float_is_the_same_on_both_paths(name: str, value: int) -> None:
    body = json.dumps(page([run(0, **{name: value})])).encode()
    fast = decode_page(body, job_id="j", offset=0)
    assert fast.to_dict()["data"][0][name] == value
    assert explain_page(body, job_id="j", offset=0) == fast


def test_a_page_that_was_decoded_is_as_immutable_and_picklable_as_one_that_was_made() -> None:
    got = decode(page([run(0, triggeredBySubject={"subjectId": "s", "subjectType": "agent"})]))
    for part in (got, got.pagination, got.data[0], got.data[0].triggered_by_subject):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(part, attrs.fields(type(part))[0].name, None)
        made = type(part)(**{field.name: getattr(part, field.name) for field in attrs.fields(type(part))})  # type: ignore[misc]
        assert (made, hash(made), repr(made)) == (part, hash(part), repr(part))
    assert pickle.loads(pickle.dumps(got)) == got  # noqa: S301


@pytest.mark.property
@TRIED
@given(st.lists(job_run, max_size=3))
def test_runs_alone_are_those_of_a_page_that_holds_them(sent: list[dict[str, Any]]) -> None:
    runs = decode_runs(json.dumps(sent).encode(), job_id="j")
    assert runs == decode(page(sent)).data
    assert runs == converter.structure(sent, tuple[JobRun, ...])


def test_what_is_wrong_with_runs_alone_is_named() -> None:
    body = json.dumps([run(0), run(1, deploymentVersion=7), run(2, createdAt=None)]).encode()
    with pytest.raises(DecodeError, match="run 'run-2' at 12: createdAt: expected a number, got null") as caught:
        decode_runs(body, job_id="the job", offset=10)
    assert caught.value.problems == (FieldProblem("createdAt", "expected a number, got null", 12, "run-2"),)
    for other, says in ((b"{}", "the runs: expected a list, got an object"), (b"[", "isn't JSON"), (b"[3]", "at 0")):
        with pytest.raises(DecodeError, match=re.escape(says)):
            decode_runs(other, job_id="the job")


def test_the_converter_loads_bytes_as_it_structures_plain_objects() -> None:
    """It is one converter: what went through JSON twice is what went through it once."""
    sent = page([run(0, duration="12"), run(1)])
    assert converter.loads(json.dumps(sent).encode(), RunPage) == converter.structure(sent, RunPage)
    assert converter.loads(json.dumps(sent["data"]).encode(), tuple[JobRun, ...]) == decode(sent).data


# How JSON can say the same in other words: each of them is put in place of `"id": "run-0"`.
@pytest.mark.parametrize(
    "said",
    [
        '"id": "first", "id": "run-0"',
        '"id": null, "id": "run-0"',
        '"\\u0069d": "run-0"',
        '"id"\n\t :\r "run-0"',
        '"id": "\\u0072un\\u002d0"',
        '"ID": 5, "Id": [], "id": "run-0"',
        '"id": "run-0", "triggeredBySubject": {"subjectId": 5}, "triggeredBySubject": null',
    ],
)
def test_both_paths_understand_the_same_in_other_words(said: str) -> None:
    body = json.dumps(page([run(0)])).replace('"id": "run-0"', said).encode()
    plain = decode(page([run(0)]))
    assert explain_page(body, job_id="j", offset=0) == plain
    assert decode(body) == plain


@pytest.mark.parametrize("depth", [10, 100, 500])
def test_deep_nesting_in_unknown_fields_breaks_nothing(depth: int) -> None:
    body = json.dumps(page([run(0)])).replace('"id":', '"novelty": ' + "[" * depth + "]" * depth + ', "id":').encode()
    assert decode(body) == decode(page([run(0)]))


def test_threads_decode_at_the_same_time() -> None:
    """On the fast path, on that of older servers and on the explaining one, the first time included."""
    kinds: list[dict[str, Any]] = [{}, {"deploymentVersion": 7}, {"status": "NEW"}, {"duration": "007"}]
    sent = [page([run(n, **fields) for n in range(50)]) for fields in kinds]
    bodies = [json.dumps(each).encode() for each in sent] * 20
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decode, bodies))
    assert found == [*map(decode, bodies)]


@pytest.mark.parametrize(
    "fields", [{}, {"deploymentVersion": 1}, {"duration": "007"}], ids=["fast", "older", "explaining"]
)
def test_an_unknown_status_keeps_its_value_on_every_path(fields: dict[str, Any]) -> None:
    kinds = [{"subjectId": "s", "subjectType": kind} for kind in ("agent", "agent-channel-identity")]
    got = decode(page([run(n, status=f"NEW-{n}", triggeredBySubject=kinds[n], **fields) for n in range(2)]))
    assert [one.status for one in got.data] == ["NEW-0", "NEW-1"]
    assert all(isinstance(one.status, JobRunStatus) and not one.status.is_known for one in got.data)
    assert [one.to_dict()["triggeredBySubject"]["subjectType"] for one in got.data] == [
        kind["subjectType"] for kind in kinds
    ]


@pytest.mark.property
@TRIED
@given(payload)
def test_a_page_goes_to_json_and_back(sent: dict[str, Any]) -> None:
    first = decode(sent)
    again = decode(first.to_dict())
    assert again == first
    assert [hash(one) for one in again.data] == [hash(one) for one in first.data]


@pytest.mark.property
@settings(max_examples=examples(60))
@given(payload, st.data())
def test_bytes_are_a_page_or_one_decode_error(sent: dict[str, Any], data: st.DataObject) -> None:
    body = bytearray(json.dumps(sent, ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    got, explained = outcome(bytes(body)), outcome(bytes(body), explain_page)
    assert isinstance(got, (RunPage, DecodeError))
    if isinstance(explained, RunPage):
        assert got == explained


@pytest.mark.property
@TRIED
@given(st.binary() | text.map(str.encode))
@example(b"\xed\xa0\x80")
@example(b'{"data":[],"pagination":{"total":0}}\x00')
def test_any_bytes_at_all_are_a_page_or_one_decode_error(body: bytes) -> None:
    got = outcome(body)
    if isinstance(got, DecodeError):
        assert str(got).startswith("job 'the job', offset 100: the response ")
        assert (got.job_id, got.offset) == ("the job", 100)
    else:
        assert got.data == ()


@pytest.mark.property
@TRIED
@given(junk)
def test_any_json_is_a_page_or_an_error_that_says_where(value: Any) -> None:
    around = {"data": [], "pagination": {"total": 1}}
    for sent in (
        value,
        {**around, "data": value},
        {**around, "data": [run(0), value]},
        {**around, "pagination": value},
    ):
        got = outcome(sent)
        if isinstance(got, DecodeError):
            assert got.problems
            assert all(problem.field or problem.position is not None for problem in got.problems)
        else:
            assert got.to_dict()["data"] == sent["data"] == []


@pytest.mark.property
@TRIED
@given(st.binary())
def test_any_bytes_make_the_message_of_a_failed_request(body: bytes) -> None:
    made = decode_http_error(body, status_code=500)
    assert made.status_code == 500
    assert isinstance(made.message, str)
    assert len(made.message) <= 200
    assert "\n" not in made.message


@pytest.mark.property
@TRIED
@given(junk)
def test_any_json_makes_the_message_of_a_failed_request(value: Any) -> None:
    made = decode_http_error(json.dumps({"message": value, "code": value, "details": value}).encode(), status_code=500)
    assert isinstance(made.message, str)
    assert made.message
    assert not isinstance(value, str) or not value or made.message == value
    assert made.code is None or isinstance(made.code, (int, str))
    assert made.details is None or all(isinstance(each, dict) for each in made.details)


def test_the_messages_of_a_validating_server_are_joined() -> None:
    body = json.dumps({"statusCode": 422, "message": ["limit is too big", "offset is no number"]}).encode()
    assert decode_http_error(body, status_code=422).message == "limit is too big; offset is no number"
    assert decode_http_error(b"<h1>Bad\n gateway</h1>", status_code=502).message == "<h1>Bad gateway</h1>"
    full = {"statusCode": 404, "message": "no such job", "code": "E1", "details": [{"a": 1}, 5], "novelty": 1}
    assert decode_http_error(json.dumps(full).encode(), status_code=403) == HttpError(
        403, "no such job", "E1", [{"a": 1}]
    )


@pytest.mark.parametrize("depth", [100, 1_000, 100_000])
def test_nesting_never_keeps_a_failed_request_from_its_error(depth: int) -> None:
    for nested in (b"[" * depth + b"]" * depth, b'{"message": [' + b'{"a":' * depth + b"1" + b"}" * depth + b"]}"):
        assert decode_http_error(nested, status_code=500).message


@pytest.mark.parametrize("depth", [100, 490, 600, 980])
def test_the_details_of_a_failure_can_always_be_pickled(depth: int) -> None:
    body = b'{"message": "no", "details": [{"a": ' + b"[" * depth + b"]" * depth + b"}]}"
    error = decode_http_error(body, status_code=500)
    assert pickle.loads(pickle.dumps(error)) == error  # noqa: S301  # our own


def test_what_a_server_says_of_a_failure_can_always_be_written_as_utf_8() -> None:
    for body in (b'{"message": "cut \\ud83d"}', b'{"message": ["cut \\ud83d"]}', b"cut \xed\xa0\xbd"):
        assert decode_http_error(body, status_code=500).message.encode().startswith(b"cut ")


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"deploymentVersion": 7}, "deployment_version", "7"),
        ({"duration": "12"}, "duration", 12),
        ({"duration": "12.0"}, "duration", 12),
        ({"duration": 12.0}, "duration", 12),
        ({"duration": "007"}, "duration", 7),
        ({"duration": "9" * 18}, "duration", int("9" * 18)),
        ({"duration": 1e3}, "duration", 1000),
        ({"exitCode": -1.0}, "exit_code", -1),
        ({"totalRetries": 2.0}, "total_retries", 2),
        ({"name": "cut \ud83d"}, "name", "cut \ufffd"),
        ({"status": "\ud83d"}, "status", JobRunStatus("\ufffd")),
        ({"name": "whole \U0001f600"}, "name", "whole \U0001f600"),
    ],
)
def test_what_older_servers_send_is_accepted(fields: dict[str, Any], name: str, value: Any) -> None:
    got = getattr(decode(page([run(0, **fields)])).data[0], name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("separators", [(",", ":"), (" , ", " : "), ("\n,\t", "\r\n:\n")])
def test_texts_that_speak_of_older_fields_stay_as_they_are(separators: tuple[str, str]) -> None:
    """A page of an older server is rewritten before it is decoded, but nothing within a text is."""
    said = '{"deploymentVersion": 7, "duration":"5"}, \\"deploymentVersion":7, deploymentVersion":7}'
    old = {"deploymentVersion": -12, "duration": "31.00"}
    sent = page([run(0, **old, name=said, command=json.dumps(said), error="deploymentVersion"), run(1, **old)])
    body = json.dumps({**sent, said: 7}, separators=separators).encode()
    got = decode(body)
    assert got == explain_page(body, job_id="j", offset=0)
    assert (got.data[0].name, got.data[0].command) == (said, json.dumps(said))
    assert {(one.deployment_version, one.duration) for one in got.data} == {("-12", 31)}
    assert json.loads(split_page(body)[0]) == sent["data"][0]


def test_missing_retries_and_a_total_beside_the_data_are_accepted() -> None:
    old = run(0)
    del old["totalRetries"]
    for sent in ({"data": [old], "totalCount": 4}, {"data": [old], "pagination": {"limit": 9}, "totalCount": 4}):
        got = decode(sent)
        assert got.data[0].total_retries == 0
        assert got.pagination.total == 4
    both = {"data": [], "pagination": {"total": 3}, "totalCount": 4}
    for each in (both, b"\xef\xbb\xbf" + json.dumps(both).encode()):  # what msgspec takes, and what it refuses
        assert decode(each).pagination.total == 3
    assert decode({"data": [], "pagination": {"total": None, "offset": 5}, "totalCount": 4}).pagination == Pagination(
        4, 5
    )
    assert decode({"data": [], "pagination": None, "totalCount": 4}).pagination.total == 4
    assert decode(b"\xef\xbb\xbf" + json.dumps(page([])).encode()).data == ()


@pytest.mark.parametrize(
    "fields",
    [
        *({"duration": value} for value in ["soon", "", " 12 ", "1_0", "\u0661", "12.5", "-", 12.5, True, [], {}]),
        *({"deploymentVersion": value} for value in [1.5, True, None, []]),
        *({"createdAt": value} for value in ["1", True, None, [], float("nan"), float("inf")]),
        *({"totalRetries": value} for value in ["1", None, False, 1.5]),
        *({"id": value} for value in [None, 5, ["a"]]),
        *({"status": value} for value in [None, 5]),
        *({"endTime": value} for value in ["1", True, [], float("-inf")]),
        *({"name": value} for value in [None, 1, False, {}]),
        *({"command": value} for value in [None, ["true"]]),
        *({"applicationName": value} for value in [None, 1]),
        *({"triggeredBySubject": value} for value in ["jane", [], True, 0]),
        *({"exitCode": value} for value in ["0", True, 0.5]),
        *({"error": value} for value in [1, False, {"message": "x"}]),
        {"sparkUi": 1},
        {"tenantName": []},
    ],
    ids=str,
)
def test_nonsense_is_refused_and_named(fields: dict[str, Any]) -> None:
    (problem,) = refusal(page([run(0), run(1, **fields)])).problems
    assert (problem.position, problem.field) == (101, next(iter(fields)))
    assert problem.run_id == (None if "id" in fields else "run-1")
    assert "expected" in problem.reason


@pytest.mark.parametrize("field", [name for name in run(0) if name != "totalRetries"])
def test_a_missing_field_is_named(field: str) -> None:
    sent = run(0)
    del sent[field]
    assert refusal(page([sent])).problems == (FieldProblem(field, "is missing", 100, sent.get("id")),)


@pytest.mark.parametrize("count", ["3", True, None, 3.5, [], -0.5, -5, 2**62 + 1])
def test_a_total_beside_the_data_must_be_a_whole_number_too(count: Any) -> None:
    (problem,) = refusal({"data": [], "totalCount": count}).problems
    assert (problem.field, problem.position) == ("pagination.total", None)


@pytest.mark.parametrize("pagination", [[], "", 0, False, "x", [1]])
def test_a_total_beside_the_data_excuses_no_nonsense_in_its_place(pagination: Any) -> None:
    (problem,) = refusal({"data": [], "pagination": pagination, "totalCount": 4}).problems
    assert problem.field == "pagination"


def test_a_bad_page_and_bad_runs_are_named_together() -> None:
    sent = {"data": [run(0, id=5)], "pagination": {"total": True, "limit": "9", "offset": 1.5}}
    assert [str(problem) for problem in refusal(sent).problems] == [
        "the run at 100: id: expected a string, got 5",
        "pagination.total: expected a whole number, got true",
        "pagination.offset: expected a whole number, got 1.5",
        "pagination.limit: expected a whole number, got '9'",
    ]


def test_every_bad_field_of_every_run_is_named() -> None:
    bad = run(2, createdAt=None, triggeredBySubject={"subjectType": 3}, duration="soon")
    del bad["name"]
    error = refusal(page([run(0), 7, bad]))  # type: ignore[list-item]
    assert {(problem.position, problem.run_id, problem.field) for problem in error.problems} == {
        (101, None, ""),
        (102, "run-2", "name"),
        (102, "run-2", "createdAt"),
        (102, "run-2", "duration"),
        (102, "run-2", "triggeredBySubject.subjectId"),
        (102, "run-2", "triggeredBySubject.subjectType"),
    }
    assert "run 'run-2' at 102: createdAt: expected a number, got null" in str(error)
    assert "run 'run-2' at 102: name: is missing" in str(error)


def test_a_thousand_bad_runs_are_all_listed_but_the_message_stays_short() -> None:
    error = refusal(page([run(n, createdAt="x" * 100_000 if n == 0 else None) for n in range(1000)]))
    assert len(error.problems) == 1000
    assert "995 more" in str(error)


@pytest.mark.parametrize(
    "field", ["createdAt", "totalRetries", "endTime", "duration", "exitCode", "triggeredBySubject"]
)
@pytest.mark.parametrize("value", ["x" * 1_000_000, ["x" * 1_000_000], {"x" * 1_000_000: 1}], ids=type)
def test_a_huge_bad_value_makes_a_short_message(field: str, value: Any) -> None:
    problems = refusal(page([run(0, **{field: value})])).problems
    assert {problem.field.partition(".")[0] for problem in problems} == {field}
    assert all(len(problem.reason) < 100 for problem in problems)


def test_a_run_is_named_by_its_whole_id_where_that_is_no_longer_than_ids_are() -> None:
    run_id = "0192d8f0-7c1e-7cc3-9b1e-3f2a5c6d7e8f"
    error = refusal(page([run(0, id=run_id, createdAt=None)]))
    assert f"run '{run_id}' at 100: createdAt: expected a number" in str(error)


def test_a_huge_id_makes_a_short_message() -> None:
    (problem,) = refusal(page([run(0, id="x" * 1_000_000, createdAt=None)])).problems
    assert len(str(problem)) < 500


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><title>Sign in</title>", "<!DOCTYPE html><title>Sign in</title>"),
        (b"[]", "expected an object, got a list"),
        (b"null", "expected an object, got null"),
        (b"3", "expected an object, got 3"),
        (b'{"data": null, "pagination": {"total": 0}}', "data: expected a list, got null"),
        (b'{"data": {}, "pagination": {"total": 0}}', "data: expected a list, got an object"),
        (b'{"data": "x", "pagination": {"total": 0}}', "data: expected a list, got 'x'"),
        (b'{"pagination": {"total": 0}}', "data: is missing"),
        (b'{"data": []}', "pagination: is missing"),
        (b'{"data": [], "pagination": null}', "pagination: expected an object, got null"),
        (b'{"data": [], "pagination": {}}', "pagination.total: is missing"),
        (b'{"data": [], "pagination": {"total": "3"}}', "pagination.total: expected a whole number, got '3'"),
        (b'{"data": [], "pagination": {"total": "\xff"}}', "isn't JSON"),
        (b'{"data": [', "isn't JSON"),
        (b'{"data": [], "pagination": {"total": 0}} x', "isn't JSON"),
        (b'{"data": [], "pagination": {"total": 0}}' * 2, "isn't JSON"),
        (b'{"data": [{"id": "a\n', "isn't JSON"),
        (b'"' + b"x" * 1_000_000, "isn't JSON"),
        (b"<" + b"x " * 500_000, "isn't JSON"),
        (b"true", "expected an object, got true"),
        (b'"page"', "expected an object, got 'page'"),
        (b"{}", "data: is missing; pagination: is missing"),
        (b'{"data": 0, "pagination": {"total": 0}}', "data: expected a list, got 0"),
        (b'{"data": [], "pagination": {"total": null}}', "pagination.total: expected a whole number, got null"),
        (b'{"data": [], "pagination": {"total": 1e400}}', "pagination.total: expected a whole number, got inf"),
        (b'{"data": [], "pagination": {"total": NaN}}', "pagination.total: expected a whole number, got nan"),
        (b'{"data": [], "pagination": {"total": -5}}', "pagination.total: expected a count, got -5"),
        (
            b'{"data": [], "pagination": {"total": 1' + b"0" * 400 + b"}}",
            "pagination.total: expected a count, got 1000",
        ),
        (b'{"data": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"data": [], "novelty": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"data": [], "pagination": {"total": ' + b"9" * 5000 + b"}}", "isn't JSON"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_page_is_refused_in_plain_words(body: bytes, says: str) -> None:
    assert says in str(refusal(body))


@pytest.mark.parametrize("depth", [10, 500, 900])
def test_nested_fields_never_hide_what_is_wrong(depth: int) -> None:
    """However deep an unknown field is nested: as long as it is JSON, the bad field is named, not the nesting."""
    nested = '"novelty": ' + "[" * depth + "]" * depth + ', "id": 5'
    body = json.dumps(page([run(0)])).replace('"id": "run-0"', nested).encode()
    assert "id: expected a string, got 5" in str(refusal(body))


@pytest.mark.parametrize("depth", [10, 500, 900])
def test_a_page_that_was_understood_can_be_split_however_deep_it_is_nested(depth: int) -> None:
    nested = '"novelty": ' + "[" * depth + "]" * depth + r', "id": "\ud83d"'
    body = json.dumps(page([run(0)])).replace('"id": "run-0"', nested).encode()
    assert decode_runs(b"[%b]" % b",".join(split_page(body)), job_id="j") == decode(body).data
