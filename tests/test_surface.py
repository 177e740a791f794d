"""The public surface is written down, and changes only on purpose."""

import difflib
import inspect
import pickle

import pytest

from tests.support import surface

pytest.importorskip("pyspark")
pytestmark = pytest.mark.spark  # the source for Spark is a part of what is public

PUBLIC = [(module, name, value) for module, name, value in surface.public_names() if inspect.isclass(value)]


def test_the_public_surface_is_the_one_that_is_written_down() -> None:
    written, now = surface.FILE.read_text(encoding="utf-8"), surface.surface()
    changes = "\n".join(
        difflib.unified_diff(written.splitlines(), now.splitlines(), "written down", "now", lineterm="")
    )
    assert not changes, f"what users rely on has changed; if that is meant: python -m tests.support.surface\n{changes}"


def test_it_holds_nothing_of_one_machine() -> None:
    text = surface.FILE.read_text(encoding="utf-8")
    assert " at 0x" not in text
    assert "/" not in text


def test_every_public_name_is_in_it() -> None:
    text = surface.FILE.read_text(encoding="utf-8")
    names = [f"{module}: " for module, _, _ in surface.public_names()]
    assert all(text.count(name) == names.count(name) for name in names)
    assert len(names) > 50


@pytest.mark.parametrize(("module", "name", "cls"), PUBLIC, ids=[f"{module}.{name}" for module, name, _ in PUBLIC])
def test_a_public_class_names_the_module_that_it_is_imported_from(module: str, name: str, cls: type) -> None:
    """So tracebacks and pickles do, and survive a move of the code. Another process finds it there."""
    assert f"{cls.__module__}.{cls.__qualname__}" == f"{module}.{name}"
    assert pickle.loads(pickle.dumps(cls)) is cls  # noqa: S301
