"""Every example of a docstring runs as it stands, in an asyncio REPL with a control plane, and prints what it says."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import tfruns
from tests.support.examples import Example, examples, run_example, sources
from tfruns.sandbox import Sandbox

EXAMPLES = [*examples()]
SECONDS = 60


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quick_clock: None) -> AsyncIterator[dict[str, Any]]:
    """What an example finds: a client of a control plane where something happens all the time."""
    monkeypatch.chdir(tmp_path)
    async with Sandbox(["my-job-id", "job-a", "job-b"], runs=250) as sandbox:
        monkeypatch.setenv("TFY_HOST", sandbox.url)
        monkeypatch.setenv("TFY_API_KEY", sandbox.api_key)
        async with tfruns.Client() as client:
            yield {"asyncio": asyncio, "client": client, "sandbox": sandbox, "tfruns": tfruns}


async def something_happens(sandbox: Sandbox) -> None:
    """What those who wait for runs, or watch them, need."""
    awaited = await sandbox.create_run("my-job-id", name="train-7f3a", status="RUNNING")
    await asyncio.sleep(0.1)
    await sandbox.finish_run("my-job-id", awaited.id)
    while True:
        run = await sandbox.create_run("job-a", status="RUNNING")
        await asyncio.sleep(0.1)
        await sandbox.finish_run("job-a", run.id, "FAILED")


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(one, id=one.of, marks=[pytest.mark.polars] if one.of.endswith("to_polars") else [])
        for one in EXAMPLES
        if not one.of.startswith("tfruns.spark")
    ],
)
async def test_an_example_runs_and_prints_what_it_says(example: Example, names: dict[str, Any]) -> None:
    if example.of.endswith("to_polars"):
        pytest.importorskip("polars")
    follows = any("watch_runs" in one.source or "wait_for_run" in one.source for one in example.statements)
    happening = asyncio.create_task(something_happens(names["sandbox"])) if follows else None
    try:
        async with asyncio.timeout(SECONDS):
            await run_example(example, names)
            for name, value in [*names.items()]:
                if name.startswith("test_"):
                    async with Sandbox() as sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
                        await value(sandbox, client)
    finally:
        if happening is not None:
            happening.cancel()
            await asyncio.gather(happening, return_exceptions=True)


def test_every_example_was_found() -> None:
    announced = {str(path): len(re.findall(r"^ *Example:$", text, re.MULTILINE)) for text, path in sources()}
    found = {path: sum(one.filename == path for one in EXAMPLES) for path in announced}
    assert found == announced
    assert len(EXAMPLES) > 60


def test_every_line_of_python_in_a_docstring_stands_in_an_example() -> None:
    lines = sum(len(re.findall(r"^ *(?:>>>|\.\.\.) ", text, re.MULTILINE)) for text, _ in sources())
    run_lines = sum(len(statement.source.splitlines()) for one in EXAMPLES for statement in one.statements)
    assert lines == run_lines
