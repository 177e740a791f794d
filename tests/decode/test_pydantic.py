"""pydantic takes the models as they are: it validates by our converter, and writes the JSON of the API."""

import json
import subprocess
import sys
from typing import Annotated, Any

import attrs
import fastapi
import pydantic
import pytest

import tfruns
from tests.support.contract import FILE as CONTRACT
from tfruns._decode import schema
from tfruns.models import wire_name

SUBJECT = tfruns.Subject(subject_id="s", subject_type=tfruns.SubjectType("agent"), subject_slug="jane")
RUN = tfruns.JobRun(
    id="1",
    name="train-1",
    application_name="app",
    deployment_version="3",
    created_at=1_719_230_400_123,
    end_time=1_719_230_460_123.5,
    command="python train.py",
    status=tfruns.JobRunStatus("PAUSED"),
    triggered_by_subject=SUBJECT,
)
PAGE = tfruns.RunPage((RUN,), tfruns.Pagination(7, limit=1))
VALUES = [RUN, SUBJECT, PAGE, PAGE.pagination]


class Report(pydantic.BaseModel):
    """A model of a user's."""

    title: str
    run: tfruns.JobRun
    page: tfruns.RunPage | None = None
    status: tfruns.JobRunStatus = tfruns.JobRunStatus.FAILED


@pytest.mark.parametrize("value", VALUES, ids=type)
def test_what_pydantic_writes_is_the_json_of_the_api_and_reads_back_as_the_same_value(value: Any) -> None:
    adapter = pydantic.TypeAdapter(type(value))
    text = adapter.dump_json(value)
    assert json.loads(text) == value.to_dict()
    assert adapter.dump_python(value, mode="json") == value.to_dict()
    assert adapter.validate_json(text) == adapter.validate_python(value.to_dict()) == value
    assert adapter.validate_python(value) is value


def test_numbers_are_written_as_they_came() -> None:
    text = pydantic.TypeAdapter(tfruns.JobRun).dump_json(RUN)
    assert b'"createdAt":1719230400123,' in text
    assert b'"endTime":1719230460123.5,' in text


def test_a_field_of_a_users_model() -> None:
    report = Report(title="t", run=RUN, page=PAGE.to_dict(), status="PAUSED")
    assert report.run is RUN
    assert report.page == PAGE
    assert report.status == "PAUSED"
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert Report.model_validate(report.model_dump()) == report


def test_fields_may_be_chosen_and_absent_ones_left_out() -> None:
    adapter = pydantic.TypeAdapter(tfruns.RunPage)
    assert adapter.dump_python(PAGE, include={"pagination"}, exclude_none=True) == {
        "pagination": {"total": 7, "limit": 1}
    }
    (run,) = adapter.dump_python(PAGE, exclude={"data": {"__all__": {"command"}}}, mode="json", exclude_none=True)[
        "data"
    ]
    assert run.keys() == {name for name, value in RUN.to_dict().items() if value is not None} - {"command"}


def test_older_servers_are_understood_and_newer_fields_ignored() -> None:
    old = {**RUN.to_dict(), "deploymentVersion": 3, "duration": "60", "novelty": 1}
    del old["totalRetries"]
    run = pydantic.TypeAdapter(tfruns.JobRun).validate_python(old)
    assert run == attrs.evolve(RUN, duration=60)


def test_an_error_names_each_bad_field_where_it_is_and_shows_no_more_of_it() -> None:
    wire = PAGE.to_dict()
    wire["data"][0]["status"] = 5
    wire["data"][0]["triggeredBySubject"]["subjectType"] = None
    del wire["data"][0]["name"]
    with pytest.raises(pydantic.ValidationError) as caught:
        Report(title="t", run=RUN, page=wire)
    problems = {problem["loc"]: (problem["msg"], problem["input"]) for problem in caught.value.errors()}
    assert problems == {
        ("page", "data", 0, "status"): ("expected a string, got 5", 5),
        ("page", "data", 0, "triggeredBySubject", "subjectType"): ("expected a string, got null", None),
        ("page", "data", 0, "name"): ("is missing", wire["data"][0]),
    }


@pytest.mark.parametrize("value", [None, 5, "run", [], RUN])
def test_what_is_no_object_is_refused_as_a_whole(value: Any) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(tfruns.Subject).validate_python(value)
    [problem] = caught.value.errors()
    assert (problem["loc"], problem["input"]) == ((), value)


