"""cattrs as it comes: what the structuring is measured against, and held equal to by a test."""

from typing import Any

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from tfruns.models import JobRun, Pagination, RunPage, Subject, wire_name


def plain_converter(*, by_wire_name: bool = True) -> cattrs.Converter:
    """A converter that knows only that a number is a number, and the names of the wire."""
    converter = cattrs.Converter()
    for number in (int | float, int | float | None):
        converter.register_structure_hook(number, lambda value, _: value)
    if not by_wire_name:
        return converter
    models: tuple[Any, ...] = (Subject, JobRun, Pagination, RunPage)
    for model in models:
        names: dict[str, Any] = {field.name: override(rename=wire_name(field.name)) for field in attrs.fields(model)}
        converter.register_structure_hook(model, make_dict_structure_fn(model, converter, **names))
    return converter
