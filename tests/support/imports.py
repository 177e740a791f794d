"""The import graph of the package, read from its source. `python -m tests.support.imports` draws it, layer by layer."""

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tfruns"


@attrs.frozen
class Import:
    """One module imports another."""

    of: str
    by: str
    is_late: bool
    """Whether it is done in a function, or for type checkers alone: not when the module is imported."""


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports() -> Iterator[Import]:
    """Every import of one module of the package by another."""
    known = modules()
    for by, path in known.items():
        for node, is_late in _imports(ast.parse(path.read_text()), is_late=False):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                assert not node.level, f"{path}: a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                of = name if name in known else name.rpartition(".")[0]
                if of in known and of != by:
                    yield Import(of, by, is_late)


def _imports(node: ast.AST, *, is_late: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, is_late
        else:
            for_checkers = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            in_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield from _imports(child, is_late=is_late or for_checkers or in_function)


def layers() -> list[list[str]]:
    """The modules from the bottom up: each imports, when it is imported, only from layers below its own.

    Raises:
        ValueError: there is a circle.
    """
    left: dict[str, set[str]] = {name: set() for name in modules()}
    for one in imports():
        if not one.is_late:
            left[one.by].add(one.of)
    made: list[list[str]] = []
    while left:
        layer = [name for name, needs in left.items() if not needs & left.keys()]
        if not layer:
            raise ValueError(f"these import each other in a circle, or need such: {sorted(left)}")
        made.append(layer)
        left = {name: needs for name, needs in left.items() if name not in layer}
    return made


def drawing() -> str:
    """The layers as text, the highest first; late imports of modules above after a `~`."""
    found = [*imports()]
    lines = []
    height = {name: at for at, layer in enumerate(layers()) for name in layer}
    for at, layer in reversed([*enumerate(layers())]):
        lines.append(f"{at}")
        for name in layer:
            needs = sorted({one.of for one in found if one.by == name and not one.is_late})
            late = sorted({f"~{one.of}" for one in found if one.by == name and one.is_late} - {f"~{n}" for n in needs})
            arrow = " <- " if needs or late else ""
            lines.append(f"    {_short(name)}{arrow}{' '.join(map(_short, [*needs, *late]))}")
    assert len(height) == len(modules())
    return "\n".join(lines)


def _short(name: str) -> str:
    return name.replace("tfruns.", "")


if __name__ == "__main__":
    print(drawing())
