"""The models as a user meets them."""

import copy
import gc
import inspect
import pickle
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from multidict import CIMultiDict
from rich.pretty import pretty_repr

import tfruns
from benchmarks.plain import plain_converter
from tfruns import (
    JobRun,
    JobRunsSortBy,
    JobRunStatus,
    Pagination,
    RunPage,
    SortDirection,
    Subject,
    SubjectType,
)
from tfruns.models import wire_name

RUN = JobRun(
    id="jqfwg345gi25n5ju2yz5iz6m",
    name="train-1",
    application_name="app",
    deployment_version="3",
    created_at=1_719_230_400_123,
    end_time=1_719_230_460_123.5,
    duration=60,
    command="python train.py",
    total_retries=1,
    status=JobRunStatus.FINISHED,
    triggered_by="jane@acme.com",
    triggered_by_subject=Subject(subject_id="s", subject_type=SubjectType.EXTERNAL_IDENTITY, subject_slug="jane"),
    exit_code=0,
)

VALUES = [
    RUN,
    RUN.triggered_by_subject,
    Pagination(7),
    RunPage((RUN,), Pagination(7)),
]


class Holder:
    """Something of the user's that holds runs, and is part of a cycle."""

    def __init__(self, held: list[Any]) -> None:
        self.held = held
        held.append(self)


# The contract's properties, and whether each is required.
CONTRACT: dict[type, dict[str, bool]] = {
    JobRun: {
        **dict.fromkeys(["id", "name", "applicationName", "deploymentVersion", "createdAt", "command"], True),
        **dict.fromkeys(["totalRetries", "status"], True),
        **dict.fromkeys(["endTime", "duration", "error", "triggeredBy", "triggeredBySubject", "exitCode"], False),
        **dict.fromkeys(["sparkUi", "applicationId", "deploymentId", "tenantName"], False),
    },
    Subject: {
        **dict.fromkeys(["subjectId", "subjectType"], True),
        **dict.fromkeys(["subjectSlug", "subjectDisplayName", "subjectPatName", "subjectControllerName"], False),
        "subjectExternalIdentitySlug": False,
    },
    Pagination: {"total": True, "offset": False, "limit": False},
    RunPage: {"data": True, "pagination": True},
}


CONTRACT_FILE = Path(__file__).parents[3] / "shared" / "openapi.yaml"


@pytest.mark.skipif(not CONTRACT_FILE.exists(), reason="the contract isn't beside the checkout")
def test_the_contract_copied_here_is_the_contract() -> None:
    schemas = pytest.importorskip("yaml").safe_load(CONTRACT_FILE.read_text())["components"]["schemas"]
    for model, properties in CONTRACT.items():
        schema = schemas["ListJobRunResponse" if model is RunPage else model.__name__]
        assert properties == {name: name in schema["required"] for name in schema["properties"]}
    for enum in (JobRunStatus, SubjectType, JobRunsSortBy, SortDirection):
        assert [member.value for member in enum] == schemas[enum.__name__]["enum"]


@pytest.mark.parametrize(
    ("name", "wire"),
    [("id", "id"), ("created_at", "createdAt"), ("subject_external_identity_slug", "subjectExternalIdentitySlug")],
)
def test_a_name_on_the_wire_is_the_name_in_camel_case(name: str, wire: str) -> None:
    assert wire_name(name) == wire


@pytest.mark.parametrize("model", CONTRACT, ids=lambda model: model.__name__)
def test_a_model_has_exactly_the_fields_of_the_contract(model: Any) -> None:
    fields = {wire_name(field.name): field.default is attrs.NOTHING for field in attrs.fields(model)}
    if model is JobRun:
        assert fields.pop("totalRetries") is False  # older servers leave it out
        assert fields == {name: needed for name, needed in CONTRACT[model].items() if name != "totalRetries"}
    else:
        assert fields == CONTRACT[model]


