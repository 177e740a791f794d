"""The commands `list`, `show` and `count`: how many runs, which columns, of which jobs, and one run as a whole."""

import json
import re
import time
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta

import click
import pytest

from tests.support.cli import KEY, NASTY, Ended, invoke, needs_terminals, on_terminal
from tfruns.cli.options import moment
from tfruns.sandbox import Sandbox

ERROR = "Traceback (most recent call last):\n  File \"train.py\", line 7\n\tboom\nKeyError: 'x'"


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Sandbox]:
    """A control plane that the environment points to."""
    async with Sandbox(
        jobs=["a-job", "b-job"], runs=(1_200, 20), api_key=KEY, clock_start="now", forbidden=["shut"]
    ) as sandbox:
        monkeypatch.setenv("TFY_HOST", sandbox.url)
        monkeypatch.setenv("TFY_API_KEY", KEY)
        yield sandbox


# --- how many ---------------------------------------------------------------------------------------------------------


async def test_no_runs_is_said_only_where_there_are_none(sandbox: Sandbox) -> None:
    job = sandbox.job_ids[0]
    assert await invoke("list", job, "--max-runs", "0") == Ended(0, "", "")
    assert await invoke("list", job, "--offset", "5000") == Ended(0, "", "tfruns: no runs after the first 5,000\n")
    assert await invoke("list", job, "--search-prefix", "none") == Ended(0, "", "tfruns: no runs\n")


@needs_terminals
async def test_a_terminal_gets_the_newest_50_and_how_to_get_more(sandbox: Sandbox) -> None:
    terminal = await on_terminal("list", "a-job", size=(160, 60))
    _, *rows = terminal.text.splitlines()
    assert len(rows) == 50
    assert all(run.id in row for run, row in zip(sandbox.runs("a-job"), rows, strict=False))
    assert terminal.err.splitlines()[-1] == "50 of 1,200: --all, or --max-runs"


@needs_terminals
@pytest.mark.parametrize(
    ("more", "rows", "says"),
    [
        (["--all", "--offset", "1100"], 100, False),
        (["--max-runs", "70"], 70, False),
        (["--offset", "1180"], 20, False),
        (["--offset", "1000"], 50, True),
        (["--since", "5000w"], 50, True),
        (["--search-prefix", "train-7f3a"], 1, False),
    ],
)
async def test_a_terminal_gets_as_many_as_it_is_told_to(
    sandbox: Sandbox, more: list[str], rows: int, *, says: bool
) -> None:
    terminal = await on_terminal("list", "a-job", "--no-header", *more, size=(160, 60))
    assert len(terminal.text.splitlines()) == rows
    assert ("--all, or --max-runs" in terminal.err) == says
    assert ("50 of 200:" in terminal.err) == ("1000" in more)
    assert ("50, and there are more: --all" in terminal.err) == ("--since" in more)


@needs_terminals
async def test_json_and_a_pipe_get_all(sandbox: Sandbox) -> None:
    assert len((await on_terminal("list", "a-job", "--json", "--offset", "1100")).text.splitlines()) == 100
    assert (await invoke("list", "a-job", "--no-header")).out.count("\n") == 1_200


@pytest.mark.parametrize(
    ("more", "says"),
    [("--all --max-runs 3", "exclude each other"), ("--json --columns id", "--columns is for the table")],
)
async def test_options_that_contradict_each_other_are_refused(sandbox: Sandbox, more: str, says: str) -> None:
    ended = await invoke("list", "a-job", *more.split())
    assert (ended.status, says in ended.complaint) == (2, True)


# --- several jobs -----------------------------------------------------------------------------------------------------


async def test_the_runs_of_several_jobs_have_a_column_of_their_job(sandbox: Sandbox) -> None:
    ended = await invoke("list", "b-job", "a-job", "b-job", "--max-runs", "30")
    heading, *rows = ended.out.splitlines()
    assert heading.split()[0] == "JOB"
    assert [row.split()[0] for row in rows] == ["b-job"] * 20 + ["a-job"] * 30
    lines = (await invoke("list", "b-job", "a-job", "--max-runs", "3", "--json")).runs()
    expected = [{"jobId": job, **run.to_dict()} for job in ("b-job", "a-job") for run in sandbox.runs(job)[:3]]
    assert lines == expected


