"""Runs the Python snippets of the documentation: those of the README and of docstrings."""

import ast
import asyncio
import inspect
import linecache
import textwrap
from pathlib import Path
from typing import Any


async def run_snippet(source: str, *, filename: str, first_line: int = 1, namespace: dict[str, Any]) -> dict[str, Any]:
    """Run a snippet as the asyncio REPL would: `await`, `async for` and `async with` may stand at its top.

    One that has none of these at its top runs in a thread of its own, so that it may call `asyncio.run`, while the
    event loop goes on serving a sandbox.

    Args:
        source: the snippet; indented as a whole or not.
        filename: the file it is in, which tracebacks name.
        first_line: the line of the file that it begins at, so that tracebacks show the right one.
        namespace: the names that it finds, and where it leaves its own.

    Returns:
        The namespace.
    """
    padded = "\n" * (first_line - 1) + textwrap.dedent(source)
    if not Path(filename).is_file():
        linecache.cache[filename] = len(padded), None, padded.splitlines(keepends=True), filename
    code = compile(padded, filename, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    namespace.setdefault("__name__", "__main__")
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, namespace)  # noqa: S307
    else:
        await asyncio.to_thread(exec, code, namespace)
    return namespace
