"""A page and a collected list are tables to other libraries, and to a notebook."""

import copy
import html.parser
import pickle
from pathlib import Path
from typing import Any

import attrs
import pytest

import tfruns
import tfruns.arrow
from tests.decode.test_models import RUN
from tfruns.sandbox import Sandbox

pa = pytest.importorskip("pyarrow")


async def collected(jobs: int = 1, runs: int = 250) -> tuple[tfruns.RunPage, tfruns.RunList, Any]:
    """A page of a job's runs, all of them as a list, and as a table."""
    async with Sandbox(jobs, runs) as sandbox, tfruns.Client(sandbox.url, sandbox.api_key) as client:
        walked = client.iter_runs(sandbox.job_ids[0])
        return await client.list_runs(sandbox.job_ids[0]), await walked.collect(), await walked.to_arrow()


def without_job(table: Any) -> Any:
    return pa.table(table).drop_columns("job_id")


async def test_pyarrow_takes_a_page_for_a_table_of_its_runs() -> None:
    page, _, whole = await collected()
    table = pa.table(page)
    assert table.schema.names == whole.schema.names[1:]
    assert table.to_pylist() == without_job(whole.slice(0, 100)).to_pylist()


def test_an_empty_page_is_an_empty_table_with_the_same_columns() -> None:
    empty = pa.table(tfruns.RunPage((), tfruns.Pagination(0)))
    assert (empty.num_rows, empty.schema) == (0, pa.table(tfruns.RunPage((RUN,), tfruns.Pagination(1))).schema)


@pytest.mark.polars
async def test_polars_takes_a_page_for_a_data_frame() -> None:
    polars = pytest.importorskip("polars")
    page, _, whole = await collected()
    frame = polars.DataFrame(page)
    assert frame.equals(polars.DataFrame(whole.slice(0, 100)).drop("job_id"))
    assert frame["status"].to_list() == [run.status for run in page]


async def test_duckdb_queries_a_page_by_the_name_of_its_variable() -> None:
    duckdb = pytest.importorskip("duckdb")
    page, _, _ = await collected()
    with duckdb.connect() as database:
        found = database.sql("SELECT id, epoch_ms(created_at) FROM page WHERE status = 'FAILED'").fetchall()
    assert found == [(run.id, run.created_at) for run in page if run.status == "FAILED"]


async def test_pandas_makes_a_data_frame_of_a_page() -> None:
    pandas = pytest.importorskip("pandas", minversion="3")
    page, _, _ = await collected()
    frame = pandas.DataFrame.from_arrow(page)
    assert [*frame["id"]] == [run.id for run in page]


async def test_a_collected_list_is_the_table_that_to_arrow_makes() -> None:
    _, runs, whole = await collected()
    assert runs.to_arrow().equals(whole)
    assert pa.RecordBatchReader.from_stream(runs).read_all().equals(whole)


def test_the_runs_of_many_jobs_are_one_table_with_their_jobs() -> None:
    pairs = tfruns.JobsRunList([("a", RUN), ("b", RUN), ("a", attrs.evolve(RUN, id="2"))])
    table = pairs.to_arrow()
    assert table.schema == tfruns.arrow.SCHEMA
    assert [*zip(table["job_id"].to_pylist(), table["id"].to_pylist(), strict=True)] == [
        ("a", RUN.id),
        ("b", RUN.id),
        ("a", "2"),
    ]
    assert tfruns.JobsRunList().to_arrow().schema == tfruns.arrow.SCHEMA


def test_many_small_jobs_are_few_batches() -> None:
    """One for each job would take half a millisecond each."""
    pairs = tfruns.JobsRunList((f"job-{number}", RUN) for number in range(12_000))
    table = pairs.to_arrow()
    assert table["job_id"].to_pylist() == [job_id for job_id, _ in pairs]
    assert table["id"].num_chunks == 2


async def test_a_collected_list_is_a_list() -> None:
    page, runs, _ = await collected()
    assert isinstance(runs, list)
    assert runs[:100] == [*page]
    for twin in (pickle.loads(pickle.dumps(runs)), copy.copy(runs), copy.deepcopy(runs)):  # noqa: S301
        assert (type(twin), twin, twin.job_id) == (tfruns.RunList, runs, runs.job_id)


async def test_the_repr_of_a_long_list_shows_its_beginning() -> None:
    _, runs, _ = await collected()
    assert repr(runs) == f"{repr(runs[:20])[:-1]}, … and 230 more]"
    assert repr(tfruns.RunList(runs[:20])) == repr(runs[:20])


def test_a_page_has_a_length_and_places() -> None:
    other = attrs.evolve(RUN, id="2")
    page = tfruns.RunPage((RUN, other), tfruns.Pagination(2))
    assert (len(page), page[0], page[-1], page[1:]) == (2, RUN, other, (other,))
    assert [*reversed(page)] == [other, RUN]
    with pytest.raises(IndexError):
        page[2]


class Cells(html.parser.HTMLParser):
    """The rows of a table in HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data


async def test_a_notebook_shows_the_first_runs_and_how_many_there_are() -> None:
    page, runs, _ = await collected()
    for shown, caption in (
        (page, "100 runs of 250; the first 20 are shown"),
        (runs, "250 runs; the first 20 are shown"),
    ):
        text = shown._repr_html_()
        assert f"<caption>{caption}</caption>" in text
        header, *rows = Cells(text).rows
        assert header == ["name", "status", "created_at", "duration", "triggered_by", "exit_code", "error"]
        assert [row[:2] for row in rows] == [[run.name, run.status] for run in page[:20]]
    (_, row) = Cells(tfruns.JobsRunList([("a", RUN)])._repr_html_()).rows
    assert row == ["a", "train-1", "FINISHED", "2024-06-24T12:00:00Z", "60", "jane@acme.com", "0", ""]


def test_what_a_server_sent_is_text_in_a_notebook_and_short() -> None:
    nasty = attrs.evolve(RUN, name='<script>"&\x1b[2J', error="<b>" + "x" * 1_000_000, created_at=1e300)
    text = tfruns.RunList([nasty], job_id="<i>")._repr_html_()
    parsed = Cells(text)
    assert parsed.tags == {"table", "caption", "tr", "th", "td"}
    assert parsed.rows[1][:3] == [r'<script>"&\x1b[2J', "FINISHED", "1e+300"]
    assert len(text) < 2_000


@pytest.mark.recipes
def test_a_real_kernel_shows_a_page_as_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # the tests' home doesn't exist
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cell = """
from tfruns import Client
from tfruns.sandbox import Sandbox
async with Sandbox(["my-job-id"], 250) as sandbox, Client(sandbox.url, sandbox.api_key) as client:
    page = await client.list_runs("my-job-id")
page
"""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(book, timeout=300).execute()
    [output] = book.cells[0].outputs
    assert output["data"]["text/html"].startswith("<table><caption>100 runs of 250; the first 20 are shown</caption>")
    assert output["data"]["text/plain"].startswith("RunPage(data=<100 runs>")
