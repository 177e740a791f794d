"""The reference: pages of the public modules, and `llms.txt`, the README and all docstrings in one text.

`python -W error .ci/reference.py FOLDER` writes both there, and `… .ci/reference.py --markdown` writes the pages of
`.github/docs/reference`, which people read on GitHub; with `--check`, it only says whether they are up to date.
"""

import argparse
import importlib
import re
import sys
import textwrap
from pathlib import Path

import pdoc
from pdoc import doc

ROOT = Path(__file__).parents[1]
PAGES = ROOT / ".github" / "docs" / "reference"
MODULES = (
    "tfruns",
    "tfruns.errors",
    "tfruns.export",
    "tfruns.arrow",
    "tfruns.spark",
    "tfruns.otel",
    "tfruns.sandbox",
    "tfruns.pytest_plugin",
)


def llms_txt() -> str:
    """The README without its picture, and each public name with its signature and docstring."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = [re.sub(r"^!\[.*\n\n", "", readme, flags=re.MULTILINE).strip(), "# Reference"]
    parts += [re.sub("^#", "##", part) for texts in modules().values() for part in texts]
    return "\n\n".join(parts) + "\n"


def modules() -> dict[str, list[str]]:
    """The parts of each public module: its docstring, and each public name with its signature, and its docstring."""
    texts = {}
    shown: set[str] = set()
    for name in MODULES:
        module = doc.Module(importlib.import_module(name))
        parts = [f"# {name}", module.docstring]
        for member in module.members.values():
            if member.fullname not in shown:  # a name belongs to the first module that shows it
                shown.add(member.fullname)
                parts += described(member)
        texts[name] = [part for part in parts if part]
    return texts


def pages() -> dict[Path, str]:
    """The same as pages of Markdown, with links from one to the others."""
    texts = modules()
    links = " · ".join(f"[{name}]({name}.md)" for name in texts)
    return {
        PAGES / f"{name}.md": "\n\n".join([links, *map(as_markdown, parts)]) + "\n" for name, parts in texts.items()
    }


def as_markdown(part: str) -> str:
    """A signature below its name, or a docstring with its sections as lists and blocks."""
    if found := re.match(r"(#+) ((?:class |async def |def )?)([\w.]+)", part):
        signature = part[found.end() :].strip(" :")
        block = f"\n\n```python\n{found[2]}{found[3].rpartition('.')[2]}{signature}\n```" if signature else ""
        return f"{found[1]} {found[3]}{block}"
    text = re.sub(r"^(Args|Attributes|Returns|Yields|Raises|Example):$", r"**\1**\n", part, flags=re.MULTILINE)
    text = re.sub(r"^    (\w[^\n]*?): (.*(?:\n {8}.*)*)", r"- `\1`: \2", text, flags=re.MULTILINE)

    def block(found: re.Match[str]) -> str:
        return f"```pycon\n{textwrap.dedent(found[0])}```\n"

    return re.sub(r"^    >>> .*\n(?:    .*\n)*", block, text + "\n", flags=re.MULTILINE).strip()


def described(member: doc.Doc) -> list[str]:
    if isinstance(member, doc.Class):
        made = member.members.get("__init__")
        signature = made.signature_without_self if isinstance(made, doc.Function) else ""
        found = [f"## class {member.fullname}{signature}", member.docstring]
        for one in member.members.values():
            is_ours = one in member.own_members or one.taken_from[0].startswith("tfruns._")  # that of a private base
            found += described(one) if is_ours and is_public(one) else []
        return found
    if isinstance(member, doc.Function):
        kind = "async def" if "async" in member.funcdef else "def"
        return [f"### {kind} {member.fullname}{member.signature}", member.docstring]
    annotation = member.annotation_str if isinstance(member, doc.Variable) else ""
    return [f"### {member.fullname}{annotation}", member.docstring]


def is_public(member: doc.Doc) -> bool:
    return not member.name.startswith("_") and bool(member.docstring)


def main(folder: Path) -> None:
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*MODULES, output_directory=folder)
    text = llms_txt()
    missing = [name for name in importlib.import_module("tfruns").__all__ if f"tfruns.{name}" not in text]
    if missing:
        sys.exit(f"llms.txt lacks {missing}")
    (folder / "llms.txt").write_text(text, encoding="utf-8")
    print(f"{len([*folder.rglob('*.html')])} pages, and {len(text.splitlines()):,} lines of llms.txt")


def write_pages(*, check: bool) -> None:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check and stale:
        sys.exit(f"not up to date: {', '.join(path.name for path in stale)}: python .ci/reference.py --markdown")
    PAGES.mkdir(exist_ok=True)
    for path in stale:
        path.write_text(pages()[path], encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.markdown == (given.folder is not None):
        parser.error("either a FOLDER or --markdown")
    if given.markdown:
        write_pages(check=given.check)
    else:
        main(given.folder)
