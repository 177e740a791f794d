"""Every benchmark: `python -m benchmarks` prints one table, and writes it as JSON and its plots as PNG.

They go into `.benchmarks/`. `--quick` measures only what takes seconds, as CI does; names of functions of `rows`, such
as `one_job`, measure only those. Both make no plots.
"""

import json
import platform
import sys
from pathlib import Path

import attrs

from benchmarks import rows
from benchmarks.clients import NAMES, Worker
from benchmarks.server import serving

FOLDER = Path(".benchmarks")


def show(row: rows.Row) -> None:
    ours = next(iter(row.medians.values()))
    others = (f" ({value / ours:.2f}x)" if value != ours else "" for value in row.medians.values())
    shown = "  ".join(
        f"{name} {value:.3g}{other}" for (name, value), other in zip(row.medians.items(), others, strict=True)
    )
    verdict = "" if row.is_met is None else f"; {row.target}: {'met' if row.is_met else 'MISSED'}"
    first = next(iter(row.medians))
    print(
        f"{row.what} ({row.unit})\n    {shown}\n    {first} from {row.spread[0]:.3g} to {row.spread[1]:.3g}{verdict}",
        flush=True,
    )


def plots() -> None:
    """Runs a second against latency, and cost against size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    count = 50_000
    for name in NAMES:
        by_latency = []
        for latency in (0, 10, 30, 100):
            with Worker(name) as worker, serving(count, latency=latency) as url:
                by_latency.append((latency, count / worker.walk(url, [f"job-{count}"])["s"]))
        left.plot(*zip(*by_latency, strict=True), marker="o", label=name)
    left.set(xlabel="latency of a page, ms", ylabel="runs a second", yscale="log", title=f"{count:,} runs")
    with serving(1_000_000) as url:
        for name in NAMES:
            by_size = []
            for size in (1_000, 10_000, 100_000, 1_000_000):
                if name == "vendor" and size == 1_000_000:
                    continue  # it takes minutes
                with Worker(name) as worker:
                    worker.walk(url, ["job-1000"])
                    by_size.append((size, worker.walk(url, [f"job-{size}"])["s"] / size * 1e6))
            right.plot(*zip(*by_size, strict=True), marker="o", label=name)
    right.set(xlabel="runs", ylabel="us a run", xscale="log", yscale="log", title="no latency")
    for axes in (left, right):
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(FOLDER / "plots.png", dpi=90)


def main() -> None:
    quick = "--quick" in sys.argv
    FOLDER.mkdir(exist_ok=True)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, medians, and in how many times the time of ours; each client is a process of its own\n")
    measured: list[rows.Row] = []
    chosen = [getattr(rows, name) for name in sys.argv[1:] if not name.startswith("-")]
    sections = chosen or [rows.decoding, rows.longest_hold, rows.start_up]
    if not (quick or chosen):
        far = [rows.distant_job, rows.busy_job, rows.many_jobs]
        sections = [rows.one_job, rows.small_jobs, *sections, *far, rows.compressed, rows.memory]
    for section in sections:
        for row in section():
            show(row)
            measured.append(row)
    (FOLDER / "table.json").write_text(json.dumps([attrs.asdict(row) for row in measured], indent=1) + "\n")
    if not (quick or chosen):
        plots()
    print(f"\nwritten: {', '.join(str(path) for path in sorted(FOLDER.iterdir()))}")


if __name__ == "__main__":
    main()
