"""The reference: pages of the public modules, and `llms.txt`, the README and all docstrings in one text.

`python -W error .ci/reference.py FOLDER` writes both there.
"""

import importlib
import re
import sys
from pathlib import Path

import pdoc
from pdoc import doc

ROOT = Path(__file__).parents[1]
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
    shown: set[str] = set()
    for name in MODULES:
        module = doc.Module(importlib.import_module(name))
        parts += [f"## {name}", module.docstring]
        for member in module.members.values():
            if member.fullname not in shown:  # a name belongs to the first module that shows it
                shown.add(member.fullname)
                parts += described(member)
    return "\n\n".join(part for part in parts if part) + "\n"


def described(member: doc.Doc) -> list[str]:
    if isinstance(member, doc.Class):
        made = member.members.get("__init__")
        signature = made.signature_without_self if isinstance(made, doc.Function) else ""
        found = [f"### class {member.fullname}{signature}", member.docstring]
        for own in member.own_members:
            found += described(own) if is_public(own) else []
        return found
    if isinstance(member, doc.Function):
        kind = "async def" if "async" in member.funcdef else "def"
        return [f"#### {kind} {member.fullname}{member.signature}", member.docstring]
    annotation = member.annotation_str if isinstance(member, doc.Variable) else ""
    return [f"#### {member.fullname}{annotation}", member.docstring]


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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
