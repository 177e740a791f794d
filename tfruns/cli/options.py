"""Commands, options and arguments: how they are declared, those that are shared, and the client that they describe."""

import asyncio
import contextlib
import difflib
import functools
import inspect
import math
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import click

import tfruns
from tfruns._text import duration

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Result = TypeVar("_Result")

PATIENCE = 30
"""How many seconds to wait for the end of an outage, when somebody waits for the runs at a terminal."""

# Repeated here, because importing the models would make `--help` slow; a test compares them with the enums.
STATUSES = (
    *("CREATED", "SCHEDULED", "RUNNING", "FINISHED", "FAILED"),
    *("TERMINATION_REQUESTED", "TERMINATING", "TERMINATED", "UNKNOWN"),
)
SORT_KEYS = ("startTime", "duration", "deploymentVersion", "triggeredBy", "status")
DIRECTIONS = ("asc", "desc")


ENVIRONMENT = """
Environment:
  TFY_HOST     URL of the control plane, if --host doesn't name it
  TFY_API_KEY  the API key
  If unset, they are read from ~/.truefoundry/credentials.json, which the
  TrueFoundry CLI writes. There is no option for the key: other users of this
  machine could read it in the list of processes.
"""
"""The end of the help of a command that uses a control plane."""


def run_async(command: Coroutine[Any, Any, _Result]) -> _Result:
    """`asyncio.run`; an interruption is a KeyboardInterrupt, whatever error it leads to while the command cleans up."""

    async def main() -> _Result:
        task = asyncio.current_task()
        try:
            return await command
        except Exception:
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None
            raise

    return asyncio.run(main())


