"""Every block of code in the README, and in the pages about its parts, is run as it stands against the sandbox."""

import ast
import asyncio
import codeop
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import tfruns
from tests.support.cli import invoke_line, needs_posix
from tests.support.hostile import response, serve
from tests.support.readme import DOCS, README, ROOMS, Block, blocks
from tests.support.snippets import run_snippet
from tfruns.cli.program import program
from tfruns.sandbox import Fault, Sandbox

PAGES = [README, DOCS / "errors.md", DOCS / "moving-over.md", *sorted(ROOMS.glob("*/README.md"))]
PYTHON = [block for page in PAGES for block in blocks("python", page)]
SHELL = [block for page in PAGES for block in blocks("sh", page)]
JOBS = ["my-job-id", "my-other-job-id"]
FOR_PYTEST = [block for block in PYTHON if "def test_" in block.source]
FOR_SPARK = [block for block in PYTHON if "spark.read" in block.source]
SNIPPETS = [block for block in PYTHON if block not in (*FOR_PYTEST, *FOR_SPARK)]
COMMANDS = [line for block in SHELL for line in block.source.splitlines() if line.startswith("tfruns ")]


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    """The sandbox that the README starts, by its own command, but with smaller jobs, and time 200 times as fast.

    With this seed a run has failed less than 9 hours ago: `--since yesterday` finds one at any time of the day.
    """
    [command] = re.findall(r"`\.venv/bin/tfruns (sandbox [^`]+)`", README.read_text(encoding="utf-8"))
    options = ["--seed", "4", "--clock-rate", "200", "--runs", "600"]
    words = [sys.executable, "-m", "tfruns", *shlex.split(command), *options]
    env = {**os.environ, "PYTHONPATH": str(README.parent)}
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        exported = [shlex.split(process.stdout.readline())[1].partition("=") for _ in range(2)]
        yield {name: value for name, _, value in exported}
        process.terminate()


