"""From plain JSON to a model; and the models for pydantic, and so FastAPI, which are checked in the same way."""

import ast
import functools
import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from types import GenericAlias
from typing import TYPE_CHECKING, Any, get_args, get_origin

import attrs

from tfruns import models
from tfruns._decode.explain import first_of, structured
from tfruns._payload import Interchange
from tfruns.errors import DecodeError, FieldProblem

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler


def structure(value: Any, model: Any) -> Any:
    """The model that plain JSON describes, or a `DecodeError` that names every bad field."""
    made, problems = structured(value, model)
    if problems:
        raise DecodeError(f"the {model.__name__} can't be understood: {first_of(problems)}", problems=problems)
    # The converter makes a `JobRun` for a subclass of it.
    return made if isinstance(made, model) else model(**attrs.asdict(made, recurse=False))


def core_schema(model: Any, handler: "GetCoreSchemaHandler") -> Any:
    """What pydantic needs to validate a model by `structure`, and to write it with the API's names."""
    from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError
    from pydantic_core import core_schema as core

    fields = {models.wire_name(field.name): field for field in attrs.fields(model)}

    def validate(value: Any, _: Callable[[Any], Any]) -> Any:
        if isinstance(value, model):
            return value
        try:
            return structure(value, model)
        except DecodeError as error:
            problems = error.problems
        lines = []
        for problem in problems:
            path = _path(problem)
            kind = PydanticCustomError("tfruns", "{reason}", {"reason": problem.reason})
            lines.append(InitErrorDetails(type=kind, loc=path, input=_found(value, path)))
        raise ValidationError.from_exception_data(model.__name__, lines)

    def dump(value: Any, write: Callable[[Any], Any]) -> Any:
        wire = {name: getattr(value, field.name) for name, field in fields.items()}
        return write({name: [*value] if isinstance(value, tuple) else value for name, value in wire.items()})

    shapes = {}
    for name, field in fields.items():
        is_tuple = get_origin(field.type) is tuple  # which JSON has as a list
        type_: Any = GenericAlias(list, get_args(field.type)[0]) if is_tuple else field.type
        is_required = field.default is attrs.NOTHING
        shapes[name] = core.typed_dict_field(handler.generate_schema(type_), required=is_required)
    shape = core.typed_dict_schema(shapes)
    return core.no_info_wrap_validator_function(
        validate,
        shape,
        serialization=core.wrap_serializer_function_ser_schema(dump, schema=shape),
        ref=f"{model.__module__}.{model.__qualname__}:{id(model)}",
    )


def _path(problem: FieldProblem) -> tuple[str | int, ...]:
    before = () if problem.position is None else ("data", problem.position)
    return (*before, *(problem.field.split(".") if problem.field.isalnum() or "." in problem.field else ()))


def _found(value: Any, path: tuple[str | int, ...]) -> Any:
    """What is at a path in plain JSON, or the object in which it is missing."""
    with suppress(LookupError, TypeError):
        for step in path:
            value = value[step]
    return value


def json_schema(model: Any, schema: Any, handler: "GetJsonSchemaHandler") -> Any:
    """The JSON schema of a model or an enum, with what its docstrings say."""
    made = handler(schema)
    described = handler.resolve_ref_schema(made)
    docs, names = _docs(), [cls.__name__ for cls in model.__mro__]

    def documented(field: str = "") -> str:
        return next((docs[name + field] for name in names if name + field in docs), "")

    text = inspect.cleandoc(vars(model).get("__doc__") or documented())
    described["title"] = model.__name__
    described["description"] = re.sub(r"( \(contract: `\w+`\))?\.( .*)?$", ".", text.partition("\n")[0])
    if hasattr(model, "is_known"):  # an open enum, with the values that are known now
        described["anyOf"] = [{"type": "string", "enum": described.pop("enum")}, {"type": described.pop("type")}]
    for field in attrs.fields(model) if attrs.has(model) else ():
        shown = described["properties"][models.wire_name(field.name)]
        shown.pop("title", None)
        shown["description"] = documented(f".{field.name}")
    return made


@functools.cache
def _docs() -> dict[str, str]:
    """The docstrings of the models and those below their fields, from their source: Python keeps the latter in no
    other place, and with `-OO` neither."""
    docs = {}
    with suppress(OSError):  # a program that is shipped without its source
        for cls in ast.parse(inspect.getsource(models)).body:
            if isinstance(cls, ast.ClassDef):
                docs[cls.name] = ast.get_docstring(cls) or ""
                for field, text in zip(cls.body, cls.body[1:], strict=False):
                    match field, text:
                        case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(doc))):
                            docs[f"{cls.name}.{name}"] = " ".join(doc.split())
    return docs


Interchange.structure = structure
Interchange.core_schema = core_schema
Interchange.json_schema = json_schema
