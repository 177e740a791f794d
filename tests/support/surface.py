"""The public surface of tfruns, as text: each name that users may rely on, with its signature.

`python -m tests.support.surface` writes it to `surface.txt`, for a change of it that is meant; a test compares both.
"""

import ast
import enum
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec

FILE = Path(__file__).with_name("surface.txt")
MODULES = ("tfruns", "tfruns.arrow", "tfruns.export", "tfruns.otel", "tfruns.sandbox", "tfruns.spark", "tfruns.types")
PLUGIN = "tfruns.pytest_plugin"
PROTOCOLS = ("__aenter__", "__aexit__", "__aiter__")


def surface() -> str:
    """All of it. The same on every version of Python: no reprs of the interpreter's own, no addresses."""
    blocks: list[str] = []
    for name, fixture in fixtures():
        blocks.append(f"{PLUGIN}: fixture {name} -> {ast.literal_eval(fixture.returns)}")  # type: ignore[arg-type]
    for module, name, value in public_names():
        if inspect.isclass(value):
            blocks.append("\n    ".join([f"{module}: {_head(value)}", *_members(value)]))
        elif inspect.isfunction(value):
            blocks.append(f"{module}: {_function(name, value)}")
        elif typing.get_origin(value) is not None or isinstance(value, types.UnionType):
            blocks.append(f"{module}: {name} = {_type(value)}")
        else:
            blocks.append(f"{module}: {name}: {type(value).__name__}")
    return "\n\n".join(blocks) + "\n"


def public_names() -> Iterator[tuple[str, str, Any]]:
    """Module, name and value of each public name, module after module, in the order of the alphabet."""
    for path in MODULES:
        module = importlib.import_module(path)
        for name in sorted(module.__all__):
            yield path, name, getattr(module, name)


def fixtures() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Name and definition of each fixture of the plugin. (What pytest makes of them differs by its version.)"""
    source = Path(inspect.getsourcefile(importlib.import_module(PLUGIN)) or "").read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            yield node.name, node


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Name and definition of each public attribute but fields that a class adds to its public bases."""
    named = {
        name: value
        for base in reversed(own(cls))
        for name, value in vars(base).items()
        if not name.startswith("_") or name in PROTOCOLS
    }
    taken = {field.name for field in attrs.fields(cls)} if attrs.has(cls) else set()
    return ((name, value) for name, value in sorted(named.items()) if name not in taken)


def fields(cls: Any) -> "list[attrs.Attribute[Any]]":
    """The public fields that an attrs class adds to its public bases, in their order."""
    if not attrs.has(cls):
        return []
    inherited = {field.name for base in cls.__bases__ if is_public(base) and attrs.has(base) for field in fields(base)}
    return [field for field in attrs.fields(cls) if field.name[0] != "_" and field.name not in inherited]


def instance_attributes(cls: type) -> list[str]:
    """The public attributes that the constructor of a class adds to those of its public bases."""
    sources = (inspect.getsource(vars(base)["__init__"]) for base in own(cls) if _has_constructor(base))
    return re.findall(r"^ +self\.([a-z]\w*)(?::.*)? = ", "".join(sources), re.MULTILINE)


def own(cls: type) -> list[type]:
    """The class, and those of its bases that are nobody's business: what they define is the class's own."""
    return [
        base for base in cls.__mro__ if base is cls or (base.__module__.startswith("tfruns") and not is_public(base))
    ]


def is_public(cls: type) -> bool:
    """Whether it is a public class of tfruns."""
    return cls.__module__.startswith("tfruns") and any(value is cls for _, _, value in public_names())


def _has_constructor(cls: type) -> bool:
    return inspect.isfunction(vars(cls).get("__init__")) and not attrs.has(cls)


def _head(cls: type) -> str:
    bases = ", ".join(base.__name__ for base in _bases(cls))
    return f"class {cls.__name__}({bases})" if bases else f"class {cls.__name__}"


def _bases(cls: type) -> Iterator[type]:
    for base in cls.__bases__:
        if base is msgspec.Struct:  # how payloads are made, and nobody's business
            continue
        if is_public(base) or not base.__module__.startswith("tfruns"):
            yield from () if base is object else (base,)
        else:
            yield from _bases(base)


def _members(cls: Any) -> Iterator[str]:
    if issubclass(cls, enum.Enum):
        yield from (f"{member.name} = {member.value!r}" for member in cls)
    by_keyword = False
    for field in fields(cls):
        if field.kw_only and not by_keyword:
            by_keyword = True
            yield "*"
        yield f"{field.name}: {_type(field.type)}{_default(field.default, attrs.NOTHING)}"
    if any(map(_has_constructor, own(cls))):
        yield _function("__init__", cls.__init__)
    yield from (f"self.{name}" for name in instance_attributes(cls))
    for name, value in members(cls):
        if isinstance(value, property):
            assert value.fget is not None
            returns = _type(inspect.signature(value.fget).return_annotation)
            yield f"property {name} -> {returns}{'' if value.fset is None else ' (can be set)'}"
        elif isinstance(value, (classmethod, staticmethod)):
            yield f"{type(value).__name__} {_function(name, value.__func__)}"
        elif inspect.isfunction(value):
            yield _function(name, value)
        elif not isinstance(value, enum.Enum):
            yield f"{name}: {type(value).__name__}"


def _function(name: str, function: Callable[..., Any]) -> str:
    parameters = [*inspect.signature(function).parameters.values()]
    parts = [_parameter(parameter) for parameter in parameters]
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parts.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    head = f"{'async def' if inspect.iscoroutinefunction(function) else 'def'} {name}"
    returns = _type(inspect.signature(function).return_annotation)
    if len(line := f"{head}({', '.join(parts)}) -> {returns}") <= 100:
        return line
    return "\n        ".join([f"{head}(", *(f"{part}," for part in parts)]) + f"\n    ) -> {returns}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    annotation = "" if parameter.annotation is parameter.empty else f": {_type(parameter.annotation)}"
    return f"{stars}{parameter.name}{annotation}{_default(parameter.default, parameter.empty)}"


def _type(annotation: Any) -> str:
    """An annotation without the modules of its names, some of which differ by the version of Python."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " | ".join(map(_type, typing.get_args(annotation)))
    if annotation is types.NoneType:
        return "None"
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text)


def _default(value: Any, missing: object) -> str:
    if value is missing:
        return ""
    if isinstance(value, enum.Enum):
        return f" = {type(value).__name__}.{value.name}"
    return f" = {type(value).__name__}()" if attrs.has(type(value)) else f" = {value!r}"


if __name__ == "__main__":
    FILE.write_text(surface(), encoding="utf-8")