@needs_terminals
async def test_several_jobs_share_the_lines_of_a_terminal(sandbox: Sandbox) -> None:
    terminal = await on_terminal("list", "a-job", "b-job", size=(100, 60))
    heading, *rows = terminal.text.splitlines()
    assert [row.split()[0] for row in rows] == ["a-job"] * 25 + ["b-job"] * 20
    at = heading.index("NAME")  # aligned together
    assert all(row[at - 2 : at] == "  " and row[at] != " " for row in rows)
    assert heading.startswith("JOB")
    assert terminal.err.splitlines()[-1] == "45 of 1,220: --all, or --max-runs"


@pytest.mark.parametrize("command", ["list", "count"])
async def test_of_several_jobs_one_that_fails_is_named_and_the_others_are_printed(
    sandbox: Sandbox, command: str
) -> None:
    ended = await invoke(command, "b-job", "no-such-job", "shut", "--json")
    assert ended.status == 3
    assert {json.loads(line).get("jobId", "b-job") for line in ended.out.splitlines()} == {"b-job"}
    assert re.match(r"tfruns: job 'no-such-job'.* 404 .*\ntfruns: job 'shut'.* 403 .*\n$", ended.err)
    assert (await invoke(command, "no-such-job", "shut")).status == 1
    assert "401" in (await invoke(command, "a-job", "b-job", TFY_API_KEY="wrong-key-1234")).complaint


async def test_the_numbers_of_several_jobs_are_a_table(sandbox: Sandbox) -> None:
    assert await invoke("count", "a-job", "b-job") == Ended(0, "JOB    RUNS\na-job  1200\nb-job    20\n", "")
    assert await invoke("count", "a-job", "b-job", "--no-header") == Ended(0, "a-job  1200\nb-job    20\n", "")
    lines = (await invoke("count", "a-job", "b-job", "--json", "--since", "5000w")).runs()
    assert lines == [{"job_id": "a-job", "count": 1_200}, {"job_id": "b-job", "count": 20}]


@pytest.mark.parametrize("command", ["list", "count", "watch"])
async def test_an_id_that_is_none_is_refused_before_any_request(sandbox: Sandbox, command: str) -> None:
    for wrong in ("", "..", " a-job"):
        ended = await invoke(command, "a-job", wrong)
        assert (ended.status, ended.complaint.startswith("tfruns: JOB")) == (2, True)
    assert not sandbox.requests


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", ["name,exit_code,created_at,id", "NAME, exitCode ,created,Id", "name,exit-code,created-at,id"]
)
async def test_columns_are_chosen_by_the_names_of_fields(sandbox: Sandbox, names: str) -> None:
    heading, *rows = (await invoke("list", "b-job", "--columns", names)).out.splitlines()
    assert re.split("  +", heading) == ["NAME", "EXIT CODE", "CREATED (UTC)", "ID"]
    for run, row in zip(sandbox.runs("b-job"), rows, strict=True):
        code = "-" if run.exit_code is None else str(run.exit_code)
        assert re.split("  +", row) == [run.name, code, f"{run.created:%Y-%m-%d %H:%M:%S}", run.id]


@needs_terminals
async def test_chosen_columns_come_first_to_last_as_far_as_there_is_room(sandbox: Sandbox) -> None:
    terminal = await on_terminal("list", "b-job", "--columns", "id,name,command,error,status", size=(80, 24))
    heading, *rows = terminal.text.splitlines()
    assert re.split("  +", heading) == ["ID", "NAME", "COMMAND", "ERROR"]
    assert all(len(row) <= 80 for row in rows)
    assert terminal.err == "tfruns: 1 column left out to fit the terminal: STATUS (--wide shows all)\n"


async def test_every_field_can_be_a_column_and_each_is_harmless(sandbox: Sandbox) -> None:
    run = await sandbox.create_run("b-job", command=NASTY, spark_ui="https://x/\x1b[2J")
    help_ = (await invoke("list", "b-job", "--columns", "nonsense")).complaint
    names = help_.partition("there are ")[2].partition(" (see")[0].split(", ")
    assert {"job_id", "tenant_name", "subject_pat_name", "age"} < set(names)
    ended = await invoke("list", "b-job", "--columns", ",".join(names), "--max-runs", "1")
    assert run.id in ended.out
    assert "\x1b" not in ended.out
    assert ended.out.count("\n") == 2


