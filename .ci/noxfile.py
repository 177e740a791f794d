"""The suite on every Python, at the lowest bounds and without extras: `nox -f .ci/noxfile.py`, with uv installed."""

from pathlib import Path

import nox

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
NEED_NO_EXTRA = (
    "tests/walk",
    "tests/watch",
    "tests/decode/test_decode.py",
    "tests/http",
    "--ignore=tests/http/test_otel.py",
    "--ignore=tests/http/test_key_stays_home.py",
    "tests/test_query.py",
)
TOOLS = ("pytest", "pytest-asyncio", "pytest-xdist", "hypothesis", "jsonschema-rs", "pyyaml", "trustme")

nox.options.default_venv_backend = "uv"
nox.options.sessions = ["suite", "lowest", "bare"]


def pytest(session: nox.Session, *arguments: str) -> None:
    session.run("python", "-m", "pytest", "-n", "auto", "-p", "no:cacheprovider", *arguments, *session.posargs)


@nox.session(python=PYTHONS)
def suite(session: nox.Session) -> None:
    """Every test but those of the recipes. `-- -m 'not slow'` leaves out what takes minutes."""
    session.chdir(ROOT)
    session.install("--editable", ".[dev]")
    pytest(session, "-m", "not recipes")


@nox.session(python="3.13")
def systems(session: nox.Session) -> None:
    """What differs between systems, for Windows and macOS."""
    session.chdir(ROOT)
    session.install("--editable", ".[test]")
    pytest(session, *(f"tests/{room}" for room in ("decode", "http", "walk", "export", "cli")))


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The oldest version of each package that pyproject.toml allows, with today's test tools."""
    session.chdir(ROOT)
    bounds = Path(session.create_tmp()) / "lowest.txt"
    arguments = ("pyproject.toml", "--extra", "all", "--resolution", "lowest-direct", "--python-version", PYTHONS[0])
    session.run("uv", "pip", "compile", "--quiet", *arguments, "--output-file", str(bounds), external=True)
    session.install("--constraint", str(bounds), "--editable", ".[all,test]")
    pytest(session, "-m", "not (recipes or slow or vendor or s3 or postgres or spark)")


@nox.session(python=(PYTHONS[0], PYTHONS[-1]))
def bare(session: nox.Session) -> None:
    """The client alone, as `pip install tfruns` brings it."""
    session.chdir(ROOT)
    session.install("--editable", ".", *TOOLS)
    pytest(session, *NEED_NO_EXTRA)


@nox.session(python="3.12")
def recipes(session: nox.Session) -> None:
    """The recipes whose packages are too large for everybody's tests: Airflow, Delta Lake, dlt, the vendor's SDK."""
    session.chdir(ROOT)
    session.install("--editable", ".[recipes]")
    pytest(session, "-m", "recipes")
