"""Commands as all of tfruns has them: help in groups, examples unchanged, names of other programs known."""

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

_Result = TypeVar("_Result")


ENVIRONMENT = """
Environment:
  TFY_HOST     URL of the control plane, if --host doesn't name it
  TFY_API_KEY  the API key
  If unset, they are read from ~/.truefoundry/credentials.json, which the
  TrueFoundry CLI writes. There is no option for the key: other users of this
  machine could read it in the list of processes.
"""
"""The end of the help of a command that uses a control plane."""

_KEY_OPTIONS = frozenset({"--api-key", "--key", "--token", "--access-token"})
_NO_KEY_OPTION = (
    "The key comes from TFY_API_KEY, or the credentials file: other users of this machine could read an option in the"
    " list of processes"
)
_OTHER_OPTIONS = {
    **dict.fromkeys(_KEY_OPTIONS, "--host"),
    **dict.fromkeys(("--limit", "-n", "--max"), "--max-runs"),
    **dict.fromkeys(("-o", "--output", "--format"), "--json"),
    **dict.fromkeys(("--no-trunc", "--no-truncate"), "--wide"),
    **dict.fromkeys(("--url", "--base-url"), "--host"),
    "--fields": "--columns",
    "--no-headers": "--no-header",
    "--jobs": "--jobs-from",
    "--sort": "--sort-by",
    "--version": "--version-number",
    "--prefix": "--search-prefix",
    "--retries": "--max-attempts",
    "--concurrency": "--max-concurrency",
    "--rate": "--max-rate",
    "--since-last": "--state",
}
_OTHER_COMMANDS = {
    **dict.fromkeys(("get", "describe", "view", "inspect", "info", "status"), "show"),
    **dict.fromkeys(("ls", "runs", "ps"), "list"),
    **dict.fromkeys(("follow", "tail"), "watch"),
    **dict.fromkeys(("download", "dump", "save"), "export"),
    "help": "--help",
    "version": "--version",
}


def usage_text(error: click.UsageError) -> str:
    """What is wrong; for an option of other programs, or in the wrong place, what is probably meant."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        name, command = error.option_name, error.ctx.command
        if isinstance(command, Group):
            takers = [each.name for each in command.commands.values() if name in _names(each)]
            if takers:
                return f"{name} goes after the command: tfruns {takers[0]} {name}"
        elif (meant := _OTHER_OPTIONS.get(name)) in _names(command):
            return f"No such option: {name}. {_NO_KEY_OPTION if name in _KEY_OPTIONS else f'Did you mean {meant}?'}"
    return error.format_message().rstrip(".")


def _names(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


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


class _Helpful(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:  # unchanged: the lines of an example are there to be copied
            formatter.write(f"\n{inspect.cleandoc(self.epilog)}\n")


class Command(_Helpful):
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


class Group(_Helpful, click.Group):
    """The program: its help has the commands in the order in which they were added."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but for the name of another program's command the error has the one that is meant."""
        if (meant := _OTHER_COMMANDS.get(args[0])) is not None:
            raise click.UsageError(f"No such command '{args[0]}'. Did you mean '{meant}'?", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)
