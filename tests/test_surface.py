"""The public surface is written down, and changes only on purpose."""

import difflib
import importlib
import pickle

import pytest

from tests.support.surface import FILE, public_names, surface, value_of


def test_the_public_surface_is_the_one_that_is_written_down() -> None:
    written, now = FILE.read_text(encoding="utf-8"), surface()
    changes = [line for line in difflib.ndiff(written.splitlines(), now.splitlines()) if not line.startswith("  ")]
    text = "\n".join(changes)
    assert not changes, f"what users rely on has changed; if that is meant: python -m tests.support.surface\n{text}"


def test_a_module_lists_what_is_public_and_nothing_else() -> None:
    for path in {name.rpartition(".")[0] for name in public_names()} - {"tfruns.spark"}:
        listed = {f"{path}.{name}" for name in importlib.import_module(path).__all__} - {"tfruns.__version__"}
        assert listed == {name for name in public_names() if name.rpartition(".")[0] == path}


@pytest.mark.parametrize("of_spark", [False, pytest.param(True, marks=pytest.mark.spark)])
def test_a_public_class_names_the_module_that_it_is_imported_from(of_spark: bool) -> None:
    """So tracebacks and pickles do, and survive a move of the code. Another process finds it there."""
    classes = [name for name, one in public_names().items() if one.is_class]
    for name in classes:
        if name.startswith("tfruns.spark.") == of_spark:
            cls = value_of(name)
            assert f"{cls.__module__}.{cls.__qualname__}" == name
            assert pickle.loads(pickle.dumps(cls)) is cls  # noqa: S301
    assert len(classes) > 40