@needs_terminals
async def test_wide_shows_every_column_whole_on_a_narrow_terminal(sandbox: Sandbox) -> None:
    run = await sandbox.create_run("b-job", name="x" * 200, status="FAILED", error="y" * 100)
    terminal = await on_terminal("list", "b-job", "--wide", "--max-runs", "1", size=(40, 24))
    heading, row = terminal.text.splitlines()
    assert re.split("  +", heading)[:3] == ["STATUS", "CREATED (UTC)", "AGE"]
    assert all(text in row for text in (run.name, run.id, "y" * 100))
    assert terminal.err == ""


async def test_an_age_that_is_asked_for_is_there_in_a_pipe_too(sandbox: Sandbox) -> None:
    ago = int(time.time() * 1000) - 3 * 3_600_000 - 600_000
    await sandbox.create_run("b-job", name="three-hours", created_at=ago)
    ended = await invoke("list", "b-job", "--columns", "age,status", "--search-prefix", "three-hours", "--no-header")
    assert ended.out.split() == ["3h", "CREATED"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("SUCCEEDED", "TERMINATED, UNKNOWN. Did you mean FINISHED?"),
        ("Cancelled", "TERMINATED, UNKNOWN. Did you mean TERMINATED?"),
        ("FAILED,RUNNING", "TERMINATED, UNKNOWN. Give the option once for each"),
    ],
)
async def test_a_status_of_other_systems_gets_the_one_that_is_meant(given: str, says: str) -> None:
    ended = await invoke("list", "b-job", "--status", given)
    assert ended.status == 2
    assert f"{given!r} is not one of CREATED, " in ended.complaint
    assert says in ended.complaint


async def test_a_column_that_is_none_gets_the_one_that_is_meant(sandbox: Sandbox) -> None:
    ended = await invoke("list", "b-job", "--columns", "name,creatd_at")
    assert (ended.status, "no column 'creatd_at': did you mean created_at?" in ended.complaint) == (2, True)


@needs_terminals
async def test_a_running_run_has_its_time_so_far_on_a_terminal(sandbox: Sandbox) -> None:
    created_at = int(time.time() * 1000) - 2 * 3_600_000 - 300_000
    await sandbox.create_run("b-job", name="two-hours", status="RUNNING", created_at=created_at)
    command = ("list", "b-job", "--search-prefix", "two-hours", "--columns", "name,duration")
    assert (await on_terminal(*command)).text.splitlines()[1].split() == ["two-hours", "2h", "05m"]
    assert (await invoke(*command)).out.splitlines()[1].split() == ["two-hours", "-"]


# --- show -------------------------------------------------------------------------------------------------------------


async def test_show_prints_every_field_and_the_whole_error(sandbox: Sandbox) -> None:
    ago = int(time.time() * 1000) - 3 * 3_600_000 - 600_000
    run = await sandbox.create_run(
        "b-job", status="FAILED", created_at=ago, end_time=ago + 61_000, duration=61, error=ERROR, exit_code=1
    )
    ended = await invoke("show", "b-job", run.id)
    assert (ended.status, ended.err) == (0, "")
    fields = dict(re.findall(r"^(\w+) {2,}(.+)$", ended.out, re.MULTILINE))
    assert fields["job_id"] == "b-job"
    assert fields["id"] == run.id
    assert fields["created_at"] == f"{run.created:%Y-%m-%d %H:%M:%S} UTC (3h ago)"
    assert fields["end_time"].endswith(" UTC (3h ago)")
    assert fields["duration"] == "1m 01s (61 s)"
    assert fields["exit_code"] == "1"
    subject = run.triggered_by_subject  # one in twelve has none
    assert fields["subject_type"] == (subject.subject_type if subject else "-")
    assert ended.out.endswith(
        "error\n  Traceback (most recent call last):\n    File \"train.py\", line 7\n          boom\n  KeyError: 'x'\n"
    )
    names = re.findall(r"^(\w+)", ended.out, re.MULTILINE)
    wanted = {re.sub("[A-Z]", lambda found: "_" + found[0].lower(), name) for name in run.to_dict()}
    assert wanted - {"triggered_by_subject"} <= set(names)
    assert len(names) == len(set(names))


