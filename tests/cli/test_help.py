"""The help of every command, wrong usage, completion, and odd surroundings: what a newcomer at a shell meets first."""

import asyncio
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import tfruns
from tests.support.cli import (
    CLOSED,
    ROOT,
    Ended,
    invoke,
    invoke_line,
    invoke_process,
    needs_posix,
    needs_terminals,
    on_terminal,
)
from tfruns.cli.program import program
from tfruns.sandbox import Sandbox

COMMANDS = ("list", "show", "count", "export", "watch", "wait", "sandbox", "demo")
HELPS = [(), *((command,) for command in COMMANDS)]


def help_of(*words: str, columns: int = 80) -> str:
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(program, [*words, "--help"], prog_name="tfruns")
    assert result.exit_code == 0
    return result.output


def examples_of(*words: str) -> list[str]:
    """The lines under `Examples:`."""
    lines = help_of(*words).partition("\nExamples:\n")[2].partition("\n\n")[0].splitlines()
    return [line.strip() for line in lines]


def test_the_help_names_every_command_in_the_order_of_their_use() -> None:
    listed = help_of().partition("\nCommands:\n")[2].partition("\n\n")[0]
    assert tuple(line.split()[0] for line in listed.splitlines()) == COMMANDS == tuple(program.commands)


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_a_help_fits_in_80_columns_and_says_what_the_command_does_first(words: tuple[str, ...]) -> None:
    lines = help_of(*words).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("Usage: tfruns")
    assert re.match(r"  [A-Z]", lines[2])


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_a_help_never_breaks_an_example_however_narrow_the_terminal(words: tuple[str, ...]) -> None:
    narrow = help_of(*words, columns=40)
    assert examples_of(*words)
    assert all(f"\n  {example}\n" in narrow for example in examples_of(*words))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text_and_stands_in_the_help_once(command: str) -> None:
    text = help_of(command)
    for parameter in program.commands[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert parameter.help[0].isupper()
            assert parameter.help.endswith(".")
            assert len(re.findall(rf"^  (-\w, )?{parameter.opts[-1]} ", text, re.MULTILINE)) == 1
        else:
            assert str(parameter.metavar).strip("[].") in text.splitlines()[2]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_every_example_is_a_command_line_that_parses(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("jobs.txt", "runs.jsonl"):
        (tmp_path / name).touch()
    for example in examples_of(*words):
        name, *arguments = shlex.split(re.split(r" (?:\||&&|>>?) ", example)[0])
        assert name == "tfruns"
        assert not words or arguments[0] == words[0]
        with program.make_context("tfruns", arguments[:1]) as context:
            with program.commands[arguments[0]].make_context(arguments[0], arguments[1:], parent=context) as parsed:
                assert parsed.params


@needs_posix
@pytest.mark.parametrize("command", ["list", "count", "export", "wait"])
async def test_the_examples_work_in_a_shell(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.txt").write_text("my-job-id\nmy-other-job-id\n")
    for name, line in (("tfruns", f'{shlex.quote(sys.executable)} -m tfruns "$@"'), ("less", "cat")):
        (tmp_path / name).write_text(f"#!/bin/sh\nexec {line}\n")
        (tmp_path / name).chmod(0o755)
    async with Sandbox(jobs=["my-job-id", "my-other-job-id"], runs=60) as sandbox:
        await sandbox.create_run("my-job-id", name="train-7f3a", status="FINISHED", created_at=int(time.time() * 1000))
        env = {"TFY_HOST": sandbox.url, "TFY_API_KEY": sandbox.api_key}
        env |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        for example in examples_of(command):
            ended = await invoke_line(example, **env)
            assert (example, ended.status) == (example, 0)
            assert "tfruns:" not in ended.err
            made = re.findall(r"(?:-o|>) ([^\s-]\S*)", example)
            assert ended.out or made or command == "export"
            assert all((tmp_path / file).stat().st_size for file in made)


async def test_no_help_and_no_completion_imports_anything_slow() -> None:
    code = "import contextlib, io, os, sys\nfrom tfruns.cli import main\n"
    code += f"for words in {HELPS!r}:\n    sys.argv = ['tfruns', *words, '--help']\n"
    code += "    with contextlib.redirect_stdout(io.StringIO()) as out: assert main() == 0\n"
    code += "    assert 'Usage: tfruns' in out.getvalue()\n"
    code += "os.environ |= {'_TFRUNS_COMPLETE': 'bash_complete', 'COMP_WORDS': 'tfruns list --st', 'COMP_CWORD': '2'}\n"
    code += "sys.argv = ['tfruns']\n"
    code += "with contextlib.suppress(SystemExit): main()\n"
    code += "print(*sys.modules)"
    ended = await invoke_process(command=(sys.executable, "-c", code))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("plain,--status\n")
    imported = {name.partition(".")[0] for name in ended.out.split()}
    assert "click" in imported
    assert not imported & {"aiohttp", "attr", "attrs", "cattrs", "msgspec", "tenacity", "pyarrow", "duckdb", "rich"}


# --- wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("lst job", r"No such command 'lst'.* \(see tfruns --help\)"),
        ("--json list job", r"--json goes after the command: tfruns list --json \(see tfruns --help\)"),
        ("--hots x", r"No such option:? '?--hots.* \(see tfruns --help\)"),
        (
            "list job --stauts failed",
            r"No such option:? '?--stauts.*Did you mean '?--status.* \(see tfruns list --help\)",
        ),
        ("list job --status", r"Option '--status' requires an argument \(see tfruns list --help\)"),
        ("export job -o", r"Option '-o' requires an argument \(see tfruns export --help\)"),
        ("count", r"Missing argument 'JOB\.\.\.' \(see tfruns count --help\)"),
        ("wait job", r"Missing argument 'RUN' \(see tfruns wait --help\)"),
        ("show one two three", r"Got unexpected extra argument \(three\) \(see tfruns show --help\)"),
        ("list job --max-runs many", r"Invalid value for '--max-runs': 'many' is not .* \(see tfruns list --help\)"),
    ],
)
async def test_wrong_usage_names_what_is_wrong_and_where_to_read_more(line: str, says: str) -> None:
    ended = await invoke(*line.split())
    assert ended.status == 2
    assert re.fullmatch(f"tfruns: {says}", ended.complaint)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("list job --limit 5", r"No such option: --limit\. Did you mean --max-runs\?"),
        ("list job -n 5", r"No such option: -n\. Did you mean --max-runs\?"),
        ("list job --output json", r"No such option: --output\. Did you mean --json\?"),
        ("count job --limit 5", r"No such option:? '?--limit'?"),
        ("export job -o runs.csv --jobs jobs.txt", r"No such option: --jobs\. Did you mean --jobs-from\?"),
        ("export job -o runs.csv --retries 3", r"No such option: --retries\. Did you mean --max-attempts\?"),
        ("export job -o runs.csv --since-last", r"No such option: --since-last\. Did you mean --state\?"),
        ("watch job --api-key k", r"No such option: --api-key\. The key comes from TFY_API_KEY, .*"),
        ("list job --token k", r"No such option: --token\. The key comes from TFY_API_KEY, .*"),
        ("list job --stats failed", r"No such option:? '?--stats'?.* .*--status.*"),
    ],
)
async def test_an_option_of_other_programs_gets_the_one_that_is_meant(line: str, says: str) -> None:
    ended = await invoke(*line.split())
    assert ended.status == 2
    assert re.fullmatch(rf"tfruns: {says} \(see tfruns {line.split()[0]} --help\)", ended.complaint)


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "meant"), [("describe", "show"), ("get", "show"), ("ls", "list"), ("tail", "watch"), ("help", "--help")]
)
async def test_a_command_of_other_programs_gets_the_one_that_is_meant(other: str, meant: str) -> None:
    ended = await invoke(other, "my-job-id", "train-7f3a")
    assert ended.status == 2
    assert ended.complaint == f"tfruns: No such command '{other}'. Did you mean '{meant}'? (see tfruns --help)"


