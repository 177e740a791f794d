"""Every public name says what it is, what it takes, gives and raises, and shows how it is used. griffe reads it all."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import griffe
import pytest
import yaml

from tests.support.contract import FILE as CONTRACT
from tests.support.examples import sources
from tests.support.surface import ROOT, public_members, public_names

OF_SPARK = re.compile(r"tfruns\.spark\.TfRunsDataSource\.")
CAN_NOT_FAIL = {"tfruns.sandbox.Sandbox.aclose", "tfruns.types.RunFilter.is_within"}


def everything() -> Iterator[tuple[str, griffe.Object]]:
    """Each public class and function, and each public method and property, by the name that users know it by."""
    for name, one in public_names().items():
        if one.is_class or one.is_function:
            yield name, one
        for member in public_members(one).values() if isinstance(one, griffe.Class) else ():
            if member.name[0] != "_" and (member.is_function or "property" in member.labels):
                yield f"{name}.{member.name}", member


def doc_of(one: griffe.Object) -> str:
    return "" if one.docstring is None else one.docstring.value


def sections(one: griffe.Object, *kinds: str) -> list[griffe.DocstringSection]:
    """The sections of these kinds in its docstring."""
    parsed = [] if one.docstring is None else one.docstring.parsed
    return [section for section in parsed if section.kind.value in kinds]


def explained(one: griffe.Object, kind: str) -> list[str]:
    """The names that its sections of this kind explain, in their order."""
    return [entry.name for section in sections(one, kind) for entry in section.value]


def parameters(one: griffe.Object) -> list[str]:
    """The names of its arguments; for a class that users make, those of its constructor."""
    if isinstance(one, griffe.Class) and not sections(one, "parameters"):
        return []
    given = one.parameters if isinstance(one, (griffe.Class, griffe.Function)) else ()
    return [parameter.name for parameter in given if parameter.name not in ("self", "cls")]


def attributes(one: griffe.Object) -> list[str]:
    """The public attributes that the constructor of a class sets."""
    members = public_members(one).values() if isinstance(one, griffe.Class) else ()
    return [
        member.name
        for member in members
        if isinstance(member, griffe.Attribute) and member.labels == {"instance-attribute"} and member.value is not None
    ]


EVERYTHING = dict(everything())
CALLS = [name for name, one in EVERYTHING.items() if one.is_function and ("async" in one.labels or parameters(one))]
CLASSES = [name for name, one in EVERYTHING.items() if one.is_class]


def of_each(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("one", [EVERYTHING[name] for name in names], ids=names)


@of_each(*EVERYTHING)
def test_the_first_line_is_a_sentence_that_sums_it_up(one: griffe.Object) -> None:
    summary, *rest = doc_of(one).split("\n")
    assert re.search(r"\.$", summary), f"the first line of its docstring is {summary!r}"
    assert len(summary) <= 115
    assert not rest or not rest[0]


@of_each(*(name for name in EVERYTHING if name in public_names()))
def test_it_says_since_when_it_is_there(one: griffe.Object) -> None:
    assert re.search(r"\.\. versionadded:: 0\.[12]\.0", doc_of(one))


@of_each(*(name for name, one in EVERYTHING.items() if parameters(one)))
def test_each_argument_is_explained_in_the_order_of_the_signature(one: griffe.Object) -> None:
    """Those that `iter_runs` explains may be left to it."""
    names = explained(one, "parameters")
    assert names == [name for name in parameters(one) if name in names]
    left = set(parameters(one)) - set(names)
    assert left <= set(explained(EVERYTHING["tfruns.Client.iter_runs"], "parameters"))
    assert not left or "`iter_runs`" in doc_of(one) or "`Client.iter_runs`" in doc_of(one)


@of_each(*(name for name, one in EVERYTHING.items() if attributes(one)))
def test_each_attribute_is_explained(one: griffe.Object) -> None:
    assert explained(one, "attributes") == attributes(one)


@of_each(*(name for name in CALLS if name not in CAN_NOT_FAIL))
def test_what_it_raises_is_said(one: griffe.Object) -> None:
    assert sections(one, "raises")


@of_each(*(name for name in CALLS if not OF_SPARK.match(name)))
def test_what_it_gives_is_said(one: griffe.Object) -> None:
    assert isinstance(one, griffe.Function)
    assert str(one.returns) == "None" or sections(one, "yields", "returns")


@of_each(
    *(name for name in CALLS if not OF_SPARK.match(name)),
    *(name for name in CLASSES if not name.endswith("Error") or attributes(EVERYTHING[name])),
)
def test_how_it_is_used_is_shown(one: griffe.Object) -> None:
    examples = [section.value for section in sections(one, "admonition") if section.value.kind == "example"]
    assert [example.description.startswith(">>> ") for example in examples] == [True]


def test_what_is_said_of_the_contract_is_in_the_contract() -> None:
    contract = yaml.safe_load(CONTRACT.read_text())
    schemas, operations = set(), set()
    for text, _ in sources():
        schemas |= set(re.findall(r"\(contract: `(\w+)`\)", text))
        operations |= set(re.findall(r"Contract: .*`(GET|POST) (/\S+)`", text))
    assert {"JobRun", "JobRunStatus", "HttpError"} < schemas <= contract["components"]["schemas"].keys()
    assert operations == {("GET", "/api/svc/v1/jobs/{jobId}/runs")}
    assert all(method.lower() in contract["paths"][path] for method, path in operations)


@of_each(*(name for name in CALLS if re.fullmatch(r"tfruns\.Client\.\w+_(runs?|for)", name)))
def test_each_method_that_requests_names_its_operation_of_the_contract(one: griffe.Object) -> None:
    assert re.search(r"^Contract: ", doc_of(one), re.MULTILINE)


def test_the_fixtures_of_the_plugin_are_explained() -> None:
    nodes = ast.parse(Path(ROOT, "tfruns/pytest_plugin.py").read_text()).body
    fixtures = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.decorator_list]
    assert [node.name for node in fixtures if "fixture" in ast.unparse(node.decorator_list[0])] == [
        "tfruns_sandbox",
        "tfruns_client",
    ]
    assert all((ast.get_docstring(node) or "").split("\n")[0].endswith(".") for node in fixtures)
