"""How to install a package that is missing."""

import importlib
import shlex
import sys
from pathlib import Path
from typing import Any


def install(extra: str) -> str:
    """The command that installs an extra, in the way in which the package itself was installed."""
    prefix = Path(sys.prefix)
    package = f"'tfruns[{extra}]'" if extra == "cli" else f"'tfruns[cli,{extra}]'"  # of these tools' own environments
    again = shlex.join(["tfruns", *sys.argv[1:]])
    if "archive-v0" in prefix.parts:
        return f"uvx --from {package} {again}"
    if (prefix / "uv-receipt.toml").is_file():
        return f"uv tool install {package}"
    if (prefix / "pipx_metadata.json").is_file():
        return f"pipx run --spec {package} {again}" if prefix.parent.name == ".cache" else f"pipx install -f {package}"
    is_checkout = (Path(__file__).parents[1] / "pyproject.toml").is_file()
    return f"pip install --editable '.[{extra}]'" if is_checkout else f"pip install 'tfruns[{extra}]'"


def require(package: str, what: str) -> Any:
    """A package that no extra installs.

    Raises:
        ImportError: it isn't installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{what} needs {package}: pip install {package} ({error})") from error
