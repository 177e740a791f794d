"""How public classes appear to users: the module that they name as theirs, and what `help()` shows of their fields.

Fields have their docstrings below them, where editors show them on hover. `help()` shows them too, at the field itself.
An `Attributes:` section in the docstring of the class would be a second copy for `help()`, and nothing for editors.
"""

import ast
import functools
import inspect
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")


def publish(module: str, values: Iterable[object]) -> dict[str, object]:
    """Let classes of the package name the public module as theirs: in tracebacks, in `help()` and in pickles.

    Args:
        module: the module that users import them from.
        values: the classes; anything that isn't a class or a function of the package is left as it is.

    Returns:
        The classes, by their names.
    """
    published: dict[str, object] = {}
    for value in values:
        if callable(value) and getattr(value, "__module__", "").startswith("tfruns."):
            value.__module__ = module
            published[value.__name__] = value  # type: ignore[attr-defined]  # it has one
    return published


def shows_field_docs(cls: type[_T]) -> type[_T]:
    """Let `help(cls)` show the docstring of each field of a slotted attrs class, as editors do."""
    # A dict in this place is where `inspect` and `pydoc` look for docstrings of slots.
    type.__setattr__(cls, "__slots__", _FieldDocs(cls))
    return cls


class _FieldDocs(dict[str, str]):
    """The names of a class's slots, each with its docstring: the source is read when one is first needed."""

    def __init__(self, cls: Any) -> None:
        super().__init__(dict.fromkeys(cls.__slots__, ""))
        self._place = cls.__module__, cls.__qualname__

    def __getitem__(self, name: str) -> str:
        return _docs(*self._place).get(name, "")


@functools.cache
def _docs(module: str, class_name: str) -> dict[str, str]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, KeyError, SyntaxError):  # there is no source
        return {}
    docs = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for field, text in zip(node.body, node.body[1:], strict=False):
                if not isinstance(field, ast.AnnAssign) or not isinstance(text, ast.Expr):
                    continue
                if isinstance(text.value, ast.Constant):
                    docs[ast.unparse(field.target)] = inspect.cleandoc(str(text.value.value))
    return docs
