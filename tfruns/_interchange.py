"""What other libraries look for in results: pydantic a schema, Arrow a stream of batches, a notebook a table.

The first two are made by rooms above the models, which the models can't import: these put their functions here when
they are imported, as `import tfruns` does.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tfruns._text import iso_moment, shortened

structure: Callable[[Any, Any], Any]  # by `tfruns._decode.schema`
core_schema: Callable[[Any, Any], Any]
json_schema: Callable[[Any, Any, Any], Any]
arrow_stream: Callable[[Any, object], object]  # by `tfruns._table.lists`

MOST_SHOWN = 20
"""How many runs a notebook shows."""

_SHOWN = ("name", "status", "created_at", "duration", "triggered_by", "exit_code", "error")


def html_table(runs: Sequence[Any], caption: str, job_ids: Sequence[str] = ()) -> str:
    """The first of these runs as a table for a notebook, with the ids of their jobs if there are any."""
    from html import escape  # a millisecond, which only notebooks need

    def line(tag: str, cells: Sequence[object]) -> str:
        texts = (escape("" if cell is None else shortened(str(cell), 200)) for cell in cells)
        return f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in texts)}</tr>"

    lines = [line("th", [*(["job_id"] if job_ids else []), *_SHOWN])]
    for at, run in enumerate(runs[:MOST_SHOWN]):
        values = [_created(run) if name == "created_at" else getattr(run, name) for name in _SHOWN]
        lines.append(line("td", [*job_ids[at : at + 1], *values]))
    if len(runs) > MOST_SHOWN:
        caption += f"; the first {MOST_SHOWN} are shown"
    return f"<table><caption>{escape(caption)}</caption>{''.join(lines)}</table>"


def _created(run: Any) -> object:
    try:
        return iso_moment(run.created, "seconds")
    except ValueError:  # beyond the calendar
        return run.created_at
