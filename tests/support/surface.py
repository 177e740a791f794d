"""The public surface of tfruns, as text: each name that users may rely on, with its signature. griffe reads the source.

`python -m tests.support.surface` writes it to `surface.txt`, for a change of it that is meant; a test compares both.
"""

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

FILE = Path(__file__).with_name("surface.txt")
ROOT = Path(__file__).parents[2]
MODULES = ("arrow", "export", "otel", "sandbox", "spark", "types")
PROTOCOLS = (
    "__init__",
    "__aenter__",
    "__aexit__",
    "__aiter__",
    "__anext__",
    "__enter__",
    "__exit__",
    "__iter__",
    "__len__",
    "__getitem__",
)


@functools.cache
def public_names() -> dict[str, griffe.Object]:
    """What is public, by the name under which users import it: `tfruns.export.export_runs`."""
    package = griffe.load("tfruns", search_paths=[ROOT], docstring_parser="google")
    listed = {f"tfruns.{name}": one for name, one in package["_names"].members.items() if name[0].isupper()}
    del listed["tfruns.PUBLIC"]
    for module in MODULES:
        listed |= {f"tfruns.{module}.{name}": package[module][str(name)] for name in package[module].exports}
    return {name: one.final_target if one.is_alias else one for name, one in sorted(listed.items())}


def public_members(cls: griffe.Class) -> dict[str, griffe.Object]:
    """The public members of a class, by name, those of its private bases included."""
    public = {one.path for one in public_names().values()}
    bases = [base for base in cls.mro() if base.path.startswith("tfruns.") and base.path not in public]
    return {
        name: member
        for one in (*reversed(bases), cls)
        for name, member in one.members.items()
        if isinstance(member, griffe.Object) and (name[0] != "_" or name in PROTOCOLS)
    }


def value_of(name: str) -> Any:
    """What users import under this name."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def surface() -> str:
    """All of it."""
    return "\n".join(line for name, one in public_names().items() for line in _lines(name, one))


def _lines(name: str, one: griffe.Object) -> Iterator[str]:
    if not isinstance(one, griffe.Class):
        yield f"{name}: {_line(one)}\n"
        return
    yield f"{name}: class ({', '.join(map(str, one.bases))})"
    members = public_members(one)
    yield from (f"    {_line(member)}" for member in members.values() if member.is_attribute)  # their order counts
    yield from (f"    {_line(member)}" for _, member in sorted(members.items()) if member.is_function)
    yield ""


def _line(one: griffe.Object) -> str:
    labels = [label for label in ("async", "classmethod", "property", "writable") if label in one.labels]
    if isinstance(one, griffe.Function):
        return " ".join([*labels, f"def {one.signature()}"])
    assert isinstance(one, griffe.Attribute)
    annotation = "" if one.annotation is None else f": {one.annotation}"
    is_default = one.value is not None and ("class-attribute" in one.labels or "module-attribute" in one.labels)
    return " ".join([*labels, f"{one.name}{annotation}{f' = {one.value}' if is_default else ''}"])


if __name__ == "__main__":
    FILE.write_text(surface(), encoding="utf-8")
