"""Which control plane a command uses, and whether over plain http."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from tfruns.cli.help import options_of

if TYPE_CHECKING:
    from tfruns.client import Client

_host = options_of("Control plane")

_Command = TypeVar("_Command", bound=Callable[..., None])
_ALLOW_HTTP = "tfruns.allow_http"

ENVIRONMENT = """
Environment:
  TFY_HOST     URL of the control plane, if --host doesn't name it
  TFY_API_KEY  the API key
  If unset, they are read from ~/.truefoundry/credentials.json, which the
  TrueFoundry CLI writes.
"""
"""What stands under the help of a command that uses a control plane."""


def _keep(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_ALLOW_HTTP] = value


_OPTIONS = (
    _host(
        "--host",
        metavar="URL",
        help="The control plane, such as https://acme.truefoundry.cloud. Else TFY_HOST, else the credentials file.",
    ),
    _host(
        "--allow-http",
        is_flag=True,
        expose_value=False,
        callback=_keep,
        help="Send the API key over plain http, where anyone on the way can read it, to other machines too.",
    ),
)


def host_options(command: _Command) -> _Command:
    """Give a command the options that say which control plane, and how."""
    return functools.reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


def connect(host: str | None) -> "Client":
    """A client for the control plane that the command's options name."""
    import tfruns

    try:
        return tfruns.Client(host, allow_http=click.get_current_context().meta[_ALLOW_HTTP])
    except tfruns.ConfigurationError as error:
        usage = wrong_usage(error)
        raise usage if usage.message.startswith("--host") else click.ClickException(usage.message) from None


# What no option of a command has as its name.
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
    from tfruns._checks import named_otherwise

    names = dict(_SPELLED)
    for parameter in click.get_current_context().command.params:
        is_option = isinstance(parameter, click.Option)
        names[str(parameter.name)] = parameter.opts[-1] if is_option else str(parameter.metavar).strip("[].")
    return click.UsageError(named_otherwise(error, names))
