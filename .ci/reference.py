"""The reference: pages of the public modules, and `llms.txt`, the README and all docstrings in one text.

`python -W error .ci/reference.py FOLDER` writes both there, and `… .ci/reference.py --markdown` writes the pages of
`.github/docs/reference`, which people read on GitHub; with `--check`, it only says whether they are up to date.
"""

import argparse
import ast
import collections
import enum
import functools
import importlib
import inspect
import itertools
import re
import sys
import textwrap
import warnings
from pathlib import Path

import msgspec
import pdoc
from pdoc import doc

ROOT = Path(__file__).parents[1]
PAGES = ROOT / ".github" / "docs" / "reference"
MODULES = (
    "tfruns",
    "tfruns.errors",
    "tfruns.types",
    "tfruns.export",
    "tfruns.arrow",
    "tfruns.spark",
    "tfruns.otel",
    "tfruns.sandbox",
    "tfruns.pytest_plugin",
)
warnings.filterwarnings("ignore", "Cannot determine where tfruns.types.Filters.")  # a TypedDict
FIXTURES = ("tfruns_sandbox", "tfruns_client")
NAMES = ("Args", "Attributes", "Members", "Raises")
LISTS = (*NAMES, "Formats", "Destinations")
SECTION = re.compile(rf"^({'|'.join(LISTS)}|Returns|Yields|Example):\n((?: {{4}}.*\n|\n)+)", re.MULTILINE)


def llms_txt() -> str:
    """The README without its picture, and each public name with its signature and docstring."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = [re.sub(r"^!\[.*\n\n", "", readme, flags=re.MULTILINE).strip(), "# Reference"]
    parts += [re.sub("^#", "##", part) for of_module in modules().values() for part in of_module]
    return "\n\n".join(parts) + "\n"


def modules() -> dict[str, list[str]]:
    """The parts of each public module: its docstring, and each public name with its signature, and its docstring."""
    found = {}
    shown: set[str] = set()
    for name in MODULES:
        module = doc.Module(importlib.import_module(name))
        parts = [f"# {name}", module.docstring]
        public = getattr(module.obj, "__all__", FIXTURES)  # (errors are shown with `tfruns`)
        for member in module.members.values():
            if member.name in public and member.fullname not in shown:  # it belongs to the first module that shows it
                shown.add(member.fullname)
                parts += described(member)
        found[name] = [part for part in parts if part]
    return found


def pages() -> dict[Path, str]:
    """The same as pages of Markdown, with links from one to the others."""
    found = modules()
    links = " · ".join(f"[{name}]({name}.md)" for name in found)
    return {
        PAGES / f"{name}.md": "\n\n".join([links, *map(as_markdown, parts)]) + "\n" for name, parts in found.items()
    }


def as_markdown(part: str) -> str:
    """A signature below its name, or a docstring with its sections as lists and blocks."""
    if found := re.match(r"(#+) ((?:class |async def |def )?)([\w.]+)", part):
        signature = re.sub(r"\*<class '([\w.]+)'>", r"Unpack[\1]", part[found.end() :].rstrip(" :"))
        block = f"\n\n```python\n{found[2]}{found[3].rpartition('.')[2]}{signature}\n```" if signature else ""
        return f"{found[1]} {found[3]}{block}"

    def section(found: re.Match[str]) -> str:
        body = textwrap.dedent(found[2]).strip("\n") + "\n"
        if found[1] in LISTS:
            body = re.sub(r"^(?=\S)", "- ", body, flags=re.MULTILINE)
        if found[1] in NAMES:
            body = re.sub(r"^- ([^:\n]*): ", r"- `\1`: ", body, flags=re.MULTILINE)
        body = re.sub(r"^>>> .*\n(?:.+\n)*", r"```pycon\n\g<0>```\n", body, flags=re.MULTILINE)
        return f"**{found[1]}**\n\n{body}\n"

    return SECTION.sub(section, part + "\n").strip()


@functools.cache
def texts() -> dict[str, str]:
    """What only the source has: the texts below the fields of each class, or the members of each enum, and below names
    that a public module imports."""
    found: dict[str, str] = collections.defaultdict(str)
    for path in (ROOT / "tfruns").rglob("*.py"):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for owner in [module, *(node for node in module.body if isinstance(node, ast.ClassDef))]:
            for field, text in itertools.zip_longest(owner.body, owner.body[1:]):
                match owner, field, text:
                    case ast.Module(), ast.Assign([ast.Name(name)]), ast.Expr(ast.Constant(str(said))):
                        found[name] = said
                    case ast.ClassDef(), ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(said))):
                        found[owner.name] += "" if name[0] == "_" else f"    {name}: {' '.join(said.split())}\n"
                    case ast.ClassDef(), ast.Assign([ast.Name(name)], ast.Constant(str(value))), _:
                        found[owner.name] += f'    {name}: "{value}"\n'
    return found


def described(member: doc.Doc) -> list[str]:
    if isinstance(member, doc.Class):
        made = member.members.get("__init__")
        signature: object = made.signature_without_self if isinstance(made, doc.Function) else ""
        if issubclass(member.obj, msgspec.Struct):  # which has no `__init__` in Python
            signature = doc._PrettySignature([*inspect.signature(member.obj).parameters.values()])
        title = "Members" if issubclass(member.obj, enum.Enum) else "Attributes"
        entries = "".join(texts()[cls.__name__] for cls in reversed(member.obj.__mro__))
        found = [f"## class {member.fullname}{signature}", member.docstring, entries and f"{title}:\n{entries}"]
        for one in member.members.values():
            is_ours = one in member.own_members or one.taken_from[0].startswith("tfruns._")  # that of a private base
            found += described(one) if is_ours and is_public(one) else []
        return found
    if isinstance(member, doc.Function):
        kind = "async def" if "async" in member.funcdef else "def"
        return [f"### {kind} {member.fullname}{member.signature}", member.docstring]
    annotation = member.annotation_str if isinstance(member, doc.Variable) else ""
    if member.modulename == "tfruns.types" and not annotation:
        annotation = f" = {inspect.formatannotation(member.default_value)}"
    return [f"### {member.fullname}{annotation}", member.docstring or texts()[member.name]]


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
