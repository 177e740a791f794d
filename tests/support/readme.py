"""The code of the README and of the pages that it links to, as they have it."""

import re
from pathlib import Path

import attrs

README = Path(__file__).parents[2] / "README.md"
DOCS = README.parent / ".github" / "docs"
ROOMS = README.parent / "tfruns"


@attrs.frozen
class Block:
    """One fenced block of code."""

    language: str
    heading: str
    source: str
    page: Path
    first_line: int
    """The line of the page that its first line is."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(README.parent)}: {self.heading}, line {self.first_line}"


def blocks(language: str, page: Path = README) -> list[Block]:
    """All of a language, from the top."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start(2)]
        heading = re.findall(r"^#+ (.*)$", before, re.MULTILINE)[-1]
        found.append(Block(match[1], heading, match[2], page, before.count("\n") + 1))
    return [block for block in found if block.language == language]