def test_a_subclass_stays_itself() -> None:
    class Named(tfruns.JobRun):
        @property
        def label(self) -> str:
            return f"{self.name} {self.status}"

    assert pydantic.TypeAdapter(Named).validate_python(RUN.to_dict()).label == "train-1 PAUSED"
    assert pydantic.TypeAdapter(Named).json_schema()["properties"]["id"]["description"]


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_the_json_schema_has_each_field_of_the_contract_with_its_type_and_meaning(mode: Any) -> None:
    contract = pytest.importorskip("yaml").safe_load(CONTRACT.read_text())["components"]["schemas"]
    schema = pydantic.TypeAdapter(tfruns.RunPage).json_schema(mode=mode)
    shapes = {"ListJobRunResponse": schema, **schema["$defs"]}
    assert shapes.keys() == {"ListJobRunResponse", "JobRun", "Subject", "Pagination", "JobRunStatus", "SubjectType"}
    for name in ("ListJobRunResponse", "JobRun", "Subject", "Pagination"):
        shape, wanted = shapes[name], contract[name]
        assert shape["properties"].keys() == wanted["properties"].keys()
        assert set(shape["required"]) == set(wanted["required"]) - {"totalRetries"}
        for field, described in shape["properties"].items():
            assert described["description"].endswith((".", ")")), field
            types = {one.get("type", "object") for one in described.get("anyOf", [described])}
            meant = wanted["properties"][field].get("type", "object")
            assert meant in types, (field, types)


def test_an_enum_stays_open_in_the_json_schema() -> None:
    validator = pytest.importorskip("jsonschema_rs").validator_for(pydantic.TypeAdapter(tfruns.JobRun).json_schema())
    assert validator.is_valid(RUN.to_dict())
    assert not validator.is_valid({**RUN.to_dict(), "status": 5})
    known = pydantic.TypeAdapter(tfruns.JobRunStatus).json_schema()["anyOf"][0]["enum"]
    assert known == [member.value for member in tfruns.JobRunStatus]


def test_every_description_is_that_of_the_field_and_not_of_another_class() -> None:
    schema = pydantic.TypeAdapter(tfruns.JobRun).json_schema()
    assert schema["title"] == "JobRun"
    assert schema["description"] == "One run of a job."
    assert schema["properties"]["id"]["description"] == "Id of the run, made by the system."
    assert [wire_name(field.name) for field in attrs.fields(tfruns.JobRun)] == [*schema["properties"]]


def test_descriptions_are_there_without_docstrings_and_the_schema_without_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python with `-OO`, and programs that are shipped without their source."""
    show = "import pydantic, tfruns; print(pydantic.TypeAdapter(tfruns.JobRun).json_schema()['description'])"
    done = subprocess.run([sys.executable, "-OO", "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout == "One run of a job.\n"
    whole = pydantic.TypeAdapter(tfruns.RunPage).json_schema()
    monkeypatch.setattr("linecache.getlines", lambda *_: [])
    schema._docs.cache_clear()
    bare = pydantic.TypeAdapter(tfruns.RunPage).json_schema()
    schema._docs.cache_clear()
    assert bare["properties"]["data"] == whole["properties"]["data"] | {"description": ""}


def test_the_enums_of_filters_stay_closed_and_say_what_they_are() -> None:
    assert pydantic.TypeAdapter(tfruns.SortDirection).json_schema() == {
        "title": "SortDirection",
        "type": "string",
        "enum": ["asc", "desc"],
        "description": "Which way to sort.",
    }


def test_collected_lists_are_lists_of_runs() -> None:
    runs = tfruns.RunList([RUN], job_id="job")
    assert pydantic.TypeAdapter(tfruns.RunList).dump_python(runs, mode="json") == [RUN.to_dict()]
    pairs = pydantic.TypeAdapter(tfruns.JobsRunList)
    assert pairs.validate_json(pairs.dump_json(tfruns.JobsRunList([("job", RUN)]))) == [("job", RUN)]


def test_a_collected_list_in_a_users_model_is_still_a_table() -> None:
    """A field has what its annotation says: `to_arrow`, and the job."""

    class Collected(pydantic.BaseModel):
        runs: tfruns.RunList
        pairs: tfruns.JobsRunList = pydantic.Field(default_factory=tfruns.JobsRunList)

    made = Collected(runs=tfruns.RunList([RUN], job_id="job"), pairs=[("job", RUN.to_dict())])
    assert (made.runs.job_id, made.pairs.to_arrow().num_rows) == ("job", 1)
    again = Collected.model_validate_json(made.model_dump_json())
    assert (again, type(again.runs), type(again.pairs)) == (made, tfruns.RunList, tfruns.JobsRunList)
    with pytest.raises(pydantic.ValidationError) as caught:
        Collected(runs=[RUN.to_dict() | {"id": 3}])
    assert caught.value.errors()[0]["loc"] == ("runs", 0, "id")


def test_a_body_of_fastapi() -> None:
    app = fastapi.FastAPI()

    @app.post("/runs")
    async def post(run: Annotated[tfruns.JobRun, fastapi.Body()]) -> list[tfruns.JobRun]:
        return [run]

    operation = app.openapi()["paths"]["/runs"]["post"]
    run = {"$ref": "#/components/schemas/JobRun"}
    assert operation["requestBody"]["content"]["application/json"]["schema"] == run
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["items"] == run


def test_an_error_from_a_page_full_of_problems_stays_short() -> None:
    page = {"data": [{"id": str(number)} for number in range(1_000)], "pagination": {"total": 1_000}}
    with pytest.raises(tfruns.DecodeError, match="and 5995 more, in `problems`") as caught:
        tfruns.RunPage.from_dict(page)
    assert len(str(caught.value)) < 1_000
    assert len(caught.value.problems) == 6_000
