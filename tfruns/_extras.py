"""How to install a package that is missing."""

import importlib
from pathlib import Path
from typing import Any


def install(extra: str) -> str:
    """The command that installs an extra: from the checkout, if the package is in one."""
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