async def completed(shell: str, words: str) -> list[str]:
    """What the program offers when it is called as the shell's script calls it."""
    *before, incomplete = words.split(" ")
    cword = {"fish": incomplete}.get(shell, str(len(before)))
    given = " ".join(before) if shell == "fish" else words
    ended = await invoke(_TFRUNS_COMPLETE=f"{shell}_complete", COMP_WORDS=given, COMP_CWORD=cword)
    assert (ended.status, ended.err) == (0, "")
    if shell == "zsh":  # type, word and help, a line each
        return ended.out.splitlines()[1::3]
    return [re.split(r"[,\t]", line)[1] for line in ended.out.splitlines() if line.startswith("plain,")]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("tfruns ", set(COMMANDS)),
        ("tfruns wa", {"watch", "wait"}),
        ("tfruns list --so", {"--sort-by"}),
        ("tfruns list job --sort-by ", {"startTime", "duration", "deploymentVersion", "triggeredBy", "status"}),
        ("tfruns list job --order ", {"asc", "desc"}),
        ("tfruns count job --status TERMINAT", {"TERMINATED", "TERMINATING", "TERMINATION_REQUESTED"}),
        ("tfruns export --format js", {"jsonl", "jsonl.gz", "jsonl.zst"}),
        ("tfruns watch job --start ", {"now", "open", "existing"}),
        ("tfruns sandbox --fa", {"--fault"}),
    ],
)
async def test_commands_options_and_values_are_completed(words: str, offered: set[str]) -> None:
    responses = await asyncio.gather(*(completed(shell, words) for shell in ("bash", "zsh", "fish")))
    for response in responses:
        # Which case words of no case are offered in is for click to say.
        assert {word.upper() for word in response} == {word.upper() for word in offered}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_script_for_a_shell_is_printed(shell: str) -> None:
    ended = await invoke(_TFRUNS_COMPLETE=f"{shell}_source")
    assert (ended.status, ended.err) == (0, "")
    assert f"_TFRUNS_COMPLETE={shell}_complete" in ended.out
    assert f'eval "$(_TFRUNS_COMPLETE={shell}_source tfruns)"' in help_of() or shell != "bash"


