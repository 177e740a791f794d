"""The first hour of someone who has a checkout and the README: its own install lines, then everything on the page."""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.readme import README, blocks

ROOT = README.parent
SNIPPETS = """
import asyncio, json, sys
import tfruns  # the one that was installed
assert ".venv" in tfruns.__file__, tfruns.__file__
sys.path.append(sys.argv[1])
from tests.support.snippets import run_snippet

async def main():
    names = {}
    for source in json.load(sys.stdin):
        print("#", source.splitlines()[0], flush=True)
        await asyncio.wait_for(run_snippet(source, filename="<README>", namespace=names), 120)
    await names["client"].aclose()

asyncio.run(main())
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, with an environment that was made by the two lines of the README."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "tfruns", folder / "tfruns", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    demo, install = [line for block in blocks("sh") for line in block.source.splitlines() if "pip install" in line][:2]
    shown = run(demo, folder)
    assert re.search(r"25,000 runs in [\d.]+ s", shown)
    run(install, folder)
    return folder


def run(line: str, folder: Path, text: str = "", **env: str) -> str:
    """What a line of shell prints, in that folder and environment; it must succeed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    path = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-c", f"set -o pipefail; {line}"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, "PATH": path, **env},
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


async def test_every_command_and_snippet_runs_as_it_stands(checkout: Path) -> None:
    [words] = re.findall(r"`(\.venv/bin/tfruns sandbox [^`]+)`", README.read_text(encoding="utf-8"))
    sandbox = await asyncio.create_subprocess_exec(
        *shlex.split(words), "--clock-rate", "20", cwd=checkout, stdout=subprocess.PIPE
    )
    assert sandbox.stdout is not None
    try:
        lines = [shlex.split((await sandbox.stdout.readline()).decode())[1] for _ in range(2)]
        env = dict(line.split("=", 1) for line in lines)
        sources = [block.source for block in blocks("python")]
        runner = f"python -P -W error::ResourceWarning -c {shlex.quote(SNIPPETS)} {shlex.quote(str(ROOT))}"
        shown = await asyncio.to_thread(run, runner, checkout, json.dumps(sources), **env)
        assert shown.count("# ") >= len(sources)
        (checkout / "jobs.txt").write_text("my-job-id\nmy-other-job-id\n")
        for block in blocks("sh"):
            for line in block.source.splitlines():
                if line.startswith("tfruns "):
                    ended = line + " | head -n 1" * line.startswith("tfruns watch")
                    printed = await asyncio.to_thread(run, ended, checkout, **env)
                    assert printed or " -o " in line or ">" in line, line
    finally:
        sandbox.terminate()
        await sandbox.wait()