async def test_show_as_json_is_the_run_as_the_api_has_it(sandbox: Sandbox) -> None:
    run = sandbox.runs("b-job")[3]
    assert (await invoke("show", "b-job", run.name, "--json")).runs() == [run.to_dict()]


async def test_show_takes_an_id_a_name_or_the_start_of_either(sandbox: Sandbox) -> None:
    older = await sandbox.create_run("b-job", id="zid-1", name="again")
    newer = await sandbox.create_run("b-job", id="zid-2", name="again")
    longer = await sandbox.create_run("b-job", id="yid-3", name="again-and-again")
    for text, run in (
        ("zid-1", older),
        ("again", newer),  # the newest with that name, and none that only begins with it
        ("again-", longer),
        ("yid", longer),
    ):
        assert (await invoke("show", "b-job", text, "--json")).runs() == [run.to_dict()]


async def test_show_names_the_runs_that_it_can_not_choose_between(sandbox: Sandbox) -> None:
    for number in range(7):
        await sandbox.create_run("b-job", id=f"id-{number}", name=f"twin-{number}")
    ended = await invoke("show", "b-job", "twin")
    assert ended.status == 1
    assert "'twin' begins the ids or names of 7 runs: twin-6 (id-6), " in ended.complaint
    assert ended.complaint.endswith("and 2 more")


@pytest.mark.usefixtures("quick_clock")
async def test_show_has_the_status_of_wait_for_a_run_that_is_not_there(sandbox: Sandbox) -> None:
    shown, waited = await invoke("show", "b-job", "nowhere"), await invoke("wait", "b-job", "nowhere")
    assert (shown.status, waited.status) == (6, 6)
    assert "no run whose id or name begins with 'nowhere'" in shown.complaint
    assert (await invoke("show", "b-job", " ")).status == 2
    assert (await invoke("show", "no-such-job", "x")).status == 1


async def test_nothing_that_show_prints_controls_the_terminal(sandbox: Sandbox) -> None:
    run = await sandbox.create_run("b-job", name=NASTY, error=f"a\n{NASTY}\rb")
    ended = await invoke("show", "b-job", run.id)
    assert not re.search(r"[^\n\x20-\x7e\xa0-\u2027\u2030-\U0010ffff]", ended.out)


# --- since ------------------------------------------------------------------------------------------------------------

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("1h30m", timedelta(minutes=90)),
        ("1d12h", timedelta(hours=36)),
        ("1.5h", timedelta(minutes=90)),
        ("2H", timedelta(hours=2)),
        ("1w", timedelta(days=7)),
        ("2 hours ago", timedelta(hours=2)),
        ("1 hour 30 minutes", timedelta(minutes=90)),
        ("45min", timedelta(minutes=45)),
    ],
)
def test_a_time_may_be_how_long_ago(text: str, ago: timedelta) -> None:
    assert abs(datetime.now().astimezone() - moment(text) - ago) < timedelta(seconds=5)


def test_a_time_may_be_a_day_or_a_date() -> None:
    midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)  # noqa: DTZ005
    assert moment("today") == midnight.astimezone()
    assert moment("Yesterday") == (midnight - DAY).astimezone()
    assert moment(f"{midnight:%Y-%m-%d}") == midnight.astimezone()
    assert moment("2026-11-23T08:30Z").isoformat() == "2026-11-23T08:30:00+00:00"
    assert moment("2026-11-23T08:30+05:30").isoformat() == "2026-11-23T03:00:00+00:00"


@pytest.mark.parametrize("text", ["1M", "2mo", "3 months", "1y", "2 years ago"])
def test_months_are_refused_and_no_minutes(text: str) -> None:
    with pytest.raises(click.BadParameter, match="months and years differ in length, and m is for minutes"):
        moment(text)


@pytest.mark.parametrize("text", ["", "soon", "1m30", "-2h", "h", "ago", "1h-2h", "2026-13-01", "9e3s", "1h ago ago"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time: give one such as 30m"):
        moment(text)


async def test_since_yesterday_counts_as_the_date_does(sandbox: Sandbox) -> None:
    date = f"{datetime.now() - DAY:%Y-%m-%d}"  # noqa: DTZ005
    ended = await invoke("count", "a-job", "--since", "yesterday")
    assert ended == await invoke("count", "a-job", "--since", date)
    assert 0 < int(ended.out) < 1_200
