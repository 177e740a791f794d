"""What every test has: an environment without a control plane of its own."""

import signal
from pathlib import Path

import pytest

# A process started in the background may have been told to ignore Ctrl-C, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_control_plane(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may be logged in somewhere: no test may see that."""
    monkeypatch.delenv("TFY_HOST", raising=False)
    monkeypatch.delenv("TFY_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
