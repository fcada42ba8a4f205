"""Whether an answer is what the OpenAPI document says: every answer that a test of REST gets is looked at here."""

import json
import math
from functools import cache
from typing import Any

import httpx2
import jsonschema_rs
from starlette.routing import compile_path

from unified_memory.rest.application import pattern_of
from unified_memory.rest.openapi import document
from unified_memory.rest.schemas import ANSWERS

Schema = dict[str, Any]


def strict(schema: Any) -> Any:
    """The schema with every object closed that does not say that it is open: no member goes unmentioned."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    told = {name: strict(part) for name, part in schema.items()}
    return {"additionalProperties": False, **told} if "properties" in told and told.get("type") == "object" else told


@cache
def _components() -> Schema:
    schemas: Schema = document()["components"]["schemas"]
    return {name: strict(schema) if name in ANSWERS else schema for name, schema in schemas.items()}


@cache
def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    """A strict validator of the named schema."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _components()}}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def parsed(text: str) -> Any:
    """JSON as the validator can take it: what is beyond its numbers becomes 0."""

    def real(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else 0.0

    return json.loads(text, parse_float=real, parse_int=lambda text: int(text) if len(text) < 19 else 0)


@cache
def _paths() -> list[tuple[Any, str, Schema]]:
    """Compiled paths: the longer a template, the more it says."""
    found = []
    for path, item in document()["paths"].items():
        pattern, _, _ = compile_path(pattern_of(path))
        found.append((pattern, path, item))
    return sorted(found, key=lambda one: ("{" in one[1], -len(one[1])))


def operation_of(method: str, path: str) -> Schema | None:
    """What the document says of a request; None: there is no such route."""
    for pattern, _, item in _paths():
        if pattern.match(path) and method.lower() in item:
            told: Schema = item[method.lower()]
            return told
    return None


def assert_conforms(method: str, path: str, answer: httpx2.Response) -> None:
    """Asserts that the answer's status, headers, media type, code and shape are documented for that route."""
    operation = operation_of(method, path)
    media_type = answer.headers.get("content-type", "")
    if operation is None:
        assert answer.status_code in {404, 405}, f"{method} {path} is not documented"
        validator("Problem").validate(answer.json())
        assert media_type == "application/problem+json"
        return
    documented = operation["responses"].get(str(answer.status_code))
    assert documented is not None, f"{method} {path}: {answer.status_code} is not documented: {answer.text[:300]}"
    for name, header in documented.get("headers", {}).items():
        assert not header.get("required") or name in answer.headers, f"{method} {path}: no {name}"
        if name in answer.headers and "pattern" in header["schema"]:
            jsonschema_rs.validate(header["schema"], answer.headers[name])
    content = documented.get("content")
    if content is None:
        assert answer.content == b""
        return
    assert media_type in content, f"{method} {path}: {media_type} is not documented"
    schema = content[media_type]["schema"]
    if "$ref" not in schema:
        return
    # Lines of JSON are a text.
    told: Any = parsed(answer.text) if media_type.endswith("json") and "ndjson" not in media_type else answer.text
    validator(schema["$ref"].rpartition("/")[2]).validate(told)
    if media_type == "application/problem+json":
        assert told["code"] in content[media_type]["examples"], f"{method} {path}: {told['code']} is not documented"
        assert told["status"] == answer.status_code
