"""Docstrings of fields for `help()`: Python forgets the string below a field, and this reads it again when asked."""

import functools
from typing import Any, TypeVar

T = TypeVar("T")


def described(cls: type[T]) -> type[T]:
    """Let `help(cls)` show the docstring of each field of a slotted attrs class, as editors do."""
    # A dict in this place is where `inspect` and `pydoc` look for docstrings of slots.
    type.__setattr__(cls, "__slots__", _FieldDocs(cls))
    return cls


class _FieldDocs(dict[str, str]):
    """The names of a class's slots, each with its docstring; the source is read when one is first asked for."""

    def __init__(self, cls: Any) -> None:
        super().__init__(dict.fromkeys(cls.__slots__, ""))
        self._cls = cls

    def __getitem__(self, name: str) -> str:
        return _docs(self._cls).get(name, "")


@functools.cache
def _docs(cls: type) -> dict[str, str]:
    import ast
    import inspect

    try:
        body = ast.parse(inspect.cleandoc(inspect.getsource(cls))).body[0]
    except (OSError, TypeError, SyntaxError):  # there is no source
        return {}
    assert isinstance(body, ast.ClassDef)  # noqa: S101  # for the type checker
    docs = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            docs[ast.unparse(field.target)] = inspect.cleandoc(str(text.value.value))
    return docs
