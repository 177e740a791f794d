"""The client of a command, and what is wrong with the command's arguments."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tfruns.cli.options import SETTINGS
from tfruns.cli.output import say

if TYPE_CHECKING:
    from tfruns.client import Client
    from tfruns.errors import TfRunsError

_Result = TypeVar("_Result")
PATIENCE = 30
"""How many seconds to wait for the end of an outage, when somebody waits for the runs at a terminal."""
_OF_RETRIES = ("patience", "max_attempts")


def connect(**defaults: Any) -> "Client":
    """A client for the control plane that the command's options name. It sends requests as they say, or, for a command
    without such options, as the defaults say.
    """
    import tfruns

    settings: dict[str, Any] = {**defaults, **click.get_current_context().meta.get(SETTINGS, {})}
    retry = {name: settings.pop(name) for name in _OF_RETRIES if name in settings}
    try:
        return tfruns.Client(retry=tfruns.RetryPolicy(**retry), **settings)
    except tfruns.ConfigurationError as error:
        usage = wrong_usage(error)
        raise usage if usage.message.startswith("--host") else click.ClickException(usage.message) from None


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
        from tfruns.errors import TfRunsError

        if isinstance(error, TfRunsError):
            raise
        raise wrong_usage(error) from None


def checked_ids(job_ids: Iterable[str]) -> list[str]:
    """The ids of jobs, each once; one that can't be an id is wrong usage."""
    from tfruns._checks import checked_job_id

    ids = list(dict.fromkeys(job_ids))
    for job_id in ids:
        with_given(checked_job_id, job_id)
        if "://" in job_id:
            raise click.UsageError(f"{job_id!r} is a URL: JOB is the id of a job alone, which is a part of it")
    return ids


def say_failures(errors: "Mapping[str, TfRunsError]", jobs: int) -> int:
    """Say which of several jobs failed, and return the exit status."""
    for error in errors.values():
        say(str(error))
    return 0 if not errors else 3 if len(errors) < jobs else 1


# An error about an argument begins with its name; further on it names only arguments whose names can't be mistaken for
# words. Quoted values stay as they are.
_ARGUMENT = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|^\w+|\w+_\w+(?:=True)?|pass api_key, """)
# Arguments whose option, if there is one, has another name.
_SPELLED = {
    "base_url": "--host",
    "allow_http=True": "--allow-http",
    "pass api_key, ": "",
    "job_id": "JOB",
    "format": "--format",
    "resume_token": "the token in the file of --resume-from",
}


def wrong_usage(error: Exception) -> click.UsageError:
    """The error for an argument that the library refused, with the command's options in place of Python's arguments."""
    names = dict(_SPELLED)
    for parameter in click.get_current_context().command.params:
        is_option = isinstance(parameter, click.Option)
        names[str(parameter.name)] = parameter.opts[-1] if is_option else str(parameter.metavar).strip("[].")
    return click.UsageError(_ARGUMENT.sub(lambda found: names.get(found[0], found[0]), str(error)))
