"""The examples of the docstrings, which run as in an asyncio REPL. (doctest and its kin know no top-level `await`.)"""

import ast
import contextlib
import doctest
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.support.snippets import run_snippet

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@attrs.frozen
class Example:
    """The example of a docstring: statements of an asyncio REPL, and what they print."""

    of: str
    filename: str
    statements: list[doctest.Example]
    first_line: int
    """Where the docstring begins; the statements count from there."""


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    root = Path(__file__).parents[2]
    paths = sorted((root / "tfruns").rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def examples() -> Iterator[Example]:
    """Every example of a docstring, anywhere in the package."""
    for module, path in modules().items():
        if ">>> " not in (text := path.read_text(encoding="utf-8")):
            continue
        for node in _definitions(ast.parse(text)):
            if (doc := ast.get_docstring(node, clean=False)) is None or ">>> " not in doc:
                continue
            if statements := doctest.DocTestParser().get_examples(doc):
                name = module if isinstance(node, ast.Module) else f"{module}.{node.name}"
                yield Example(name, str(path), statements, node.body[0].lineno)


def _definitions(node: Definition) -> Iterator[Definition]:
    """A module, class or function, and those in it."""
    yield node
    for inner in node.body:
        if isinstance(inner, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _definitions(inner)


def sources() -> Iterator[tuple[str, Path]]:
    """The text of each module and where it is, but for the commands, whose examples are the shell's."""
    return (
        (path.read_text(encoding="utf-8"), path)
        for name, path in modules().items()
        if not name.startswith("tfruns.cli.")
    )


async def run_example(example: Example, names: dict[str, Any]) -> None:
    """Run it, with these names to begin with, and hold what is printed against what it says.

    Raises:
        AssertionError: it prints something else.
    """
    for statement in example.statements:
        line = example.first_line + statement.lineno
        source = statement.source
        if is_expression := _is_expression(source):
            source = f"_ = ({source.strip()}\n)"  # a comment may stand at its end
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            await run_snippet(source, filename=example.filename, first_line=line, namespace=names)
            if is_expression and names["_"] is not None:
                print(repr(names["_"]))
        if statement.want:
            flags = sum(flag for flag, is_set in statement.options.items() if is_set)
            assert doctest.OutputChecker().check_output(statement.want, printed.getvalue(), flags), (
                f"{example.filename}:{line}: wanted {statement.want!r}, got {printed.getvalue()!r}"
            )


def _is_expression(source: str) -> bool:
    tree = compile(source, "<example>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    assert isinstance(tree, ast.Module)
    return len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr)
