"""The recipes for code that isn't async, each run as a program of its own."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.readme import DOCS, README, Block, blocks
from tfruns.sandbox import Sandbox

PAGE = DOCS / "sync.md"
RECIPES = blocks("python", PAGE)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_recipe_runs_as_it_stands(recipe: Block) -> None:
    with Sandbox(["my-job-id", "my-other-job-id"], 200) as sandbox:
        env = {**os.environ, "TFY_HOST": sandbox.url, "TFY_API_KEY": sandbox.api_key, "PYTHONPATH": str(README.parent)}
        command = [sys.executable, "-W", "error", "-c", recipe.source]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"\d", done.stdout)


def test_every_recipe_was_found() -> None:
    assert len(RECIPES) == PAGE.read_text(encoding="utf-8").count("```python\n") == 3