class Helpful(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:  # unchanged: the lines of an example are there to be copied
            formatter.write(f"\n{inspect.cleandoc(self.epilog)}\n")


class Command(Helpful):
    """A command whose help has the options in groups. It may be `async`; what it returns is its exit status.

    Its docstring from `Examples:` on is the end of the help, unchanged.
    """

    def __init__(self, name: str | None, *, help: str | None, params: list[click.Parameter], **settings: Any) -> None:  # noqa: A002
        text, begin, end = inspect.cleandoc(help or "").partition("Examples:\n")
        environment = ENVIRONMENT if any(one.name == "base_url" for one in params) else ""
        super().__init__(name, help=text, params=params, epilog=f"\n{begin}{end}\n{environment}", **settings)

    # In both, `ctx.invoke` lets every error about usage know its command, so that its help can be named.
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return ctx.invoke(super().parse_args, ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        result = super().invoke(ctx)
        return ctx.invoke(run_async, result) if inspect.iscoroutine(result) else result

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            # The first sentence explains the arguments: not every version of click has help texts for them.
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class _Option(click.Option):
    def __init__(self, *names: Any, group: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.group = group


def options_of(group: str, **common: Any) -> Callable[..., Callable[[_Command], _Command]]:
    """A maker of options under this heading of the help: `make("-o, --output DEST", "Where to write.")`.

    A value with `...` may be given several times; an option without one is a flag. `argument` is for a name in Python
    that isn't the option's; what else is given is for `click.option`.
    """

    def make(shown: str, text: str, argument: str | None = None, **settings: Any) -> Callable[[_Command], _Command]:
        words = shown.split()
        names = [word.rstrip(",") for word in words if word.startswith("-")]
        value = " ".join(words[len(names) :])
        given: dict[str, Any] = {"metavar": value.removesuffix("...") or None, "help": text, **common, **settings}
        if value.endswith("..."):
            given |= {"multiple": True, "help": f"{text} May be given several times."}
        elif not value and "type" not in settings:
            given["is_flag"] = True
        return click.option(*names, *filter(None, [argument]), cls=_Option, group=group, **given)

    return make


def combined(*decorators: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Several options as one decorator, which has them in this order in the help."""
    return lambda command: functools.reduce(lambda decorated, option: option(decorated), reversed(decorators), command)


class Whole(click.IntRange):
    name = "whole number"


class Number(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):  # no range leaves it out
            self.fail(f"{value!r} is no number", param, ctx)
        return number


class Seconds(Number):
    name = "number of seconds, or a duration such as 1h30m"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = duration(value) if isinstance(value, str) else None
        number: Any = value if seconds is None else seconds
        return super().convert(number, param, ctx)


class Word(click.Choice[str]):
    """One of some words, in any case. Messages and completions spell it as the help does, and say what is likely meant:
    if they are an enum of `tfruns.models`, also by the names that other systems have.
    """

    def __init__(self, words: Iterable[str], enum_name: str = "") -> None:
        super().__init__(words, case_sensitive=False)
        self._enum_name = enum_name

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        return next((word for word in self.choices if word.lower() == str(choice).lower()), str(choice))

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        from tfruns import models, query

        meant = next(iter(difflib.get_close_matches(value.lower(), self.choices, n=1)), None)
        if self._enum_name:
            meant = query.meant_value(value, getattr(models, self._enum_name))
        hint = "" if meant is None else f". Did you mean {meant}?"
        hint = ". Give the option once for each" if "," in value else hint
        return f"{value!r} is not one of {', '.join(self.choices)}{hint}"


_MONTHS = re.compile(r"[0-9.]+ *(M|mo|months?|y|yrs?|years?)( +ago)?")
_DAYS = {"today": 0, "yesterday": 1}


def moment(text: str) -> datetime:
    """The time that a text names: how long ago, a date, or a day."""
    word = "0s" if text.strip().lower() == "now" else text.strip()
    if _MONTHS.fullmatch(word):
        raise click.BadParameter(
            f"{text!r}: months and years differ in length, and m is for minutes: give days, such as 30d, or a date"
        )
    try:
        if (seconds := duration(re.sub(" +ago$", "", word, flags=re.IGNORECASE))) is not None:
            return datetime.now(UTC) - timedelta(seconds=seconds)
        if word.lower() in _DAYS:
            word = (date.today() - timedelta(days=_DAYS[word.lower()])).isoformat()  # noqa: DTZ011  # the user's day
        return datetime.fromisoformat(word).astimezone(UTC)
    except OverflowError:
        raise click.BadParameter(f"{text!r} is too long ago") from None
    except (ValueError, OSError):
        raise click.BadParameter(
            f"{text!r} is no time: give one such as 30m, 2h, 7d, 2026-11-23 or 2026-11-23T08:30Z"
        ) from None


_OTHER_COLUMNS = {"job": "job_id", "created": "created_at", "ended": "end_time", "version": "deployment_version"}


def _columns(text: str) -> tuple[str, ...]:
    from tfruns._table.columns import COLUMNS, JOB_ID

    known = (JOB_ID, *(column.name for column in COLUMNS), "age")
    columns = []
    for word in text.split(","):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])|[ -]", "_", word.strip()).lower()  # createdAt, created-at
        name = _OTHER_COLUMNS.get(name, name)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? There are" if close else "there are"
            raise click.BadParameter(f"no column {word.strip()!r}: {hint} {', '.join(known)}")
        columns.append(name)
    return tuple(dict.fromkeys(columns))


def with_given(function: Callable[..., _Result], *args: Any, **arguments: Any) -> _Result:
    """Call a function of the library with those of the arguments that were given; if one is wrong, so is the usage."""
    with checked():
        return function(*args, **{name: value for name, value in arguments.items() if value not in (None, ())})


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """In this block, an argument that the library refuses is wrong usage."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if isinstance(error, tfruns.TfRunsError):
            raise
        raise wrong_usage(error) from None


# An error about an argument begins with its name. Further on it names arguments in lists, or with names that can't be
# mistaken for words. Quoted values stay as they are.
_ARGUMENT = re.compile(
    r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|^\w+|(?<=, )\w+|\w+_\w+(?:=True)?|pass api_key, """
)
# Arguments that aren't options of the same name.
_SPELLED = {
    "allow_http=True": "--allow-http",
    "pass api_key, ": "",
    "job_id": "JOB",
    "run": "RUN",
    "resume_token": "the token in the file of --resume-from",
}


def wrong_usage(error: Exception) -> click.UsageError:
    """The error for an argument that the library refused, with the command's options in place of Python's arguments."""
    options = [each for each in click.get_current_context().command.params if isinstance(each, click.Option)]
    names = {**_SPELLED, **{str(option.name): option.opts[-1] for option in options}}
    return click.UsageError(_ARGUMENT.sub(lambda found: names.get(found[0], found[0]), str(error)))


def checked_id(job_id: str) -> str:
    """The id of a job; one that can't be an id is wrong usage."""
    from tfruns._checks import checked_job_id

    with_given(checked_job_id, job_id)
    if "://" in job_id:
        raise click.UsageError(f"{job_id!r} is a URL: JOB is the id of a job alone, which is a part of it")
    return job_id


jobs = click.argument(
    "job_ids",
    metavar="JOB...",
    nargs=-1,
    required=True,
    callback=lambda _, __, job_ids: [*dict.fromkeys(map(checked_id, job_ids))],
)
run_of_job = combined(
    click.argument("job_id", metavar="JOB", callback=lambda _, __, job_id: checked_id(job_id)),
    click.argument("run", metavar="RUN"),
)

which_runs = options_of("Which runs")
output = options_of("Output")
when = options_of("When")
_order = options_of("Order")

filters = combined(
    which_runs("--search-prefix TEXT", "Only runs whose name or id begins with TEXT."),
    which_runs(
        "--status STATUS...",
        f"Only runs with this status, in any case: {', '.join(STATUSES)}.",
        type=Word(STATUSES, "JobRunStatus"),
    ),
    which_runs("--triggered-by SLUG...", "Only runs started by this subject: an e-mail address or an account's name."),
    which_runs(
        "--version-number NUMBER...", "Only runs of this version of the deployment.", "version_numbers", type=float
    ),
)

order = combined(
    _order(
        "--sort-by KEY",
        f"What to sort by: {', '.join(SORT_KEYS)}. Else the server's order: newest first.",
        type=Word(SORT_KEYS, "JobRunsSortBy"),
    ),
    _order("--order", "Ascending or descending.", type=Word(DIRECTIONS, "SortDirection")),
)

window = combined(
    which_runs(
        "--since TIME",
        "Runs created since then: 30m, 1h30m, 7d or 1w ago, yesterday or today from 0:00, or 2026-11-23T08:30 in local"
        " time, or with Z in UTC.",
        "created_after",
        type=moment,
    ),
    which_runs(
        "--until TIME", "Only runs created before that time, given in the same way.", "created_before", type=moment
    ),
)

no_header = output("--no-header", "Leave out the line of headings.")
table = combined(
    output(
        "--columns A,B,…",
        "The columns, by the names of the fields, such as name,created_at,exit_code,error; age, too.",
        type=_columns,
    ),
    output("--wide", "Show every column whole, however wide the terminal is."),
    no_header,
)
"""Options for a table of runs, which `run_table` takes."""


def json(what: str) -> Callable[[_Command], _Command]:
    return output("--json", what, "as_json")


def interval(*default: float) -> Callable[[_Command], _Command]:
    """`--interval`, with the least and the most seconds by default."""
    return when(
        "--interval MIN MAX",
        "Seconds between two polls of a job: the least while its runs change, the most while nothing happens.",
        type=Seconds(0, 86_400, min_open=True),
        nargs=2,
        default=default,
    )


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep an argument of the client for `connect`."""
    if value is not None:
        context.ensure_object(dict)[parameter.name] = value


_host = options_of("Control plane", expose_value=False, callback=_keep)
_requests = options_of("Requests", expose_value=False, callback=_keep)

host = combined(
    _host(
        "--host URL",
        "The control plane, such as https://acme.truefoundry.cloud. By default TFY_HOST or the credentials file.",
        "base_url",
    ),
    _host(
        "--allow-http", "Send the API key over plain http, where anyone on the way can read it, to other machines too."
    ),
)


def requests(*, patience: int) -> Callable[[_Command], _Command]:
    """The options for requests. The patience, in seconds, is the default of its option."""
    return combined(
        options_of("Requests")("--page-size N", "Runs to request at once, at most.", type=Whole(1, 1000), default=1000),
        _requests(
            "--patience S",
            "Seconds without any good response that are worth waiting for.",
            type=Seconds(0, 86_400),
            default=patience,
        ),
        _requests(
            "--max-attempts N",
            "How often a request is sent at most. Else as often as --patience allows.",
            type=Whole(1, 1000),
        ),
        _requests("--timeout S", "Seconds for one response. Default: 60.", type=Seconds(0.001, 86_400)),
        _requests("--max-concurrency N", "Requests in flight at most. Default: 16.", type=Whole(1, 10_000)),
        _requests(
            "--max-rate N",
            "Requests a second at most. Else as many as the server takes.",
            type=Number(0.001, 1_000_000),
        ),
    )


def connect(**defaults: Any) -> "tfruns.Client":
    """A client for the control plane that the command's options name. It sends requests as they say, or, for a command
    without such options, as the defaults say.
    """
    settings: dict[str, Any] = {**defaults, **click.get_current_context().ensure_object(dict)}
    retry = {name: settings.pop(name) for name in ("patience", "max_attempts") if name in settings}
    try:
        return tfruns.Client(retry=tfruns.RetryPolicy(**retry), **settings)
    except tfruns.ConfigurationError as error:
        usage = wrong_usage(error)
        raise usage if usage.message.startswith("--host") else click.ClickException(usage.message) from None
