"""What runs the snippets of the documentation does run them."""

import traceback
from pathlib import Path

import pytest

from tests.support.snippets import run_snippet


async def test_a_snippet_may_await_at_its_top_and_leaves_its_names() -> None:
    names = await run_snippet("import asyncio\nawait asyncio.sleep(0)\ny = x + 1", filename="<doc>", namespace={"x": 1})
    assert names["y"] == 2


async def test_a_snippet_without_await_may_run_an_event_loop_of_its_own() -> None:
    source = "import asyncio\nasync def main():\n    return 5\ny = asyncio.run(main())"
    assert (await run_snippet(source, filename="<doc>", namespace={}))["y"] == 5


@pytest.mark.parametrize("source", ["    a = 1\n    await missing()", "    a = 1\n    missing()"])
async def test_a_traceback_shows_the_line_of_the_file(source: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{source}\n")
    with pytest.raises(NameError) as caught:
        await run_snippet(source, filename=str(page), first_line=3, namespace={})
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno, last.line) == (str(page), 4, source.splitlines()[1].strip())
