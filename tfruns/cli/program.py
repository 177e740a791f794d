"""The program: its commands, and what it does with each kind of error: one line on stderr and an exit status.

Every module of the command line imports only click at its top, and the rest inside its commands: `--help` is quick.
"""

import logging
import os
import signal
import threading
from types import FrameType

import click

import tfruns
from tfruns.cli.export import export
from tfruns.cli.options import ENVIRONMENT, Helpful
from tfruns.cli.output import NobodyReadsError, guard_streams, say
from tfruns.cli.runs import count, list_, show, wait, watch
from tfruns.cli.sandbox import demo, sandbox
from tfruns.version import __version__

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

_EPILOG = f"""
Examples:
  tfruns demo
  tfruns list my-job-id --since 2h
  tfruns export my-job-id -o runs.csv
{ENVIRONMENT}  If NO_COLOR is set, there are no colours.

Exit status (the help of a command has more):
  0 success, 1 failure, 2 wrong usage
  130 Ctrl-C, 143 SIGTERM, 129 SIGHUP

Completion, for ~/.bashrc (zsh and fish go likewise):
  eval "$(_TFRUNS_COMPLETE=bash_source tfruns)"
"""


class Group(Helpful, click.Group):
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


_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Group, epilog=_EPILOG, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="tfruns", message="%(prog)s %(version)s")
def program() -> None:
    """The run history of TrueFoundry jobs: list, show, count and export runs, and see what happens to them.

    `tfruns COMMAND --help` explains a command.
    """


for _command in (list_, show, count, export, watch, wait, sandbox, demo):
    program.add_command(_command)


_received: list[int] = []


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does now: in an event loop of `asyncio.run` cancel its task, the first time; else interrupt."""
    _received.append(number)
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(number, frame)


def _handle_signals() -> None:
    """From now on, signals that would end the program end it as Ctrl-C does, which cleans up.

    A container's first process has no default handlers: without one of its own, it would ignore SIGTERM. What the
    program was started to ignore, as by `nohup`, stays ignored.
    """
    if threading.current_thread() is threading.main_thread():  # only that one may have handlers
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _interrupt)


def run() -> int:
    guard_streams()
    _handle_signals()
    logger = logging.getLogger("tfruns")
    logger.addHandler(_Notices(logging.WARNING))
    logger.propagate = False
    try:
        return program.main(prog_name="tfruns", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except NobodyReadsError:  # as in `tfruns list JOB | head`, which has read enough
        return 0
    except Exception as error:
        message, status = _explained(error)
        say(message)
        return status


def _explained(error: Exception) -> tuple[str, int]:
    """What to say about an error, and the exit status."""
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx is not None else "tfruns"
        return f"{_usage_text(error)} (see {where} --help)", 2
    if isinstance(error, click.ClickException):
        return error.format_message(), 1
    if isinstance(error, click.Abort):
        # 128 and the number of the signal, as in shells: 130 for Ctrl-C.
        return f"interrupted{error}", 128 + (_received or [signal.SIGINT])[0]
    if isinstance(error, tfruns.TfRunsError):  # also where it is an OSError: a failure of the network
        return str(error), 1
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        if not where and isinstance(error, FileNotFoundError):  # of `os.getcwd`
            where = "the current folder has been removed: "
        return f"{where}{error.strerror or error}", 1
    raise error


def _usage_text(error: click.UsageError) -> str:
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


class _Notices(logging.Handler):
    """Shows each warning that the client logs, such as a retried request, as a line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())
