"""The README's code, as the README has it."""

import re
from pathlib import Path

import attrs

README = Path(__file__).parents[2] / "README.md"


@attrs.frozen
class Block:
    """One fenced block of code."""

    language: str
    heading: str
    source: str
    first_line: int
    """The line of the README that its first line is."""

    def __str__(self) -> str:
        return f"{self.heading}, line {self.first_line}"


def blocks(language: str, page: Path = README) -> list[Block]:
    """All of a language, from the top."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start(2)]
        heading = re.findall(r"^#+ (.*)$", before, re.MULTILINE)[-1]
        found.append(Block(match[1], heading, match[2], before.count("\n") + 1))
    return [block for block in found if block.language == language]
