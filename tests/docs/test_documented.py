"""Every public name says what it is, what it takes, gives and raises, and shows how it is used. griffe reads it all."""

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import griffe

import tfruns
from tests.support.contract import contract_of
from tests.support.examples import sources
from tests.support.readme import DOCS
from tests.support.surface import ROOT, public_members, public_names
from tfruns import errors
from tfruns.sandbox import Fault

OF_SPARK = re.compile(r"tfruns\.spark\.TfRunsDataSource\.")
CAN_NOT_FAIL = {"tfruns.sandbox.Sandbox.aclose"}


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
    return [entry.name.lstrip("*") for section in sections(one, kind) for entry in section.value]


def parameters(one: griffe.Object) -> list[str]:
    """The names of its arguments; for a class that users make, those of its constructor."""
    if isinstance(one, griffe.Class) and not sections(one, "parameters"):
        return []
    given = one.parameters if isinstance(one, (griffe.Class, griffe.Function)) else ()
    return [parameter.name for parameter in given if parameter.name not in ("self", "cls", "_others")]


def attributes(one: griffe.Object) -> list[str]:
    """The public attributes that the constructor of a class sets."""
    members = public_members(one).values() if isinstance(one, griffe.Class) else ()
    return [
        member.name
        for member in members
        if isinstance(member, griffe.Attribute) and member.labels == {"instance-attribute"} and member.value is not None
    ]


@functools.cache
def all_of_it() -> dict[str, griffe.Object]:
    return dict(everything())


def calls() -> dict[str, griffe.Object]:
    """What is called, and takes arguments or is awaited."""
    return {
        name: one for name, one in all_of_it().items() if one.is_function and ("async" in one.labels or parameters(one))
    }


def of_ours(names: dict[str, griffe.Object]) -> dict[str, griffe.Object]:
    """Without what Spark defines."""
    return {name: one for name, one in names.items() if not OF_SPARK.match(name)}


def without(names: dict[str, griffe.Object], is_said: Callable[[griffe.Object], object]) -> list[str]:
    """The names of those of which it isn't said."""
    assert names
    return [name for name, one in names.items() if not is_said(one)]


def test_the_first_line_is_a_sentence_that_sums_it_up() -> None:
    def is_summed_up(one: griffe.Object) -> bool:
        summary, *rest = doc_of(one).split("\n")
        return summary.endswith(".") and len(summary) <= 115 and not (rest and rest[0])

    assert without(all_of_it(), is_summed_up) == []


def test_each_argument_is_explained_in_the_order_of_the_signature() -> None:
    """Those that `iter_runs` explains may be left to it."""
    of_iter_runs = set(explained(all_of_it()["tfruns.Client.iter_runs"], "parameters"))

    def are_explained(one: griffe.Object) -> bool:
        names = explained(one, "parameters")
        left = set(parameters(one)) - set(names)
        refers = "`iter_runs`" in doc_of(one) or "`Client.iter_runs`" in doc_of(one)
        in_order = names == [name for name in parameters(one) if name in names]
        return in_order and left <= of_iter_runs and (not left or refers)

    assert without({name: one for name, one in all_of_it().items() if parameters(one)}, are_explained) == []


def test_each_attribute_is_explained() -> None:
    classes = {name: one for name, one in all_of_it().items() if attributes(one)}
    assert without(classes, lambda one: explained(one, "attributes") == attributes(one)) == []


def test_what_it_raises_is_said() -> None:
    may_fail = {name: one for name, one in calls().items() if name not in CAN_NOT_FAIL}
    assert without(may_fail, lambda one: sections(one, "raises")) == []


def test_what_it_gives_is_said() -> None:
    def is_said(one: griffe.Object) -> bool:
        assert isinstance(one, griffe.Function)
        return str(one.returns) == "None" or bool(sections(one, "yields", "returns"))

    assert without(of_ours(calls()), is_said) == []


def test_how_it_is_used_is_shown() -> None:
    def is_shown(one: griffe.Object) -> bool:
        examples = [section.value for section in sections(one, "admonition") if section.value.kind == "example"]
        return [example.description.startswith(">>> ") for example in examples] == [True]

    classes = {name: one for name, one in all_of_it().items() if one.is_class}
    need_one = {name: one for name, one in classes.items() if not name.endswith("Error") or attributes(one)}
    assert without({**of_ours(calls()), **need_one}, is_shown) == []


def test_what_is_said_of_the_contract_is_in_the_contract() -> None:
    contract = contract_of()
    schemas, operations = set(), set()
    for text, _ in sources():
        schemas |= set(re.findall(r"\(contract: `(\w+)`\)", text))
        operations |= set(re.findall(r"Contract: .*`(GET|POST) (/\S+)`", text))
    assert {"JobRun", "JobRunStatus", "HttpError"} < schemas <= contract["components"]["schemas"].keys()
    assert operations == {("GET", "/api/svc/v1/jobs/{jobId}/runs")}
    assert all(method.lower() in contract["paths"][path] for method, path in operations)


def test_each_method_that_requests_names_its_operation_of_the_contract() -> None:
    methods = {name: one for name, one in calls().items() if re.fullmatch(r"tfruns\.Client\.\w+_(runs?|for)", name)}
    assert without(methods, lambda one: re.search(r"^Contract: ", doc_of(one), re.MULTILINE)) == []


def test_the_tree_of_errors_has_each_one_below_its_base() -> None:
    drawn: list[str] = []
    pairs = set()
    for branch, name in re.findall(r"^ {4}((?:[│├└ ].{3})*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE):
        drawn[len(branch) // 4 :] = [name]
        pairs.add((name, drawn[-2] if branch else "Exception"))
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.TfRunsError)]
    assert pairs == {(one.__name__, one.__bases__[0].__name__) for one in classes}


def test_the_reference_has_each_public_name_and_each_field_and_nothing_private() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    headings = set(re.findall(r"^#+ (tfruns\S*)", pages, re.MULTILINE))
    assert public_names().keys() <= headings
    assert not [name for name in headings if "._" in name.replace("__version__", "")]
    listed = set(re.findall(r"^- `(\w+)`: .", pages, re.MULTILINE))
    classes = [tfruns.JobRun, tfruns.Subject, tfruns.RunChange, tfruns.RetryPolicy, tfruns.ResponseEvent, Fault]
    assert {name for one in classes for name in attrs.fields_dict(one) if name[0] != "_"} <= listed
    assert {member.name for one in (tfruns.JobRunStatus, tfruns.SubjectType) for member in one} <= listed
    assert "`(job_id, page)`: those of one job in the server's order" in pages  # what a function gives is prose


def test_the_fixtures_of_the_plugin_are_explained() -> None:
    nodes = ast.parse(Path(ROOT, "tfruns/pytest_plugin.py").read_text()).body
    fixtures = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.decorator_list]
    assert [node.name for node in fixtures if "fixture" in ast.unparse(node.decorator_list[0])] == [
        "tfruns_sandbox",
        "tfruns_client",
    ]
    assert all((ast.get_docstring(node) or "").split("\n")[0].endswith(".") for node in fixtures)
