"""The contract as JSON schemas, to check responses with."""

import functools
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

FILE = Path(__file__).with_name("openapi.yaml")


@functools.cache
def contract_of() -> Any:
    """The contract as it stands."""
    return yaml.load(FILE.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def _with_nulls(schema: Any) -> Any:
    """`nullable` is a word of OpenAPI 3.0 that the contract, of 3.1, uses: JSON schema has a type for it."""
    if isinstance(schema, list):
        return [_with_nulls(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: _with_nulls(value) for name, value in schema.items() if name != "nullable"}
    return {"anyOf": [inner, {"type": "null"}]} if schema.get("nullable") is True else inner


def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    schemas = {"components": {"schemas": _with_nulls(contract_of()["components"]["schemas"])}}
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/components/schemas/{name}", **schemas})


PAGE = _validator("ListJobRunResponse")
ERROR = _validator("HttpError")


def problems(status: int, body: Any) -> list[str]:
    """What a response has that the contract doesn't allow."""
    validator = PAGE if status == 200 else ERROR
    found = [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(body)]
    if status != 200 and body.get("statusCode") != status:
        found.append(f"statusCode is {body.get('statusCode')!r} in a response with status {status}")
    return found
