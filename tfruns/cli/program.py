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
from tfruns.cli.help import ENVIRONMENT, Group, usage_text
from tfruns.cli.output import NobodyReadsError, guard_streams, say
from tfruns.cli.runs import count, list_, show, wait
from tfruns.cli.sandbox import demo, sandbox
from tfruns.cli.watch import watch
from tfruns.version import __version__

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
        return f"{usage_text(error)} (see {where} --help)", 2
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


class _Notices(logging.Handler):
    """Shows each warning that the client logs, such as a retried request, as a line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())
