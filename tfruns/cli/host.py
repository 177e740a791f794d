"""Which control plane a command uses, and how requests are sent to it."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tfruns.cli.help import options, options_of
from tfruns.cli.text import on_one_line

if TYPE_CHECKING:
    from tfruns.client import Client
    from tfruns.errors import TfRunsError

_Command = TypeVar("_Command", bound=Callable[..., None])
_Result = TypeVar("_Result")
_SETTINGS = "tfruns.settings"
_OF_RETRIES = ("patience", "max_attempts")

ENVIRONMENT = """
Environment:
  TFY_HOST     URL of the control plane, if --host doesn't name it
  TFY_API_KEY  the API key
  If unset, they are read from ~/.truefoundry/credentials.json, which the
  TrueFoundry CLI writes.
"""
"""The end of the help of a command that uses a control plane."""


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep an argument of the client for `connect`."""
    if value is not None:
        context.meta.setdefault(_SETTINGS, {})[parameter.name] = value


_host = options_of("Control plane")
_requests = functools.partial(options_of("Requests"), expose_value=False, callback=_keep)

host_options = options(
    _host(
        "--host",
        metavar="URL",
        help="The control plane, such as https://acme.truefoundry.cloud. By default TFY_HOST or the credentials file.",
    ),
    _host(
        "--allow-http",
        is_flag=True,
        expose_value=False,
        callback=_keep,
        help="Send the API key over plain http, where anyone on the way can read it, to other machines too.",
    ),
)


_REQUEST_OPTIONS = (
    _requests(
        "--max-attempts",
        type=click.IntRange(1, 1000),
        metavar="N",
        help="How often a request is sent at most. Else as often as --patience allows.",
    ),
    _requests(
        "--timeout", type=click.FloatRange(0.001, 86_400), metavar="S", help="Seconds for one response. Default: 60."
    ),
    _requests(
        "--max-concurrency",
        type=click.IntRange(1, 10_000),
        metavar="N",
        help="Requests in flight at most. Default: 16.",
    ),
    _requests(
        "--max-rate",
        type=click.FloatRange(0.001, 1_000_000),
        metavar="N",
        help="Requests a second at most. Else as many as the server takes.",
    ),
)


def request_options(*, patience: int) -> Callable[[_Command], _Command]:
    """Give a command the options for requests. The patience, in seconds, is the default of its option."""
    option = _requests(
        "--patience",
        type=click.FloatRange(0, 86_400),
        metavar="S",
        default=patience,
        show_default=True,
        help="Seconds without any good response that are worth waiting for.",
    )
    return options(option, *_REQUEST_OPTIONS)


def connect(host: str | None, **defaults: Any) -> "Client":
    """A client for the control plane that the command's options name. It sends requests as they say, or, for a command
    without such options, as the defaults say.
    """
    import tfruns

    settings: dict[str, Any] = {**defaults, **click.get_current_context().meta.get(_SETTINGS, {})}
    retry = {name: settings.pop(name) for name in _OF_RETRIES if name in settings}
    try:
        return tfruns.Client(host, retry=tfruns.RetryPolicy(**retry), **settings)
    except tfruns.ConfigurationError as error:
        usage = wrong_usage(error)
        raise usage if usage.message.startswith("--host") else click.ClickException(usage.message) from None


# An error about an argument begins with its name; further on it names only arguments whose names can't be mistaken for
# words. Quoted values stay as they are.
_ARGUMENT = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|^\w+|\w+_\w+(?:=True)?|pass api_key, """)


def with_given(method: Callable[..., _Result], *args: Any, **arguments: Any) -> _Result:
    """Call a method of the client with those of the arguments that were given; if one is wrong, that is wrong usage."""
    try:
        return method(*args, **{name: value for name, value in arguments.items() if value not in (None, ())})
    except (TypeError, ValueError) as error:
        raise wrong_usage(error) from None


def checked_ids(job_ids: Iterable[str]) -> list[str]:
    """The ids of jobs, each once; one that can't be an id is wrong usage."""
    from tfruns._checks import checked_job_id

    return [with_given(checked_job_id, job_id) for job_id in dict.fromkeys(job_ids)]


def say_failures(errors: "Mapping[str, TfRunsError]", jobs: int) -> int:
    """Say which of several jobs failed, and return the exit status."""
    for error in errors.values():
        click.echo(f"tfruns: {on_one_line(str(error))}", err=True)
    return 0 if not errors else 3 if len(errors) < jobs else 1


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