@pytest.mark.parametrize(
    ("enum", "values"),
    [
        (
            JobRunStatus,
            "CREATED SCHEDULED RUNNING FINISHED FAILED TERMINATION_REQUESTED TERMINATING TERMINATED UNKNOWN",
        ),
        (SubjectType, "user team serviceaccount virtualaccount external-identity agent-identity role"),
        (JobRunsSortBy, "startTime duration deploymentVersion triggeredBy status"),
        (SortDirection, "asc desc"),
    ],
)
def test_an_enum_has_exactly_the_values_of_the_contract_and_is_found_by_them(enum: Any, values: str) -> None:
    assert [member.value for member in enum] == values.split()
    for value in values.split():
        assert enum(value) == value == str(enum(value))
        assert {enum(value): 1}[value] == 1
        assert {value: 1}[enum(value)] == 1


@pytest.mark.parametrize("enum", [JobRunStatus, SubjectType])
def test_an_unknown_value_keeps_its_own_value_and_two_of_them_stay_different(enum: Any) -> None:
    listed = list(enum)
    one, other = enum("PAUSED"), enum("QUEUED")
    assert (one.value, one.name, str(one)) == ("PAUSED", "PAUSED", "PAUSED")
    assert one == enum("PAUSED") == "PAUSED" != other
    assert hash(one) == hash(enum("PAUSED")) == hash("PAUSED")
    assert isinstance(one, enum)
    assert not one.is_known
    assert all(member.is_known for member in listed)
    assert list(enum) == listed
    for twin in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):  # noqa: S301
        assert twin == one
        assert type(twin) is enum
    assert enum("PAUSED").value == "PAUSED"


@pytest.mark.parametrize("value", ["USER", "EXTERNAL_IDENTITY", "external_identity", "__class__", ""])
def test_a_value_that_is_only_the_name_of_a_member_is_unknown(value: str) -> None:
    kind = SubjectType(value)
    assert kind == value
    assert not kind.is_known
    assert kind not in list(SubjectType)


@pytest.mark.parametrize("enum", [JobRunStatus, SubjectType])
@pytest.mark.parametrize("value", [None, 5, ["FAILED"], b"FAILED"])
def test_what_is_no_string_is_no_value(enum: Any, value: object) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        enum(value)


def test_a_status_is_terminal_when_the_run_has_ended() -> None:
    assert {status for status in JobRunStatus if status.is_terminal} == {"FINISHED", "FAILED", "TERMINATED"}
    assert not JobRunStatus("PAUSED").is_terminal


def test_a_run_is_immutable_hashable_and_equal_by_value() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        RUN.name = "another"  # type: ignore[misc]
    twin = attrs.evolve(RUN)
    assert twin == RUN
    assert {twin: 1}[RUN] == 1
    assert attrs.evolve(RUN, exit_code=1) != RUN
    assert pickle.loads(pickle.dumps(RUN)) == copy.deepcopy(RUN) == RUN  # noqa: S301


@pytest.mark.parametrize("value", VALUES, ids=type)
def test_nothing_in_a_payload_can_be_set_removed_or_added(value: Any) -> None:
    for field in attrs.fields(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, field.name, None)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            delattr(value, field.name)
    with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
        value.novelty = 1


@pytest.mark.parametrize("milliseconds", [0, -1, 0.5, 1_719_230_400_123, 253_402_300_799_999])
def test_a_time_is_milliseconds_since_1970(milliseconds: float) -> None:
    run = attrs.evolve(RUN, created_at=milliseconds, end_time=milliseconds)
    assert run.created - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(milliseconds=milliseconds)
    assert run.ended == run.created
    assert f"created_at={milliseconds!r} <{run.created:%Y-%m-%dT%H:%M:%S}Z>" in repr(run)


