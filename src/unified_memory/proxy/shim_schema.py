"""What the HTTP service of extended-memory tells of its own routes."""

from typing import Any

_JSON: dict[str, Any] = {"application/json": {"schema": {}}}
_ERROR: dict[str, Any] = {"application/json": {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}}


def _route(
    method: str, summary: str, *parameters: tuple[str, str, bool, dict[str, Any]], body: bool = False
) -> dict[str, Any]:
    told: dict[str, Any] = {"summary": summary}
    responses: dict[str, Any] = {"200": {"description": "Done", "content": _JSON}}
    if parameters:
        told["parameters"] = [
            {"name": name, "in": place, "required": required, "schema": schema}
            for name, place, required, schema in parameters
        ]
    if body:
        told["requestBody"] = {
            "content": {"application/json": {"schema": {"type": "object", "title": "Data"}}},
            "required": True,
        }
    if parameters or body:
        responses["422"] = {"description": "Not acceptable", "content": _ERROR}
    return {method: {**told, "responses": responses}}


OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Extended Memory MCP Service", "version": "2.0.0"},
    "paths": {
        "/health": _route("get", "How the service is"),
        "/store": _route("post", "Store a value under a key", body=True),
        "/retrieve/{key}": _route(
            "get", "The value of a key", ("key", "path", True, {"type": "string", "title": "Key"})
        ),
        "/list": _route(
            "get",
            "Keys, the last used first",
            ("limit", "query", False, {"type": "integer", "default": 100, "title": "Limit"}),
            ("offset", "query", False, {"type": "integer", "default": 0, "title": "Offset"}),
        ),
        "/clear": _route(
            "delete",
            "Delete every key",
            ("confirm", "query", False, {"type": "boolean", "default": False, "title": "Confirm"}),
        ),
        "/stats": _route("get", "How much is kept, and what is used most"),
        "/backup": _route("post", "Make a backup"),
        "/": _route("get", "What the service is"),
    },
    "components": {
        "schemas": {
            "HTTPValidationError": {
                "properties": {
                    "detail": {
                        "items": {"$ref": "#/components/schemas/ValidationError"},
                        "type": "array",
                        "title": "Detail",
                    }
                },
                "type": "object",
                "title": "HTTPValidationError",
            },
            "ValidationError": {
                "properties": {
                    "loc": {
                        "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                        "type": "array",
                        "title": "Location",
                    },
                    "msg": {"type": "string", "title": "Message"},
                    "type": {"type": "string", "title": "Error Type"},
                },
                "type": "object",
                "required": ["loc", "msg", "type"],
                "title": "ValidationError",
            },
        }
    },
}

DOCUMENTS = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Extended memory</title><h1>Extended memory</h1><ul>"
    + "".join(
        f"<li><code>{method.upper()} {path}</code> {told['summary']}</li>"
        for path, methods in OPENAPI["paths"].items()
        for method, told in methods.items()
    )
    + '</ul><p><a href="/openapi.json">OpenAPI</a></p></html>'
).encode()
