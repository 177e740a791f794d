"""Bytes to attrs: what is accepted, that both paths agree, and what an error names."""

import json
import pickle
from contextlib import suppress
from typing import Any

import pytest
from hostile import page, run
from hypothesis import given, settings
from hypothesis import strategies as st

from tfruns import DecodeError, JobRunStatus, RunPage
from tfruns.structure import _explain_page, decode_http_error, decode_page

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
number = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63), 2**64 - 1)
junk = st.recursive(
    st.none() | st.booleans() | number | text, lambda inner: st.lists(inner) | st.dictionaries(text, inner)
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
            {"total": whole}, optional={"offset": nullable(whole), "limit": nullable(whole)}
        ),
    },
    optional={"novelty": junk},
)


def decode(value: Any) -> RunPage:
    return decode_page(value if isinstance(value, bytes) else json.dumps(value).encode(), job_id="the job", offset=100)


def refusal(value: Any) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(value)
    assert str(caught.value).startswith("job 'the job', offset 100: the answer ")
    assert len(str(caught.value)) < 2500
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301
    return caught.value


@given(payload)
def test_both_paths_give_what_the_server_sent(sent: dict[str, Any]) -> None:
    body = json.dumps(sent).encode()
    fast = decode_page(body, job_id="j", offset=0)
    assert fast == _explain_page(body, "j", 0)
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


@given(payload)
def test_a_page_goes_to_json_and_back(sent: dict[str, Any]) -> None:
    first = decode(sent)
    again = decode(first.to_dict())
    assert again == first
    assert [hash(one) for one in again.data] == [hash(one) for one in first.data]


@settings(max_examples=300)
@given(payload, st.data())
def test_bytes_are_a_page_or_one_decode_error(sent: dict[str, Any], data: st.DataObject) -> None:
    body = bytearray(json.dumps(sent, ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with suppress(DecodeError):
        assert isinstance(decode_page(bytes(body), job_id="j", offset=0), RunPage)


@given(st.binary())
def test_any_bytes_make_the_message_of_a_failed_request(body: bytes) -> None:
    made = decode_http_error(body, status_code=500)
    assert made.status_code == 500
    assert isinstance(made.message, str)


@given(junk)
def test_any_json_makes_the_message_of_a_failed_request(value: Any) -> None:
    made = decode_http_error(json.dumps({"message": value, "code": value, "details": value}).encode(), status_code=500)
    assert isinstance(made.message, str)
    assert made.code is None or isinstance(made.code, (int, str))
    assert made.details is None or all(isinstance(each, dict) for each in made.details)


def test_the_messages_of_a_validating_server_are_joined() -> None:
    body = json.dumps({"statusCode": 422, "message": ["limit is too big", "offset is no number"]}).encode()
    assert decode_http_error(body, status_code=422).message == "limit is too big; offset is no number"
    assert decode_http_error(b"<h1>Bad\n gateway</h1>", status_code=502).message == "<h1>Bad gateway</h1>"


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"deploymentVersion": 7}, "deployment_version", "7"),
        ({"duration": "12"}, "duration", 12),
        ({"duration": "12.0"}, "duration", 12),
        ({"duration": 12.0}, "duration", 12),
        ({"name": "cut \ud83d"}, "name", "cut \ufffd"),
        ({"name": "whole \U0001f600"}, "name", "whole \U0001f600"),
    ],
)
def test_what_older_servers_send_is_accepted(fields: dict[str, Any], name: str, value: Any) -> None:
    got = getattr(decode(page([run(0, **fields)])).data[0], name)
    assert got == value
    assert type(got) is type(value)


def test_missing_retries_and_a_total_beside_the_data_are_accepted() -> None:
    old = run(0)
    del old["totalRetries"]
    for sent in ({"data": [old], "totalCount": 4}, {"data": [old], "pagination": {"limit": 9}, "totalCount": 4}):
        got = decode(sent)
        assert got.data[0].total_retries == 0
        assert got.pagination.total == 4
    assert decode({"data": [], "pagination": {"total": 3}, "totalCount": 4}).pagination.total == 3
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
        {"exitCode": "0"},
        {"triggeredBySubject": "jane"},
    ],
    ids=str,
)
def test_nonsense_is_refused_and_named(fields: dict[str, Any]) -> None:
    (problem,) = refusal(page([run(0), run(1, **fields)])).problems
    assert (problem.position, problem.field) == (101, next(iter(fields)))
    assert problem.run_id == (None if "id" in fields else "run-1")
    assert "expected" in problem.reason


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
        (b"[" * 100_000, "nested too deeply"),
        (b'{"data": [], "novelty": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"data": [], "pagination": {"total": ' + b"9" * 5000 + b"}}", "isn't JSON"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_page_is_refused_in_plain_words(body: bytes, says: str) -> None:
    assert says in str(refusal(body))
