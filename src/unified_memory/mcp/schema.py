"""Builders of JSON Schema (2020-12), as small as strict clients accept it: no $ref, no oneOf, every object closed."""

from typing import Any

Schema = dict[str, Any]


def obj(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """An object of these properties and no others."""
    told: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        told["required"] = list(required)
    return told


def text(description: str = "", **more: Any) -> Schema:
    """A string."""
    return _told("string", description, more)


def integer(description: str = "", **more: Any) -> Schema:
    """An integer."""
    return _told("integer", description, more)


def number(description: str = "", **more: Any) -> Schema:
    """A number."""
    return _told("number", description, more)


def boolean(description: str = "", **more: Any) -> Schema:
    """True or false."""
    return _told("boolean", description, more)


def array(items: Schema, description: str = "", **more: Any) -> Schema:
    """A list."""
    return _told("array", description, {"items": items, **more})


def anything(description: str = "") -> Schema:
    """Any JSON value."""
    return {"description": description} if description else {}


def open_object(description: str = "") -> Schema:
    """An object of any properties."""
    return _told("object", description, {"additionalProperties": True})


def _told(kind: str, description: str, more: Schema) -> Schema:
    return {"type": kind, **({"description": description} if description else {}), **more}
