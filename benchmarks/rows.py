"""What is measured: each function gives one or more rows of the table. Rounds are interleaved: a b c d, a b c d, …"""

import gc
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import msgspec
import orjson
from truefoundry_sdk.types.list_job_run_response import ListJobRunResponse

import tfruns
from benchmarks import proxy
from benchmarks.clients import NAMES, Worker
from benchmarks.plain import plain_converter
from benchmarks.server import page_body, run_texts, serving
from tfruns._decode.body import decode_page
from tfruns.models import JobRun

_FAST = ("ours", "plain", "bytes", "floor")  # the vendor's SDK would take too long


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

    def held_to(self, name: str, to: str, *, most: float) -> "Row":
        """The row with a target: it took at most so many times `to`."""
        return self._judged(f"{name} <= {most:g}x {to}", self.ratio(name, to), is_met=self.ratio(name, to) <= most)

    def ahead_of(self, name: str, to: str, *, least: float) -> "Row":
        """The row with a target: it took at least so many times `to`."""
        return self._judged(f"{name} >= {least:g}x {to}", self.ratio(name, to), is_met=self.ratio(name, to) >= least)

    def within(self, most: float) -> "Row":
        """The row with a target: the first takes at most so much."""
        first = next(iter(self.medians.values()))
        return self._judged(f"<= {most:g} {self.unit}", first, is_met=first <= most)

    def _judged(self, target: str, value: float, *, is_met: bool) -> "Row":
        met = "" if self.is_met is None else f"{self.target}; "
        return attrs.evolve(self, target=f"{met}{target}: {value:.2f}", is_met=is_met and self.is_met is not False)


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


@contextmanager
def _workers(names: Iterable[str] = NAMES) -> Iterator[dict[str, Worker]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(Worker(name)) for name in names}


def _walks(workers: dict[str, Worker], url: str, *jobs: str, key: str = "s", per: float = 1, **how: Any) -> Any:
    return {
        name: lambda worker=worker: worker.walk(url, list(jobs), **how)[key] * per for name, worker in workers.items()
    }


def one_job() -> list[Row]:
    """A job of 100,000 runs over loopback, without latency: by the clock and in CPU time, which is steadier."""
    count = 100_000
    rows = []
    with _workers() as workers, serving(count) as url:
        for key, unit in (("s", "us a run"), ("cpu", "us of CPU a run")):
            row = _row("one job, no latency", unit, _walks(workers, url, f"job-{count}", key=key, per=1e6 / count), 5)
            rows.append(row.ahead_of("vendor", "ours", least=45).held_to("ours", "floor", most=1.5))
    return rows


def small_jobs() -> list[Row]:
    """3,000 jobs of one page of ten runs: by `iter_runs_for`, and by `iter_runs` side by side."""
    jobs = ["job-10"] * 3_000
    with _workers(("ours", "gathered", "bare")) as workers, serving(10) as url:
        row = _row("3,000 small jobs", "us of CPU a job", _walks(workers, url, *jobs, key="cpu", per=1e6 / 3_000), 5)
    return [row.held_to("ours", "bare", most=1.6).held_to("gathered", "bare", most=1.6)]


def distant_job() -> list[Row]:
    """The same, 100 pages with 100 ms each."""
    with _workers() as workers, serving(100_000, latency=100) as url:
        row = _row("100 pages, 100 ms a page", "s", _walks(workers, url, "job-100000"), 2)
    return [row.ahead_of("vendor", "ours", least=18)]


def decoding() -> list[Row]:
    """A page's bytes to what each library makes of them."""
    body = page_body(run_texts(1000), 0, 1000)
    converter = plain_converter()
    structs = msgspec.json.Decoder(tfruns.RunPage)

    def clocked(decode: Callable[[], Any]) -> Callable[[], float]:
        def measure() -> float:
            gc.collect()
            begun = time.perf_counter()
            decode()
            return (time.perf_counter() - begun) * 1000

        return measure

    measures: dict[str, Callable[[], Any]] = {
        "ours": lambda: decode_page(body, job_id="job", offset=0),
        "orjson.loads": lambda: orjson.loads(body),
        "msgspec": lambda: structs.decode(body),
        "plain cattrs": lambda: [converter.structure(run, JobRun) for run in orjson.loads(body)["data"]],
        "vendor": lambda: ListJobRunResponse.parse_obj(orjson.loads(body)),
    }
    timed = {name: clocked(decode) for name, decode in measures.items()}
    return [_row("decode a page of 1,000", "us a run", timed, 50).held_to("ours", "orjson.loads", most=0.65)]


