"""How the package is built: which module imports which, and what loading it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import imports

MODULES = imports.modules()
PACKAGES = ("tfruns.cli", "tfruns.export", "tfruns.sandbox", "tfruns.spark")
FACES = ("tfruns", "tfruns.pytest_plugin", "tfruns.cli", *(name for name in MODULES if name.startswith("tfruns.cli.")))
"""Modules that import what they show when it is used, so that they load fast."""


def package_of(module: str) -> str:
    return next((name for name in PACKAGES if module == name or module.startswith(f"{name}.")), "tfruns")


def test_modules_stand_in_layers_and_none_imports_another_in_a_circle() -> None:
    assert sum(map(len, imports.layers())) == len(MODULES)


def test_late_imports_point_down_too_but_those_of_the_lazy_faces() -> None:
    height = {name: at for at, layer in enumerate(imports.layers()) for name in layer}
    late = [one for one in imports.imports() if one.is_late and one.by not in FACES]
    assert not [one for one in late if height[one.of] >= height[one.by]]


def test_the_packages_beside_the_core_know_it_but_not_each_other() -> None:
    crossing = {
        (package_of(one.by), package_of(one.of))
        for one in imports.imports()
        if package_of(one.by) != package_of(one.of) != "tfruns"
    }
    # `tfruns export` and `tfruns sandbox` are commands; `python -m tfruns` and pytest's fixtures know what they start.
    assert crossing == {
        ("tfruns", "tfruns.cli"),
        ("tfruns", "tfruns.sandbox"),
        ("tfruns.cli", "tfruns.export"),
        ("tfruns.cli", "tfruns.sandbox"),
    }


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_a_private_name_is_used_only_where_it_is_defined(path: Path) -> None:
    tree = ast.parse(path.read_text())
    defined = {name for node in ast.walk(tree) for name in _defined(node)}
    used = {name for node in ast.walk(tree) for name in _used(node)}
    assert not used - defined - {"_name_", "_value_", "_value2member_map_"}  # of enums, which document them


def _defined(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return [name]
    return []


def _used(node: ast.AST) -> list[str]:
    match node:
        case ast.ImportFrom(names=names):
            used = [alias.name for alias in names]
        case ast.Attribute(attr=name, ctx=ast.Load()):
            used = [name]
        case _:
            used = []
    return [name for name in used if name.startswith("_") and not name.startswith("__")]


def test_a_client_needs_none_of_the_extras() -> None:
    extras = ("pyarrow", "duckdb", "pyspark", "opentelemetry", "click", "rich", "zstandard", "pytest", "sqlite3")
    code = f"""
import sys, tfruns
tfruns.Client, tfruns.RunPaginator, tfruns.RunChange
print([name for name in {extras!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
