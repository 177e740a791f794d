"""Processes for exports that are killed: forked, with all imported already, by a server that starts once."""

import functools
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

_IMPORTED = ["tests.support.forked", "tfruns.export", "pyarrow.parquet", "pyarrow.csv", "duckdb", "sqlite3"]


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    return context


def start(target: Callable[..., None], *args: Any) -> tuple[ForkServerProcess, Connection]:
    """Call the function of a module in a new process: with a connection first, whose other end is given here."""
    reader, writer = _server().Pipe(duplex=False)
    process = _server().Process(target=target, args=(writer, *args))
    process.start()
    writer.close()
    return process, reader