def busy_job() -> list[Row]:
    """A job of 4,000 runs, 100 a page, with a new run for every ten responses, which come out of order."""
    requests: dict[str, list[float]] = {"busy": [], "still": []}

    def walk(worker: Worker, name: str, insert: int) -> float:
        with serving(4_000, latency=50, jitter=100, insert=insert, every=10) as url:
            seconds: float = worker.walk(url, ["job-all"], 100)["s"]
            with urllib.request.urlopen(url + "/requests") as response:  # noqa: S310  # our own server
                requests[name].append(int(response.read()))
        return seconds

    with Worker("ours") as worker:
        measures = {"busy": lambda: walk(worker, "busy", 1), "still": lambda: walk(worker, "still", 0)}
        row = _row("a busy job, against the same where nothing changes", "s", measures, 5)
    counted = {name: statistics.median(each[1:]) for name, each in requests.items()}
    spread = (min(requests["busy"][1:]), max(requests["busy"][1:]))
    return [
        row.held_to("busy", "still", most=3),
        Row("the same", "requests", counted, spread).held_to("busy", "still", most=2),
    ]


def many_jobs() -> list[Row]:
    """Many jobs, 20 ms a page, 16 requests at a time: 300 of all sizes, then 1,000 small ones with a few long ones."""
    sizes = [418 + 127 * n % 2_070 for n in range(300)]
    rows = []
    with _workers(_FAST) as workers, serving(5000, latency=20) as url:
        what = f"300 jobs, {sum(sizes):,} runs, 20 ms a page"
        row = _row(what, "s", _walks(workers, url, *(f"job-{size}" for size in sizes)), 5)
        rows.append(row.held_to("ours", "bytes", most=1.25))
        sizes = [max(1, min(50, 50 * 20 // (n + 1))) * 100 - 50 for n in range(1000)]
        jobs = [f"job-{size}" for size in sorted(sizes, key=lambda size: size * 7919 % 1009)]
        what = f"1,000 jobs, {sum(-(-size // 100) for size in sizes):,} pages of 100, 20 ms a page"
        row = _row(what, "s", _walks(workers, url, *jobs, page_size=100), 2)
        rows.append(row.held_to("ours", "bytes", most=1.3))
    return rows


def compressed() -> list[Row]:
    """CPU of a walk by what the server may compress with: responses compressed beforehand, and by a real proxy."""
    count = 100_000
    names = ("zstd", "gzip", "none")
    rows = []
    with _workers(names) as workers, serving(count, compress=True) as url:
        walks = _walks(workers, url, f"job-{count}", key="cpu", per=1e6 / count)
        rows.append(_row("compressed responses", "us of CPU a run", walks, 7).held_to("zstd", "none", most=1.15))
    if proxy.is_there():
        with _workers(names) as workers, serving(count) as url, proxy.compressing(url) as proxied:
            walks = _walks(workers, proxied, f"job-{count}", key="cpu", per=1e6 / count)
            rows.append(_row("behind Caddy, on the same cores", "us of CPU a run", walks, 7))
    return rows


def memory() -> list[Row]:
    """Peak memory of a process that walks a job, by how many runs it has."""
    rows = []
    with serving(1_000_000) as url:
        for size in (50_000, 1_000_000):
            with _workers(_FAST) as workers:
                peaks = {name: worker.walk(url, [f"job-{size}"])["MiB"] for name, worker in workers.items()}
            rows.append(Row(f"peak memory, {size:,} runs", "MiB", peaks, (peaks["ours"], peaks["ours"])))
    more = rows[1].medians["ours"] - rows[0].medians["ours"]
    return [rows[0], attrs.evolve(rows[1], target=f"<= 20 MiB over 50,000 runs: {more:+.1f}", is_met=more <= 20)]


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
    help_ = _row("tfruns --help", "ms", {"ours": run("-m", "tfruns", "--help")}, 9)
    return [row.held_to("ours", "aiohttp, cattrs", most=1.1), help_.within(300)]


def longest_hold() -> list[Row]:
    """For how long the event loop was held at a time, while one job of 100 pages was walked."""
    with _workers() as workers, serving(100_000) as url:
        walks = _walks(workers, url, "job-100000", key="ms", watch=True)
        row = _row("longest hold of the event loop", "ms of CPU", walks, 5)
    return [row.within(2)]
