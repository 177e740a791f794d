"""Which control plane a command asks, and whether over plain http."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from tfruns.client import Client

_Command = TypeVar("_Command", bound=Callable[..., None])
_ALLOW_HTTP = "tfruns.allow_http"


def _keep(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_ALLOW_HTTP] = value


_OPTIONS = (
    click.option(
        "--host",
        metavar="URL",
        help="The control plane, such as https://acme.truefoundry.cloud. Else TFY_HOST, else the credentials file.",
    ),
    click.option(
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

    return tfruns.Client(host, allow_http=click.get_current_context().meta[_ALLOW_HTTP])