@pytest.mark.parametrize("value", VALUES, ids=type)
def test_a_payload_is_an_attrs_class(value: Any) -> None:
    """`attrs.has`, `fields`, `asdict` and `evolve` know it, and cattrs makes it again from what it made of it."""
    model = type(value)
    assert attrs.has(model)
    assert attrs.asdict(value, recurse=False) == {
        field.name: getattr(value, field.name) for field in attrs.fields(model)
    }
    twin = attrs.evolve(value)
    assert twin is not value
    assert (twin, type(twin), repr(twin)) == (value, model, repr(value))
    assert attrs.resolve_types(model) is model
    converter = plain_converter(by_wire_name=False)
    assert converter.structure(converter.unstructure(value), model) == value


@pytest.mark.parametrize("value", VALUES, ids=type)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_payload_survives_pickling_by_every_protocol(value: Any, protocol: int) -> None:
    assert pickle.loads(pickle.dumps(value, protocol)) == value  # noqa: S301


@pytest.mark.parametrize("value", VALUES, ids=type)
@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_payload_equals_it(value: Any, twin_of: Callable[[Any], Any]) -> None:
    twin = twin_of(value)
    assert (twin, type(twin), repr(twin)) == (value, type(value), repr(value))


@pytest.mark.parametrize("value", VALUES, ids=type)
def test_a_payload_equals_its_own_kind_alone(value: Any) -> None:
    """Not a tuple, not a dict, and not one of a subclass with the same fields."""

    class Other(type(value)):  # type: ignore[misc]
        pass

    fields = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    assert value not in (fields, tuple(fields.values()), Other(**fields))


@pytest.mark.parametrize("value", VALUES, ids=type)
def test_the_garbage_collector_need_not_visit_a_payload_and_frees_what_holds_it(value: Any) -> None:
    # A page can have more than its fields, and there are few pages.
    assert isinstance(value, RunPage) or not gc.is_tracked(value)
    holder: list[Any] = [copy.copy(value)]
    holder.append(holder)
    gone = weakref.ref(Holder(holder))
    del holder
    gc.collect()
    assert gone() is None


def test_fields_are_given_by_keyword_where_there_are_many() -> None:
    with pytest.raises(TypeError, match="positional"):
        JobRun("id")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="name"):
        JobRun(id="id")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="novelty"):
        Pagination(3, novelty=1)  # type: ignore[call-arg]
    assert all(
        parameter.kind is inspect.Parameter.KEYWORD_ONLY
        for model in (JobRun, Subject)
        for parameter in inspect.signature(model).parameters.values()
    )


def test_payloads_match_patterns() -> None:
    match RunPage((RUN,), Pagination(7, limit=3)):
        case RunPage((JobRun(status=JobRunStatus.FINISHED, triggered_by_subject=Subject(subject_slug=slug)),), rest):
            assert slug == "jane"
            assert rest == Pagination(7, None, 3)
        case other:
            pytest.fail(f"no match: {other!r}")


def test_rich_shows_a_run_as_short_as_its_repr() -> None:
    """Not with every field, as it shows a msgspec Struct."""
    shown = pretty_repr(attrs.evolve(RUN, command="x" * 1_000), max_width=1_000)
    assert shown == repr(RUN)


@pytest.mark.parametrize("model", CONTRACT, ids=lambda model: model.__name__)
def test_both_ways_to_the_wire_use_the_same_names(model: Any) -> None:
    """msgspec's, which decodes, and ours, which explains."""
    assert [field.encode_name for field in msgspec.structs.fields(model)] == [
        wire_name(field.name) for field in attrs.fields(model)
    ]


def test_times_are_aware_and_in_utc() -> None:
    assert RUN.created == datetime(2024, 6, 24, 12, 0, 0, 123_000, tzinfo=UTC)
    assert RUN.ended == datetime(2024, 6, 24, 12, 1, 0, 123_500, tzinfo=UTC)
    assert RUN.created.tzinfo is UTC
    assert attrs.evolve(RUN, end_time=None).ended is None


@pytest.mark.parametrize("milliseconds", [10**18, -(10**18), 1e300, 10**400])
def test_a_time_beyond_all_calendars_is_a_clear_error_only_when_converted(milliseconds: float) -> None:
    run = attrs.evolve(RUN, created_at=milliseconds, end_time=milliseconds)
    assert repr(milliseconds) in repr(run)
    with pytest.raises(ValueError, match="created_at is .* beyond the years"):
        _ = run.created
    with pytest.raises(ValueError, match="end_time is .* beyond the years"):
        _ = run.ended


