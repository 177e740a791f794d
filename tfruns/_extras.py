"""What to install for what isn't there."""

from pathlib import Path


def install(extra: str) -> str:
    """The command that installs an extra: from the checkout, where the package is in one."""
    is_checkout = (Path(__file__).parents[1] / "pyproject.toml").is_file()
    return f"pip install --editable '.[{extra}]'" if is_checkout else f"pip install 'tfruns[{extra}]'"
