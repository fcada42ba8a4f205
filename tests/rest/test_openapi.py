"""The document says what the service does: every route, example, parameter and error of it is tried."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jsonschema_rs
import pytest
from msgspec import UNSET
from schemathesis.specs.openapi.definitions import OPENAPI_31

from tests.rest.asking import Rest, make_storage, refused, serving
from tests.rest.conforming import operation_of, validator
from tests.rest.examples import ask_example, made_for, tell_story
from unified_memory.model.clock import SettableClock, from_rfc3339
from unified_memory.rest.examples import ACCEPTED, AT, BACKUP_ID, EXAMPLES, SCORE, Example
from unified_memory.rest.openapi import document, document_bytes
from unified_memory.rest.routes import EVENTS, ROUTES, Route
from unified_memory.rest.schemas import PARAMETERS, PATHS

ASKED = [(route, example) for route in ROUTES for example in EXAMPLES[route.method, route.path]]
LABELS = [f"{route.method} {route.path}" for route in ROUTES]


# What only several tiers can do, or tell as the examples do.
OF_TIERS = {"/archive", "/archive/recall", "/archive/pass", "/tiers"}


@pytest.fixture(params=["tiered", "inmemory"])
async def example_rest(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Rest]:
    """A service at the instant of the examples, in which nothing has happened."""
    clock = SettableClock(from_rfc3339(AT))
    async with serving(make_storage(request.param, directory, clock), clock) as rest:
        yield rest


# ---- the document itself
def test_the_document_is_openapi_3_1() -> None:
    jsonschema_rs.validator_for(OPENAPI_31).validate(document())


def test_every_schema_is_a_json_schema_and_is_used() -> None:
    told = document_bytes().decode()
    for name, schema in document()["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        assert f'"#/components/schemas/{name}"' in told, f"{name} is not used"


def test_every_reference_leads_somewhere() -> None:
    def look(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(reference := part.get("$ref"), str):
                at: Any = document()
                for step in reference.removeprefix("#/").split("/"):
                    at = at[step]
            for one in part.values():
                look(one)
        elif isinstance(part, list):
            for one in part:
                look(one)

    look(document())


def test_every_route_is_documented_and_nothing_else() -> None:
    paths = document()["paths"]
    documented = {(method.upper(), path) for path, item in paths.items() for method in item if method != "parameters"}
    assert documented == {(route.method, route.path) for route in ROUTES} | {("GET", EVENTS[0])}


def test_every_route_has_its_line_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs/rest.md").read_text(encoding="utf-8")
    told = [(route.method, route.path) for route in ROUTES] + [("GET", EVENTS[0])]
    assert [f"{m} {p}" for m, p in told if not re.search(rf"`{m} {re.escape(p)}[`? ]", page)] == []


def test_every_operation_has_a_name_of_its_own_and_a_known_tag() -> None:
    operations = [op for item in document()["paths"].values() for name, op in item.items() if name != "parameters"]
    assert len({op["operationId"] for op in operations}) == len(operations)
    assert {tag for op in operations for tag in op["tags"]} == {tag["name"] for tag in document()["tags"]}


def test_every_link_leads_to_an_operation_that_has_its_parameters() -> None:
    operations = {
        op["operationId"]: {
            parameter["name"] for parameter in [*item.get("parameters", []), *map(resolved, op.get("parameters", []))]
        }
        for item in document()["paths"].values()
        for name, op in item.items()
        if name != "parameters"
    }
    links = [
        link
        for item in document()["paths"].values()
        for name, op in item.items()
        if name != "parameters"
        for response in op["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert links
    for link in links:
        assert set(link["parameters"]) <= operations[link["operationId"]]


def resolved(parameter: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = document()["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
    return told


async def test_the_document_is_served_as_json(one_rest: Rest) -> None:
    answer = await one_rest.client.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.content == document_bytes()


def test_starting_does_not_build_the_document() -> None:
    program = (
        "import unified_memory.app\nfrom unified_memory.rest import openapi\n"
        "assert openapi.document.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# ---- examples
@pytest.mark.parametrize(("route", "example"), ASKED, ids=[f"{r.method} {r.path} {e.summary}" for r, e in ASKED])
async def test_every_example_is_answered_as_the_document_says(
    example_rest: Rest, route: Route, example: Example
) -> None:
    if not example.fresh:
        await tell_story(example_rest)
    made = await made_for(example_rest, route)
    answer = await ask_example(example_rest, route, example, made=made)
    if route.path in OF_TIERS and example_rest.has_one_tier:
        assert answer.status_code == (200 if route.method == "GET" else 403)
        return
    assert answer.status_code == 200, answer.text
    if route.media_type != "application/json":
        assert answer.text == example.answer
        return
    told = json.loads(as_in_the_document(answer.text, made))
    if route.tag in {"Backups", "Migration"}:
        told = as_each_time(told, example.answer)
    for result in told.get("results", []) if "left_out" in told else []:
        assert 0 < result["score"] < 1.1
        result["score"] = SCORE
    assert told == example.answer


def as_in_the_document(text: str, made: dict[str, str]) -> str:
    """The answer with the ids that stand in the document."""
    for stands, is_there in made.items():
        text = text.replace(is_there, stands)
    return re.sub(r"20260102T030405Z-[0-9a-f]{8}", BACKUP_ID, text)


# What differs from one backup to another, and from one backend to another.
VARYING = ("bytes", "store", "schema", "program", "seconds", "parts", "samples", "free_bytes", "rate")


def as_each_time(told: Any, example: Any) -> Any:
    """The answer with what differs each time as it is in the example; it is of the same kind there."""
    if isinstance(told, list):
        return [as_each_time(one, other) for one, other in zip(told, example, strict=True)]
    if not isinstance(told, dict):
        return told
    for name in set(VARYING) & set(told):
        assert type(told[name]) is type(example[name])
    return {
        name: example[name] if name in VARYING else as_each_time(one, example[name]) if name in example else one
        for name, one in told.items()
    }


def test_every_route_has_an_example_and_those_with_a_body_one_for_each_kind_of_it() -> None:
    assert set(EXAMPLES) == {(route.method, route.path) for route in ROUTES}
    for route in ROUTES:
        kinds = {example.media_type for example in EXAMPLES[route.method, route.path] if example.body is not UNSET}
        wanted = {"application/json", *(["application/merge-patch+json"] if route.patch else [])}
        assert kinds == (wanted if route.body is not None else {"application/x-ndjson"} if route.lines else set())


def test_every_example_of_a_body_fits_its_schema() -> None:
    for route in ROUTES:
        for example in EXAMPLES[route.method, route.path]:
            if route.body is not None and example.media_type == "application/json":
                validator(route.body.__name__).validate(example.body)


def test_every_example_of_an_answer_fits_its_schema() -> None:
    for route in ROUTES:
        for example in EXAMPLES[route.method, route.path]:
            validator(route.answer).validate(example.answer)
    validator("JobAccepted").validate(ACCEPTED)
    for example in document()["components"]["examples"].values():
        validator("Problem").validate(example["value"])


@pytest.mark.parametrize("route", ROUTES, ids=LABELS)
async def test_the_examples_of_all_parameters_together_are_accepted(example_rest: Rest, route: Route) -> None:
    await tell_story(example_rest)
    apart = {"as_of"} if "include" in route.parameters else set()
    asked = [PARAMETERS[name] for name in route.parameters if "example" in PARAMETERS[name] and name not in apart]
    query = {p["name"]: str(p["example"][0] if isinstance(p["example"], list) else p["example"]) for p in asked}
    example = EXAMPLES[route.method, route.path][0]
    told = Example(example.summary, None, example.body, query=urlencode(query), media_type=example.media_type)
    answer = await ask_example(example_rest, route, told, made=await made_for(example_rest, route))
    refusing = route.path in OF_TIERS and route.method == "POST" and example_rest.has_one_tier
    assert answer.status_code == (403 if refusing else 200), answer.text


def test_every_parameter_is_used_and_every_example_of_one_fits_its_schema() -> None:
    assert {name for route in ROUTES for name in route.parameters} == set(PARAMETERS)
    components = {"components": {"schemas": document()["components"]["schemas"]}}
    for parameter in PARAMETERS.values():
        if "example" in parameter:
            jsonschema_rs.validate({**parameter["schema"], **components}, parameter["example"])
    for schema, _, example in PATHS.values():
        jsonschema_rs.validate({**schema, **components}, example)


# ---- requests that the schemas allow and forbid are those that the service takes and refuses
FILTERS: list[Any] = [
    {"key": "k"},
    {"key": None},
    {"key": 5},
    {"id": 5},
    {"id": 1.5},
    {"id": "5"},
    {"importance": {"gte": 5}},
    {"importance": {"gte": None}},
    {"importance": {"gte": "5"}},
    {"importance": {"contains": 5}},
    {"importance": {"between": [1, 5]}},
    {"importance": {"between": [1]}},
    {"importance": {"in": [1, None]}},
    {"importance": {"in": 1}},
    {"importance": {}},
    {"importance": {"like": 5}},
    {"metadata.importance": 5},
    {"created_at": "2026-01-01T00:00:00Z"},
    {"created_at": {"gt": "2026-01-01T00:00:00Z"}},
    {"created_at": {"gt": "yesterday"}},
    {"expires_at": None},
    {"expires_at": {"exists": True}},
    {"expires_at": {"exists": 1}},
    {"tags": {"contains": "a"}},
    {"tags": "a"},
    {"tags": {"eq": "a"}},
    {"tags": {"exists": False}},
    {"content_hash": "00" * 32},
    {"content_hash": "00"},
    {"content_hash": {"gt": "00" * 32}},
    {"value": 5},
    {"value.a": {"eq": None}},
    {"value.a": {"gt": None}},
    {"value.a[0].b": {"startswith": "x"}},
    {"value[0]": 1},
    {'value."a b"': 1},
    {"value.": 1},
    {"value..a": 1},
    {"value.a": {"in": [1, "a", None, True]}},
    {"value.a": {"in": [[]]}},
    {"value.a": [1]},
    {"metadata.author": {"ne": "ann"}},
    {"metadata.author": {"startswith": 5}},
    {"metadata.": 1},
    {"author": 1},
    {"metadata.key": 1},
    {"and": [{"id": 1}, {"key": "k"}]},
    {"and": []},
    {"and": {}},
    {"or": [{}]},
    {"not": {"id": 1}},
    {"not": []},
    {"not": {}},
    {"or": [{"id": 1}], "key": {"startswith": "k"}},
]  # fmt: skip
BODIES: list[tuple[str, str, Any]] = [
    ("POST", "/store", {}),
    ("POST", "/store", {"value": 1, "key": ""}),
    ("POST", "/store", {"value": 1, "key": "a\0b"}),
    ("POST", "/store", {"value": 1, "key": None}),
    ("POST", "/store", {"value": 1, "key": 5}),
    ("POST", "/store", {"value": None, "key": "/ ?\n%2F"}),
    ("POST", "/store", {"value": 1, "unknown": 1}),
    ("POST", "/store", {"value": 1, "ttl": 0}),
    ("POST", "/store", {"value": 1, "ttl": -1}),
    ("POST", "/store", {"value": 1, "ttl": None}),
    ("POST", "/store", {"value": 1, "ttl": 1e-3}),
    ("POST", "/store", {"value": 1, "ttl": "5"}),
    ("POST", "/store", {"value": 1, "ttl": 5, "expires_at": "2999-01-01T00:00:00Z"}),
    ("POST", "/store", {"value": 1, "expires_at": "2999-01-01T00:00:00Z"}),
    ("POST", "/store", {"value": 1, "expires_at": 5}),
    ("POST", "/store", {"value": 1, "expected_version": 0}),
    ("POST", "/store", {"value": 1, "expected_version": "0"}),
    ("POST", "/store", {"value": 1, "metadata": {"importance": 0}}),
    ("POST", "/store", {"value": 1, "metadata": {"importance": 11}}),
    ("POST", "/store", {"value": 1, "metadata": {"importance": 10}}),
    ("POST", "/store", {"value": 1, "metadata": {"importance": 2.5}}),
    ("POST", "/store", {"value": 1, "metadata": {"importance": None, "tags": None, "session_id": None}}),
    ("POST", "/store", {"value": 1, "metadata": {"tags": ["a", " "]}}),
    ("POST", "/store", {"value": 1, "metadata": {"tags": ["a", ""]}}),
    ("POST", "/store", {"value": 1, "metadata": {"tags": "a"}}),
    ("POST", "/store", {"value": 1, "metadata": {"tags": ["x" * 1025]}}),
    ("POST", "/store", {"value": 1, "metadata": {"session_id": ""}}),
    ("POST", "/store", {"value": 1, "metadata": {"session_id": "s" * 255}}),
    ("POST", "/store", {"value": 1, "metadata": {"session_id": "s" * 256}}),
    ("POST", "/store", {"value": 1, "metadata": {"project_id": "a\0"}}),
    ("POST", "/store", {"value": 1, "metadata": {"created_at": "2020-01-01T00:00:00Z"}}),
    ("POST", "/store", {"value": 1, "metadata": {"access_count": 1}}),
    ("POST", "/store", {"value": 1, "metadata": {"anything": {"goes": [1]}}}),
    ("POST", "/store", {"value": 1, "metadata": []}),
    *[
        ("POST", "/store", {"value": 1, "namespace": name})
        for name in (
            "a",
            "a/b",
            "a b",
            "ä/日本",
            ".a",
            "a.",
            "..a",
            "a..",
            "...",
            "a/.b",
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/.",
            "a/../b",
            " a",
            "a ",
            "a/ b",
            "a\tb",
            "a\nb",
            "a\0b",
            "\x7f",
            "\u2028",
            "\u00a0a",
            ". ",
            ". a",
            "/".join("a" * 16),
            "/".join("a" * 17),
            "x" * 255,
            None,
            5,
        )
    ],
    ("PUT", "/update/k", {}),
    ("PUT", "/update/k", {"value": None}),
    ("PUT", "/update/k", {"expected_version": 1}),
    ("PUT", "/update/k", {"metadata": None, "namespace": None}),
    ("PUT", "/update/k", {"metadata": {"author": None}}),
    ("PUT", "/update/k", {"metadata": {"updated_at": None}}),
    ("PUT", "/update/k", {"ttl": None}),
    ("PUT", "/update/k", {"ttl": None, "expires_at": None}),
    ("PUT", "/update/k", {"key": "other"}),
    ("PATCH", "/update/k", {}),
    ("PATCH", "/update/k", {"merge": None}),
    ("PATCH", "/update/k", {"append": None}),
    ("PATCH", "/update/k", {"append": {}}),
    ("PATCH", "/update/k", {"increment": {"n": 1.5}}),
    ("PATCH", "/update/k", {"increment": {"n": "1"}}),
    ("PATCH", "/update/k", {"increment": {"n..m": 1}}),
    ("PATCH", "/update/k", {"increment": {"n": None}}),
    ("PATCH", "/update/k", {"append": {'"a.b".c': 1}}),
    ("PATCH", "/update/k", {"append": {"a[": 1}}),
    ("PATCH", "/update/k", {"merge": {"a": 1}, "append": {"list": 1}, "increment": {"n": 1}}),
    ("POST", "/move", {"from": {"key": "k"}, "to": {"key": "l"}}),
    ("POST", "/move", {"from": {"key": "k"}, "to": {}}),
    ("POST", "/move", {"from": {}, "to": {"key": "l"}}),
    ("POST", "/move", {"from": {"namespace": "default"}, "to": {"namespace": "other", "key": None}}),
    ("POST", "/move", {"from": {"key": "k"}}),
    ("POST", "/move", {"source": {"key": "k"}, "target": {"key": "l"}}),
    ("POST", "/store/batch", {"memories": []}),
    ("POST", "/store/batch", {"memories": [{"value": 1}]}),
    ("POST", "/store/batch", {"memories": [{"key": "a"}]}),
    ("POST", "/store/batch", [{"value": 1}]),
    ("POST", "/retrieve/batch", {"keys": []}),
    ("POST", "/retrieve/batch", {"keys": [{"key": "k"}]}),
    ("POST", "/retrieve/batch", {"keys": ["k"]}),
    ("POST", "/delete/batch", {"keys": [{"key": ""}]}),
    ("POST", "/delete/batch", {"keys": [{"key": "k", "namespace": "a//b"}]}),
    ("POST", "/delete/batch", {"keys": [{"key": "k"}]}),
    ("POST", "/update/where", {"filter": {"key": "k"}}),
    ("POST", "/update/where", {"filter": {"key": "k"}, "set": {}}),
    ("POST", "/update/where", {"filter": {"key": "k"}, "set": {"add_tags": [""]}}),
    ("POST", "/update/where", {"filter": {"key": "k"}, "set": {"value": 1}}),
    ("POST", "/update/where", {"filter": {"key": "k"}, "set": {"ttl": -5}}),
    ("POST", "/delete/where", {}),
    ("POST", "/delete/where", {"filter": {}}),
    ("POST", "/delete/where", {"filter": {"key": "nothing"}, "dry_run": 1}),
    ("POST", "/delete/where", {"filter": {"key": "nothing"}, "dry_run": True}),
    *[("POST", "/query", {"filter": one}) for one in FILTERS],
    ("POST", "/query", {}),
    ("POST", "/query", {"filter": {}}),
    ("POST", "/query", {"filter": []}),
    ("POST", "/query", {"limit": 0}),
    ("POST", "/query", {"limit": 1}),
    ("POST", "/query", {"limit": 1000}),
    ("POST", "/query", {"limit": 1001}),
    ("POST", "/query", {"limit": "5"}),
    ("POST", "/query", {"order_by": "-value.a"}),
    ("POST", "/query", {"order_by": "tags"}),
    ("POST", "/query", {"order_by": "content_hash"}),
    ("POST", "/query", {"order_by": ""}),
    ("POST", "/query", {"order_by": "size"}),
    ("POST", "/query", {"select": ["key", "tags", "content_hash", "metadata.x", "value.a[1]"]}),
    ("POST", "/query", {"select": ["nothing"]}),
    ("POST", "/query", {"group_by": "tags"}),
    ("POST", "/query", {"group_by": "content_hash"}),
    ("POST", "/query", {"group_by": "value.a"}),
    ("POST", "/query", {"count": "yes"}),
    ("POST", "/search", {}),
    ("POST", "/search", {"query": ""}),
    ("POST", "/search", {"query": "  \n"}),
    ("POST", "/search", {"query": 'a "b c'}),
    ("POST", "/search", {"query": "k", "importance_min": 0}),
    ("POST", "/search", {"query": "k", "importance_min": 10}),
    ("POST", "/search", {"query": "k", "importance_min": 11}),
    ("POST", "/search", {"query": "k", "max_tokens": 0}),
    ("POST", "/search", {"query": "k", "max_tokens": 1}),
    ("POST", "/search", {"query": "k", "since": "2026-01-01T00:00:00Z", "until": "2027-01-01T00:00:00Z"}),
    ("POST", "/search", {"query": "k", "session_id": ""}),
    ("POST", "/search", {"query": "k", "tags": [""]}),
    ("POST", "/search", {"query": "k", "tags": None, "filter": None}),
    ("POST", "/search", {"query": "k", "limit": 1001}),
    ("POST", "/namespaces", {"name": "new", "config": None}),
    ("POST", "/namespaces", {"name": "a//b"}),
    ("POST", "/namespaces", {"config": {}}),
    ("POST", "/namespaces", {"name": "new", "config": {"default_ttl": 0}}),
    ("POST", "/namespaces", {"name": "new", "config": {"default_ttl": None, "max_bytes": None, "max_memories": 1}}),
    ("POST", "/namespaces", {"name": "new", "config": {"max_bytes": 0}}),
    ("POST", "/namespaces", {"name": "new", "config": {"max_bytes": 10**15}}),
    ("POST", "/namespaces", {"name": "new", "config": {"max_memories": 1.5}}),
    ("POST", "/namespaces", {"name": "new", "config": {"ttl": 5}}),
    ("PUT", "/namespaces/default", {}),
    ("PUT", "/namespaces/default", {"description": "d" * 4096}),
    ("PUT", "/namespaces/default", {"description": "d" * 4097}),
    ("PUT", "/namespaces/default", {"name": "x"}),
    ("PUT", "/namespaces/default", []),
    ("POST", "/sessions", {}),
    ("POST", "/sessions", {"id": ""}),
    ("POST", "/sessions", {"ttl": 0}),
    ("POST", "/sessions", {"ttl": 10**10}),
    ("POST", "/sessions", {"ttl": 10**11}),
    ("POST", "/sessions", {"metadata": {"a": [1]}}),
    ("POST", "/sessions", {"metadata": 5}),
    ("POST", "/sessions", {"cluster_id": "c" * 256}),
    ("POST", "/archive", {}),
    ("POST", "/archive", {"namespace": "default"}),
    ("POST", "/archive", {"namespace": "default", "dry_run": True, "recursive": False}),
    ("POST", "/archive", {"namespace": "a//b"}),
    ("POST", "/archive", {"namespace": None}),
    ("POST", "/archive", {"namespace": "default", "dry_run": 1}),
    ("POST", "/archive", {"namespace": "default", "key": "k"}),
    ("POST", "/archive/recall", {"namespace": "default"}),
    ("POST", "/archive/recall", {"namespace": "default", "recursive": None}),
    ("PUT", "/namespaces/default", {"demote_after": 0}),
    ("PUT", "/namespaces/default", {"demote_after": None}),
    ("PUT", "/namespaces/default", {"demote_after": 0.5}),
    ("PUT", "/namespaces/default", {"demote_after": "1d"}),
    ("PUT", "/mode", {"read_only": False}),
    ("PUT", "/mode", {"read_only": "no"}),
    ("PUT", "/mode", {"read_only": True, "reason": "r" * 1001}),
    ("PUT", "/mode", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), BODIES, ids=[f"{m} {p} {str(b)[:60]}" for m, p, b in BODIES])
async def test_the_service_takes_what_the_schema_allows_and_refuses_what_it_forbids(
    one_rest: Rest, method: str, path: str, body: Any
) -> None:
    await one_rest.store("k", {"list": [], "n": 0})
    operation = operation_of(method, path)
    assert operation is not None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    answer = await one_rest.ask(method, path, body)
    if validator(schema).is_valid(body):
        # There is one tier: the request is taken, its work is not.
        assert answer.status_code == (403 if path in OF_TIERS else 200), answer.text
    else:
        refused(answer, 422, "empty_query" if answer.json()["code"] == "empty_query" else "invalid_input")