@needs_posix
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
async def test_bash_completes_with_the_line_that_the_help_gives(tmp_path: Path) -> None:
    (tmp_path / "tfruns").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tfruns "$@"\n')
    (tmp_path / "tfruns").chmod(0o755)
    line = next(line.strip() for line in help_of().splitlines() if "bash_source" in line)
    script = f"{line}\ncomplete -p tfruns | grep -o '_tfruns[a-z_]*'\n"
    script += "COMP_WORDS=(tfruns list job --status FINI); COMP_CWORD=4\n"
    script += '_tfruns_completion tfruns\nprintf "%s\\n" "${COMPREPLY[@]}"'
    ended = await invoke_process(
        command=("bash", "--norc", "-c", script), PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHONPATH=ROOT
    )
    assert (ended.status, ended.err) == (0, "")
    assert [word.upper() for word in ended.out.split()] == ["_TFRUNS_COMPLETION", "FINISHED"]


# --- odd surroundings -------------------------------------------------------------------------------------------------


@needs_posix
async def test_standard_streams_that_are_closed_are_no_surprise(tmp_path: Path) -> None:
    async with Sandbox(jobs=1, runs=5) as sandbox:
        env = {"TFY_HOST": sandbox.url, "TFY_API_KEY": sandbox.api_key}
        program = f"{shlex.quote(sys.executable)} -W error -m tfruns"
        job_id = sandbox.job_ids[0]

        async def shell(line: str) -> Ended:
            return await invoke_process(command=("sh", "-c", f"{program} {line}"), **env)

        runs = shlex.quote(str(tmp_path / "runs.csv"))
        is_closed = Ended(1, "", "tfruns: standard output: it is closed\n")
        assert (await shell(f"count {job_id} >&-")) == is_closed
        of_the_job = (f"list {job_id}", f"export {job_id} -o -", f"export {job_id} -o {runs} -q --summary-json -")
        for command in (*of_the_job, "--help", "list --help", "--version", "demo --runs 10", "sandbox --runs 10"):
            assert await invoke(*shlex.split(command), stdout=CLOSED, **env) == is_closed
        assert await invoke(*shlex.split(f"export {job_id} -o {runs} -q"), stdout=CLOSED, **env) == Ended(0, "", "")
        assert (await shell("count nowhere 2>&-")) == Ended(1, "", "")
        assert (await shell(f"count {job_id} <&- 2>&-")) == Ended(0, "5\n", "")
        nothing = await shell(f"export --jobs-from - -o {runs} <&-")
        assert nothing.status == 2
        assert "no jobs were given" in nothing.complaint


@needs_posix
async def test_no_file_gets_the_number_of_a_stream_that_is_closed() -> None:
    """Messages would be written into it: into the connection to the control plane, for example."""
    code = (
        "import os; from tfruns.cli.output import guard_streams; guard_streams(); os._exit(os.open('/', os.O_RDONLY))"
    )
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        line = f"{shlex.quote(sys.executable)} -W error -c {shlex.quote(code)} {closed}"
        assert (await invoke_process(command=("sh", "-c", line))).status > 2


@needs_posix
async def test_a_pager_that_ends_early_ends_a_help_and_a_demo_without_a_word() -> None:
    for command in ("list --help", "demo --runs 10"):
        reader, writer = os.pipe()
        os.close(reader)
        assert await invoke(*command.split(), stdout=writer) == Ended(0, "", "")
        os.close(writer)


@needs_terminals
async def test_a_dumb_terminal_gets_a_table_without_colours() -> None:
    async with Sandbox(jobs=1, runs=5) as sandbox:
        env = {"TFY_HOST": sandbox.url, "TFY_API_KEY": sandbox.api_key, "TERM": "dumb"}
        shown = (await on_terminal("list", sandbox.job_ids[0], size=(40, 24), **env)).raw.decode()
    assert "\x1b" not in shown
    assert shown.count("\n") == 6


@needs_posix
async def test_the_version_is_reported_even_where_the_locale_is_ascii() -> None:
    ended = await invoke_process("--version", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert ended == Ended(0, f"tfruns {tfruns.__version__}\n", "")


@needs_posix
async def test_a_current_folder_that_has_been_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    ended = await invoke("export", "a", "-o", "runs.csv")
    assert ended.complaint == "tfruns: the current folder has been removed: No such file or directory"


async def test_the_program_works_without_docstrings() -> None:
    """As with PYTHONOPTIMIZE=2, which some images set."""
    assert await invoke_process("--version", PYTHONOPTIMIZE="2") == Ended(0, f"tfruns {tfruns.__version__}\n", "")
    shown = await invoke_process("list", "--help", PYTHONOPTIMIZE="2")
    assert (shown.status, shown.err) == (0, "")
    assert "--status" in shown.out