def test_the_repr_of_a_run_is_one_readable_line() -> None:
    assert repr(RUN) == (
        "JobRun(id='jqfwg345gi25n5ju2yz5iz6m', name='train-1', deployment_version='3', "
        "created_at=1719230400123 <2024-06-24T12:00:00Z>, status=FINISHED, "
        "end_time=1719230460123.5 <2024-06-24T12:01:00Z>, duration=60, triggered_by='jane@acme.com', exit_code=0)"
    )
    assert repr(RunPage((RUN,), Pagination(7))) == (
        "RunPage(data=<1 run>, pagination=Pagination(total=7, offset=None, limit=None))"
    )


def test_the_repr_of_a_run_stays_short_whatever_it_ran_and_however_it_failed() -> None:
    long = attrs.evolve(RUN, command="x" * 1_000_000, error="x" * 1_000_000, spark_ui="x" * 1_000_000)
    assert repr(long) == repr(RUN)
    assert len(repr(RunPage((long,) * 1000, Pagination(1000)))) < 100


def test_an_unknown_status_is_shown_by_its_value() -> None:
    assert "status=PAUSED" in repr(attrs.evolve(RUN, status=JobRunStatus("PAUSED")))
    assert r"status=A \x1b[2J" in repr(attrs.evolve(RUN, status=JobRunStatus("A\n\x1b[2J")))
    assert repr(Subject(subject_id="s", subject_type=SubjectType("A\n\x1b[2J"))).isprintable()


def test_to_dict_is_the_json_of_the_api() -> None:
    got = RunPage((RUN,), Pagination(7)).to_dict()
    assert got["pagination"] == {"total": 7, "offset": None, "limit": None}
    (run,) = got["data"]
    assert set(run) == set(CONTRACT[JobRun])
    assert run["createdAt"] == 1_719_230_400_123
    assert type(run["status"]) is str
    assert run["triggeredBySubject"]["subjectType"] == "external-identity"
    assert run["error"] is None


@pytest.mark.parametrize(
    "error",
    [
        tfruns.ConfigurationError("no host"),
        tfruns.ClientClosedError(),
        tfruns.APITimeoutError("late", job_id="j", offset=5),
        tfruns.DecodeError("odd", job_id="j", offset=5, problems=(tfruns.FieldProblem("id", "is missing", 7, "r"),)),
        tfruns.IncompleteWalkError("it changes too fast", job_id="j", offset=5, seen=3, total=9),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("twin_of", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])  # noqa: S301
def test_an_error_survives_pickling_and_copying(
    error: tfruns.TfRunsError, twin_of: Callable[[tfruns.TfRunsError], tfruns.TfRunsError]
) -> None:
    twin = twin_of(error)
    assert twin is not error
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


def test_errors_survive_pickling() -> None:
    body = tfruns.models.HttpError(404, "no such job", "E1", [{"a": 1}])
    error = tfruns.NotFoundError(body=body, reason="Not Found", headers=CIMultiDict({"X-Request-Id": "r1"}))
    error.job_id, error.offset, error.attempts = "j", 5, 3
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(twin) is tfruns.NotFoundError
    assert str(twin) == str(error) == "job 'j', offset 5: 404 Not Found: no such job (request id r1) (after 3 attempts)"
    assert vars(twin) == vars(error)


def test_a_page_gives_its_runs() -> None:
    runs = tuple(
        tfruns.JobRun(
            id=id_, name="n", application_name="a", deployment_version="1", created_at=1, command="c", status="RUNNING"
        )
        for id_ in ("a", "b")
    )
    page = tfruns.RunPage(runs, tfruns.Pagination(2))
    assert [*page] == [*runs]
    assert all(run in page for run in runs)
