"""Every public name says what it is, what it takes, gives and raises, and shows how it is used."""

import ast
import inspect
import pydoc
import re

import pytest
import yaml

import tfruns
from tests.support import documented, surface
from tests.support.contract import FILE as CONTRACT
from tests.support.documented import Documented

pytest.importorskip("pyspark")
pytestmark = pytest.mark.spark  # the source for Spark is a part of what is public

EVERYTHING = [*documented.documented()]
SPARK_CALLS = re.compile(r"tfruns\.spark\.TfRunsDataSource\.\w+")
CAN_NOT_FAIL = {"tfruns.sandbox.Sandbox.aclose", "tfruns.types.RunFilter.is_within"}


def of_each(*chosen: Documented) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("one", chosen, ids=[one.name for one in chosen])


@of_each(*EVERYTHING)
def test_the_first_line_is_a_sentence_that_sums_it_up(one: Documented) -> None:
    summary, *rest = one.doc.split("\n")
    assert re.search(r"\.$", summary), f"the first line of its docstring is {summary!r}"
    assert len(summary) <= 115
    assert not rest or not rest[0]


@of_each(*(one for one in EVERYTHING if not one.is_member))
def test_it_says_since_when_it_is_there(one: Documented) -> None:
    assert re.search(r"\.\. versionadded:: 0\.[12]\.0", one.doc)


OF_ITER_RUNS = next(one for one in EVERYTHING if one.name == "tfruns.Client.iter_runs").entries("Args")


@of_each(*(one for one in EVERYTHING if one.parameters))
def test_each_argument_is_explained_in_the_order_of_the_signature(one: Documented) -> None:
    """Those that `iter_runs` explains may be left to it."""
    explained = one.entries("Args")
    assert explained == [name for name in one.parameters if name in explained]
    left = set(one.parameters) - set(explained)
    assert left <= set(OF_ITER_RUNS)
    assert not left or "`iter_runs`" in one.doc or "`Client.iter_runs`" in one.doc


@of_each(*(one for one in EVERYTHING if one.is_class and surface.instance_attributes(one.value)))
def test_each_attribute_is_explained(one: Documented) -> None:
    assert one.entries("Attributes") == surface.instance_attributes(one.value)


@of_each(*(one for one in EVERYTHING if one.is_class and surface.fields(one.value)))
def test_the_help_of_each_field_is_its_docstring(one: Documented) -> None:
    missing = [field.name for field in surface.fields(one.value) if not inspect.getdoc(getattr(one.value, field.name))]
    assert not missing


def test_help_shows_them() -> None:
    text = pydoc.plain(pydoc.render_doc(tfruns.Subject))
    assert "subject_slug\n |      Readable id: an e-mail address, or the account's name.\n" in text


@of_each(*(one for one in EVERYTHING if one.is_asked and one.name not in CAN_NOT_FAIL))
def test_what_it_raises_is_said(one: Documented) -> None:
    assert one.section("Raises")


@of_each(*(one for one in EVERYTHING if one.is_asked and not SPARK_CALLS.fullmatch(one.name)))
def test_what_it_gives_is_said(one: Documented) -> None:
    gives = inspect.signature(one.value).return_annotation
    if gives is not None:
        assert one.section("Yields") or one.section("Returns")


@of_each(
    *(
        one
        for one in EVERYTHING
        if not SPARK_CALLS.fullmatch(one.name)
        and (one.is_asked or (one.is_class and (not one.is_error or surface.instance_attributes(one.value))))
    )
)
def test_how_it_is_used_is_shown(one: Documented) -> None:
    assert one.section("Example").startswith(">>> ")


def test_what_is_said_of_the_contract_is_in_the_contract() -> None:
    contract = yaml.safe_load(CONTRACT.read_text())
    schemas, operations = set(), set()
    for text, _ in documented.sources():
        schemas |= set(re.findall(r"\(contract: `(\w+)`\)", text))
        operations |= set(re.findall(r"Contract: .*`(GET|POST) (/\S+)`", text))
    assert {"JobRun", "JobRunStatus", "HttpError"} < schemas <= contract["components"]["schemas"].keys()
    assert operations == {("GET", "/api/svc/v1/jobs/{jobId}/runs")}
    assert all(method.lower() in contract["paths"][path] for method, path in operations)


@of_each(
    *(
        one
        for one in EVERYTHING
        if one.name.startswith("tfruns.Client.") and one.name.rpartition(".")[2].endswith(("_runs", "_run", "_for"))
    )
)
def test_each_method_that_requests_names_its_operation_of_the_contract(one: Documented) -> None:
    assert re.search(r"^Contract: ", one.doc, re.MULTILINE)


def test_the_fixtures_of_the_plugin_are_explained() -> None:
    assert all((ast.get_docstring(node) or "").split("\n")[0].endswith(".") for _, node in surface.fixtures())