@pytest.fixture
def control_plane(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of someone who follows the README, in an empty folder."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 240


def test_every_block_of_python_is_run_by_a_test() -> None:
    assert len(PYTHON) == sum(page.read_text(encoding="utf-8").count("```python\n") for page in PAGES)
    assert (len(FOR_PYTEST), len(FOR_SPARK)) == (1, 2)  # the latter in test_spark.py
    assert len(SNIPPETS) > 10


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, marks=pytest.mark.vendor if "truefoundry_sdk" in block.source else (), id=str(block))
        for block in SNIPPETS
    ],
)
@pytest.mark.usefixtures("quick_clock")
async def test_a_snippet_runs_as_it_stands_and_shows_something(
    block: Block, control_plane: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the sandbox that the README starts, every filter finds runs, and a watch and a wait have their end."""
    names: dict[str, Any] = {"tfruns": tfruns, "client": tfruns.Client()}
    given = names["client"]
    try:
        await asyncio.wait_for(
            run_snippet(block.source, filename=str(block.page), first_line=block.first_line, namespace=names), 60
        )
    finally:
        for client in [given, *(value for value in names.values() if isinstance(value, tfruns.Client))]:
            await client.aclose()
        if "vendor" in names:  # it can't be closed by itself
            await names["vendor"]._client_wrapper.httpx_client.httpx_client.aclose()
    assert capsys.readouterr().out or "print(" not in block.source
    if block.heading == "Filter, sort, page, count" and "first" in names:
        assert names["first"] is not None
        assert names["number"] >= len(names["everything"]) > 0  # a run may have ended between the two
    if block.heading == "Many jobs":
        assert list(names["runs"].skipped) == ["no-such-job"]
    if block.heading == "Export":
        assert names["summary"].runs > 0
        assert Path("runs.parquet").is_file()
    if block.heading == "Watch":
        assert names["run"].name == "train-7f3a"


@pytest.mark.parametrize("block", [block for block in SNIPPETS if "asyncio.run(" not in block.source], ids=str)
def test_a_snippet_can_be_pasted_into_the_asyncio_repl(block: Block) -> None:
    """Before Python 3.13 it reads line by line: an empty line must end each `for`, `with` and `def`."""
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    read: list[str] = []
    for line in [*block.source.splitlines(), ""]:
        read.append(line)
        if compiler("\n".join(read)) is not None:
            read.clear()
    assert not read


def test_the_test_of_the_readme_passes_as_it_stands(tmp_path: Path) -> None:
    [block] = FOR_PYTEST
    (tmp_path / "test_readme_snippet.py").write_text(block.source)
    env = {**os.environ, "PYTHONPATH": str(README.parent), "PYTEST_ADDOPTS": ""}  # the gate's says coverage
    options = "-o asyncio_mode=auto -p no:cacheprovider -p no:schemathesis"
    command = [sys.executable, "-m", "pytest", "-q", *options.split()]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize(("version", "is_refused"), [((3, 10, 12), True), ((3, 11, 0), False), ((3, 14, 1), False)])
def test_the_demo_command_says_at_once_that_python_is_too_old(
    version: tuple[int, ...], is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old pip on an old Python would look for a release that fits, in silence, for ever."""
    [block] = [block for block in SHELL if "tfruns demo" in block.source]
    [check] = re.findall(r"^python3 -c '([^']+)' && python3 -m venv ", block.source)
    fake = types.SimpleNamespace(version_info=version, version=".".join(map(str, version)))
    monkeypatch.setitem(sys.modules, "sys", fake)  # type: ignore[arg-type]
    if is_refused:
        with pytest.raises(AssertionError, match="3.10.12"):
            exec(check, {})  # noqa: S102
    else:
        exec(check, {})  # noqa: S102


def leaf(line: str) -> tuple[click.Command, list[str]]:
    """The subcommand of a line of shell, and its arguments."""
    words = shlex.split(re.split(r" \| | > | && ", line)[0])
    assert words.pop(0) == "tfruns"
    command = program.get_command(click.Context(program), words[0])
    assert command is not None, line
    return command, words


@needs_posix
@pytest.mark.parametrize("line", COMMANDS)
async def test_a_command_does_what_it_says_and_shows_something(line: str, control_plane: None) -> None:
    assert leaf(line)[0] is not None
    Path("jobs.txt").write_text("my-job-id\nmy-other-job-id\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if line.startswith("tfruns watch"):
        line += " | head -n 1"  # it has no end of its own
    ended = await invoke_line(line, PATH=path, LESS="-E")
    assert ended.status == 0, ended.err
    assert "Traceback" not in ended.err
    assert ended.out or "export" in line or ">" in line


def headings(page: Path) -> set[str]:
    """What a link to a part of the page may name."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", [*PAGES, *DOCS.glob("*.md")], ids=lambda page: str(page.relative_to(README.parent)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert links or page is not README
    for link in links:
        if not link.startswith("https://"):
            path, _, part = link.partition("#")
            target = page.parent / path if path else page
            assert target.is_file(), link
            assert not part or part in headings(target), link


async def failing(url: str, job_id: str = "my-job-id", **settings: Any) -> str:
    """What the error of a request says."""
    async with tfruns.Client(url, **settings) as client:
        with pytest.raises(tfruns.TfRunsError) as raised:
            await client.list_runs(job_id)
    return str(raised.value)


def refused(**settings: Any) -> str:
    """What the error of a client says that can't be made."""
    with pytest.raises(tfruns.ConfigurationError) as raised:
        tfruns.Client(**settings)
    return str(raised.value)


async def test_the_likeliest_errors_are_in_the_words_of_their_page(monkeypatch: pytest.MonkeyPatch) -> None:
    ten = [refused(), refused(base_url="https://acme.example"), refused(base_url="acme.example", api_key="key")]
    ten_times, twice = (tfruns.RetryPolicy(max_attempts=times, initial_backoff=0.0) for times in (10, 2))
    async with Sandbox(JOBS, 1, forbidden=["secret"]) as sandbox:
        monkeypatch.setenv("TFY_API_KEY", "an-old-key")
        ten.append(await failing(sandbox.url))
        monkeypatch.setenv("TFY_API_KEY", sandbox.api_key)
        ten += [await failing(sandbox.url, "secret"), await failing(sandbox.url, "my-jop-id")]
        ten.append(await failing("http://127.0.0.1:9", retry=ten_times))
        sandbox.faults[:] = [Fault(breaks="stall")]
        ten.append(await failing(sandbox.url, timeout=1, retry=twice))
        sandbox.faults[:] = [Fault(status=429)]
        ten.append(await failing(sandbox.url, retry=ten_times))
    async with serve(lambda _: response(200, b"<!doctype html><title>Log in</title>")) as (url, _):
        ten.append(await failing(url))
    table = (DOCS / "errors.md").read_text(encoding="utf-8").partition("in their own words")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(rows) == len(ten) == 10
    for row, said in zip(rows, ten, strict=True):
        pattern = re.escape(row).replace("https://…", r"https?://[\w.:]*").replace("…", ".*")
        assert re.fullmatch(pattern, re.sub(r" \(request id [\w-]+\)", "", said)), said
