"""How to install what is missing, in the way in which tfruns was installed."""

import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any


def install(extra: str) -> str:
    prefix = Path(sys.prefix)
    package = f"'tfruns[{extra}]'" if extra == "cli" else f"'tfruns[cli,{extra}]'"  # of these tools' own environments
    again = shlex.join(["tfruns", *sys.argv[1:]])
    if "archive-v0" in prefix.parts:
        return f"uvx --from {package} {again}"
    if (prefix / "uv-receipt.toml").is_file():
        return f"uv tool install {package}"
    if (prefix / "pipx_metadata.json").is_file():
        return f"pipx run --spec {package} {again}" if prefix.parent.name == ".cache" else f"pipx install -f {package}"
    origin = json.loads(_metadata("direct_url.json") or "{}")
    if not str(origin.get("url")).startswith("file:"):
        return install_package(f"'tfruns[{extra}]'")
    is_editable = origin.get("dir_info", {}).get("editable", False)
    return install_package(f"{'--editable ' * is_editable}'.[{extra}]'")


def install_package(package: str) -> str:
    return f"{'uv ' * (_metadata('INSTALLER') == 'uv')}pip install {package}"


def _metadata(file: str) -> str:
    from importlib.metadata import PackageNotFoundError, distribution  # slow, and only for errors

    try:
        return (distribution("tfruns").read_text(file) or "").strip()
    except PackageNotFoundError:
        return ""


def require(package: str, what: str) -> Any:
    """A package that no extra installs; an ImportError says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{what} needs {package}: {install_package(package)} ({error})") from error
