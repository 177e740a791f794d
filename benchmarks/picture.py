"""The README's picture: `python -m benchmarks.picture` runs `tfruns demo` on a terminal, and draws what it shows."""

import io
import os
import pty
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

_WIDTH = 118
_PICTURE = Path(".github/demo.svg")


def capture() -> str:
    """What a terminal is sent."""
    shown = io.BytesIO()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 65_536)
        shown.write(data)
        return data

    os.environ |= {"COLUMNS": str(_WIDTH), "LINES": "50", "TERM": "xterm-256color"}
    pty.spawn([sys.executable, "-m", "tfruns", "demo"], read)
    return shown.getvalue().decode()


def main() -> None:
    terminal = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    terminal.print(Text.from_ansi("$ tfruns demo\n" + capture().replace("\r\n", "\n")))
    svg = terminal.export_svg(title="tfruns")
    _PICTURE.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))  # it would fetch fonts from elsewhere


if __name__ == "__main__":
    main()
