"""What is measured: each function gives one or more rows of the table. Rounds are interleaved: a b c d, a b c d, …"""

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import msgspec
import orjson
from truefoundry_sdk.types.list_job_run_response import ListJobRunResponse

import tfruns
from benchmarks.clients import NAMES, Worker
from benchmarks.plain import plain_converter
from benchmarks.server import page_body, run_texts, serving
from tfruns._decode import explain as structure
from tfruns.models import JobRun


@attrs.frozen
class Row:
    """One line of the table: medians of `unit`, by who, with the spread of the first."""

    what: str
    unit: str
    medians: dict[str, float]
    spread: tuple[float, float]
    target: str = ""
    is_met: bool | None = None

    def ratio(self, name: str, to: str) -> float:
        """How many times `to` it took."""
        return self.medians[name] / self.medians[to]


def _row(what: str, unit: str, measures: dict[str, Callable[[], float]], rounds: int) -> Row:
    """Each is measured once a round. The first round is for warming up, and isn't counted."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for round_ in range(rounds + 1):
        for name, measure in measures.items():
            value = measure()
            if round_:
                taken[name].append(value)
    first = next(iter(taken.values()))
    return Row(what, unit, {name: statistics.median(each) for name, each in taken.items()}, (min(first), max(first)))


def _judged(row: Row, target: str, *, is_met: bool) -> Row:
    return attrs.evolve(row, target=target, is_met=is_met)


@contextmanager
def _workers(names: Iterable[str] = NAMES) -> Iterator[dict[str, Worker]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(Worker(name)) for name in names}


def _walks(workers: dict[str, Worker], url: str, *jobs: str, per: float = 1, **how: Any) -> dict[str, Any]:
    key = "ms" if how.get("watch") else "s"
    return {
        name: lambda worker=worker: worker.walk(url, list(jobs), **how)[key] * per for name, worker in workers.items()
    }


def end_to_end() -> list[Row]:
    """One job over loopback without latency, and with 100 ms a page."""
    count = 100_000
    rows = []
    with _workers() as workers:
        with serving(count) as url:
            row = _row("one job, no latency", "us a run", _walks(workers, url, f"job-{count}", per=1e6 / count), 7)
        rows.append(_judged(row, ">= 25x the vendor's SDK", is_met=row.ratio("vendor", "ours") >= 25))
        with serving(count, latency=100) as url:
            row = _row("100 pages, 100 ms a page", "s", _walks(workers, url, f"job-{count}"), 2)
        rows.append(_judged(row, ">= 15x the vendor's SDK", is_met=row.ratio("vendor", "ours") >= 15))
    return rows


def decoding() -> list[Row]:
    """A page's bytes to what each library makes of them."""
    body = page_body(run_texts(1000), 0, 1000)
    converter = plain_converter()
    structs = msgspec.json.Decoder(structure._structs[tfruns.RunPage])

    def clocked(decode: Callable[[], Any]) -> Callable[[], float]:
        def measure() -> float:
            gc.collect()
            begun = time.perf_counter()
            decode()
            return (time.perf_counter() - begun) * 1000

        return measure

    measures: dict[str, Callable[[], Any]] = {
        "ours": lambda: structure.decode_page(body, job_id="job", offset=0),
        "orjson.loads": lambda: orjson.loads(body),
        "msgspec": lambda: structs.decode(body),
        "plain cattrs": lambda: [converter.structure(run, JobRun) for run in orjson.loads(body)["data"]],
        "vendor": lambda: ListJobRunResponse.parse_obj(orjson.loads(body)),
    }
    timed = {name: clocked(decode) for name, decode in measures.items()}
    row = _row("decode a page of 1,000", "us a run", timed, 50)
    return [_judged(row, "<= 2x orjson.loads", is_met=row.ratio("ours", "orjson.loads") <= 2)]


def many_jobs() -> list[Row]:
    """1,000 jobs of 1 to 50 pages of 100 runs, 20 ms a page, 16 requests at a time; a few jobs are long."""
    sizes = [max(1, min(50, 50 * 20 // (n + 1))) * 100 - 50 for n in range(1000)]
    jobs = [f"job-{size}" for size in sorted(sizes, key=lambda size: size * 7919 % 1009)]
    pages = sum(-(-size // 100) for size in sizes)
    with _workers() as workers, serving(5000, latency=20) as url:
        row = _row(f"1,000 jobs, {pages:,} pages, 20 ms a page", "s", _walks(workers, url, *jobs, page_size=100), 2)
    return [_judged(row, "<= 1.3x the floor", is_met=row.ratio("ours", "floor") <= 1.3)]


def memory() -> list[Row]:
    """Peak memory of a process that walks a job, by how many runs it has. (The vendor's SDK would take too long.)"""
    rows = []
    names = ("ours", "plain", "floor")
    with serving(1_000_000) as url:
        for size in (50_000, 1_000_000):
            with _workers(names) as workers:
                peaks = {name: worker.walk(url, [f"job-{size}"])["MiB"] for name, worker in workers.items()}
            rows.append(Row(f"peak memory, {size:,} runs", "MiB", peaks, (peaks["ours"], peaks["ours"])))
    more = rows[1].medians["ours"] - rows[0].medians["ours"]
    return [rows[0], _judged(rows[1], "within 20 MiB of 50,000 runs", is_met=more <= 20)]


def start_up() -> list[Row]:
    """The time of `import tfruns` and of `tfruns --help`, each as a process of its own."""

    def run(*arguments: str) -> Callable[[], float]:
        def measure() -> float:
            begun = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            return (time.perf_counter() - begun) * 1000

        return measure

    imports = {"ours": "tfruns", "aiohttp, cattrs": "aiohttp, cattrs", "vendor": "truefoundry_sdk", "nothing": "sys"}
    row = _row("import", "ms", {name: run("-c", f"import {what}") for name, what in imports.items()}, 9)
    rows = [_judged(row, "<= 1.1x aiohttp and cattrs", is_met=row.ratio("ours", "aiohttp, cattrs") <= 1.1)]
    row = _row("tfruns --help", "ms", {"ours": run("-m", "tfruns", "--help")}, 9)
    return [*rows, _judged(row, "< 300 ms", is_met=row.medians["ours"] < 300)]


def longest_hold() -> list[Row]:
    """For how long the event loop was held at a time, while one job of 100 pages was walked."""
    with _workers() as workers, serving(100_000) as url:
        row = _row("longest hold of the event loop", "ms", _walks(workers, url, "job-100000", watch=True), 3)
    return [_judged(row, "<= 10 ms", is_met=row.medians["ours"] <= 10)]
