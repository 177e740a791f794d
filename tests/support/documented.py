"""What the docstrings say, taken apart: sections, arguments, examples."""

import ast
import contextlib
import doctest
import inspect
import io
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.support import surface
from tests.support.snippets import run_snippet


@attrs.frozen
class Documented:
    """A public class or function, or a public method or property of a public class."""

    name: str
    """In full, as a user writes it: `tfruns.Client.iter_runs`."""
    value: Any
    """The class or the function; of a property its function."""
    doc: str
    """Its docstring, without indentation."""
    is_property: bool = False
    is_member: bool = False

    @property
    def is_class(self) -> bool:
        return inspect.isclass(self.value)

    @property
    def is_error(self) -> bool:
        return self.is_class and issubclass(self.value, Exception)

    @property
    def parameters(self) -> list[str]:
        """The names of its arguments; for a class that users make, those of its constructor."""
        if self.is_property or self.is_error or (self.is_class and "__init__" not in vars(self.value)):
            return []
        if self.is_class and (attrs.has(self.value) or not self.section("Args")):
            return []
        function = self.value.__init__ if self.is_class else self.value
        return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]

    @property
    def is_asked(self) -> bool:
        """Whether it is called to do something: it takes arguments, or is awaited or iterated."""
        return (
            not self.is_class
            and not self.is_property
            and bool(
                self.parameters or inspect.iscoroutinefunction(self.value) or inspect.isasyncgenfunction(self.value)
            )
        )

    def section(self, title: str) -> str:
        """The text of a section without its title and indentation; empty if there is none."""
        found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", self.doc + "\n", re.MULTILINE)
        return "" if found is None else textwrap.dedent(found[1]).strip("\n")

    def entries(self, title: str) -> list[str]:
        """The names that a section explains, in their order."""
        return re.findall(r"^(\w+):", self.section(title), re.MULTILINE)


@attrs.frozen
class Example:
    """The example of a docstring: statements of an asyncio REPL, and what they print."""

    of: str
    filename: str
    statements: list[doctest.Example]
    first_line: int
    """Where the docstring begins; the statements count from there."""


def documented() -> Iterator[Documented]:
    """Every public name that can have a docstring, but the fixtures."""
    for module, name, value in surface.public_names():
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        path = f"{module}.{name}"
        # A class without a docstring has that of its base.
        doc = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
        yield Documented(path, value, inspect.cleandoc(doc or ""))
        for attribute, member in surface.members(value) if inspect.isclass(value) else ():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(function) and not attribute.startswith("_"):
                doc = inspect.cleandoc(function.__doc__ or "")
                yield Documented(f"{path}.{attribute}", function, doc, isinstance(member, property), is_member=True)


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    root = Path(__file__).parents[2]
    paths = sorted((root / "tfruns").rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def examples() -> Iterator[Example]:
    """Every example of a docstring, anywhere in the package."""
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if (doc := ast.get_docstring(node, clean=False)) is None:
                continue
            if statements := doctest.DocTestParser().get_examples(doc):
                name = module if isinstance(node, ast.Module) else f"{module}.{node.name}"
                yield Example(name, str(path), statements, node.body[0].lineno)


def sources() -> Iterator[tuple[str, Path]]:
    """The text of each module and where it is, but for the commands, whose examples are the shell's."""
    return ((path.read_text(), path) for name, path in modules().items() if not name.startswith("tfruns.cli."))


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
