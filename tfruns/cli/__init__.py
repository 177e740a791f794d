"""The command line: the program `tfruns`, and `python -m tfruns`. It needs the extra `cli`."""

import importlib.util
import sys

from tfruns._extras import install


def main() -> int:
    """Run the command line on `sys.argv`, and return its exit status.

    0 is success, 1 a failure, 2 wrong usage, 130 an end by Ctrl-C.
    """
    if any(importlib.util.find_spec(name) is None for name in ("click", "rich")):
        print(f"tfruns: the command line needs click and rich: {install('cli')}", file=sys.stderr)
        return 1
    try:
        from tfruns.cli.program import run

        return run()
    except KeyboardInterrupt:  # outside the commands, which handle it themselves
        return 130
