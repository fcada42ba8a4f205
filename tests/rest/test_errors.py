"""Every error that the document promises is provoked at every route that promises it, and has the one shape."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx2
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from tests.rest.asking import LIMITS, MAX_BODY, Rest, make_storage, make_tiered, refused, serving
from tests.rest.examples import ask_example, filled, made_for, some_backup, some_migration, tell_story
from tests.rest.failing import FailingPlace, FailingStorage, FailingTiers, failing_migration, storage_failures
from unified_memory.model.clock import SettableClock, from_rfc3339
from unified_memory.model.errors import SourceError, SourceUnavailableError
from unified_memory.rest.examples import AT, BACKUP_ID, EXAMPLES, Example
from unified_memory.rest.openapi import Cause, causes
from unified_memory.rest.routes import ROUTES, Route
from unified_memory.service.reaching import Reach
from unified_memory.service.service import Safekeeping, assemble
from unified_memory.sources.base import Options, Source

Provoke = Callable[[Rest, Route, Example], Awaitable[httpx2.Response]]
PROMISES = [(route, cause) for route in ROUTES for cause in causes(route)]
LABELS = [f"{route.method} {route.path} {cause.status} {cause.code}" for route, cause in PROMISES]
FAILURES = storage_failures()


# ---- errors that come alike everywhere
async def nothing_there(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    return await ask_example(rest, route, example)


async def broken_body(rest: Rest, route: Route, _: Example) -> httpx2.Response:
    return await rest.ask(route.method, filled(route.path), b"{")


async def too_much(rest: Rest, route: Route, _: Example) -> httpx2.Response:
    if route.body is None:
        return await rest.ask(route.method, route.path.replace("{key}", "k" * (LIMITS.key_bytes + 1)))
    return await rest.ask(route.method, filled(route.path), b" " * (MAX_BODY + 1))


async def unknown_parameter(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    return await ask_example(rest, route, replace(example, query="colour=blue"), made=await made_for(rest, route))


async def while_read_only(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    await rest.ok("PUT", "/mode", {"read_only": True})
    return await ask_example(rest, route, example)


async def wrong_etag(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    return await ask_example(
        rest, route, replace(example, query="namespace=acme/web" if example.query else ""), headers={"If-Match": '"9"'}
    )


async def only_new(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    return await ask_example(rest, route, example, headers={"If-None-Match": "*"})


async def wrong_version(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    body = {**example.body, "expected_version": 9}
    if "memories" in example.body:
        body = {"memories": [{**example.body["memories"][0], "expected_version": 9}]}
    return await ask_example(rest, route, replace(example, body=body))


async def strange_cursor(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    if route.body is None:
        return await ask_example(rest, route, replace(example, query=f"{example.query}&cursor=AAAA".lstrip("&")))
    return await ask_example(rest, route, replace(example, body={**example.body, "cursor": "AAAA"}))


async def key_used_before(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    headers = {"Idempotency-Key": "order-66"}
    await rest.ask("POST", "/store", {"key": "other", "value": 1}, headers=headers)
    return await ask_example(rest, route, example, headers=headers)


async def without_the_extra(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    return await ask_example(rest, route, replace(example, body={**example.body, "mode": "semantic"}))


async def without_a_place(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    # One tier has no archives.
    rest.service.backups = assemble(rest.service.storage, rest.clock, LIMITS).backups
    return await ask_example(rest, route, example)


async def damaged_backup(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    made = {BACKUP_ID: await some_backup(rest)}
    manifest = rest.backups / made[BACKUP_ID] / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    body = {"parent": BACKUP_ID} if route.path == "/backup" else example.body
    return await ask_example(rest, route, replace(example, body=body), made=made)


async def while_another_works(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    made = await made_for(rest, route)
    now = rest.clock.now()
    for lease in ("backup", "restore"):
        assert await rest.service.storage.lease(lease, "another", now, now + 1_000_000)
    return await ask_example(rest, route, example, made=made)


async def redacted(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    rest.clock.advance(1)
    await rest.ok("PUT", "/update/deploy/checklist?namespace=acme/web", {"value": 2})
    await rest.ok("POST", "/history/redact", {"key": "deploy/checklist", "namespace": "acme/web", "version": 1})
    if route.method == "POST":
        body = {"key": "deploy/checklist", "namespace": "acme/web", "version": 1}
        return await ask_example(rest, route, replace(example, body=body))
    asked = {"/retrieve/{key}": f"as_of={AT}", "/history/{key}": "version=1"}[route.path]
    return await ask_example(rest, route, replace(example, query=f"namespace=acme/web&{asked}"))


# ---- errors of a migration
async def of_the_folder(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    """Asked where everything is there that the route goes on from."""
    return await ask_example(rest, route, example, made=await made_for(rest, route))


async def a_source_elsewhere(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    return await ask_example(rest, route, example)


async def a_command(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    return await of_the_folder(rest, route, replace(example, body={"older": "extended-memory-mcp"}))


async def without_a_ledger(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    rest.service.migration.directory = None
    return await ask_example(rest, route, example)


async def with_a_source(rest: Rest, route: Route, example: Example, error: type[SourceError]) -> httpx2.Response:
    """Asked where the source cannot be opened any more."""

    def fails(kind: str, location: str, _: Options | None = None) -> Source:
        raise error(kind, location, "It is gone")

    made = await made_for(rest, route)
    # What is to go back there.
    await rest.store("brief.md", "Invoices go out on Mondays", "projects/billing")
    rest.service.migration.reach = Reach(fails)
    return await ask_example(rest, route, example, made=made)


async def a_source_that_is_gone(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    return await with_a_source(rest, route, example, SourceError)


async def a_source_that_is_away(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    return await with_a_source(rest, route, example, SourceUnavailableError)


async def after_the_switch(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    made = await some_migration(rest, "/migration/finish")
    return await ask_example(rest, route, example, made=made)


async def while_another_migrates(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    made = await made_for(rest, route)
    now = rest.clock.now()
    for lease in ("migration", "migration-pass", "migration-return"):
        assert await rest.service.storage.lease(lease, "another", now, now + 1_000_000)
    changes = {"/migration/switch", "/migration/rollback", "/migration/finish"}
    at_once = {"timeout": 0} if route.path in changes else example.body
    return await ask_example(rest, route, replace(example, body=at_once), made=made)


async def of_the_folder_while_read_only(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    made = await made_for(rest, route)
    await rest.ok("PUT", "/mode", {"read_only": True})
    return await ask_example(rest, route, example, made=made)


async def more_than_may_be_there(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await rest.ok("POST", "/namespaces", {"name": "projects", "config": {"max_bytes": 1}})
    return await of_the_folder(rest, route, example)


EVERYWHERE: dict[tuple[int, str], Provoke] = {
    (400, "malformed_input"): broken_body,
    (403, "read_only"): while_read_only,
    (403, "refused"): without_a_place,
    (404, "memory_not_found"): nothing_there,
    (404, "namespace_not_found"): nothing_there,
    (404, "session_not_found"): nothing_there,
    (404, "job_not_found"): nothing_there,
    (404, "backup_not_found"): nothing_there,
    (409, "backup_damaged"): damaged_backup,
    (409, "in_progress"): while_another_works,
    (409, "migration_state"): nothing_there,
    (410, "version_gone"): redacted,
    (409, "version_conflict"): wrong_version,
    (412, "version_conflict"): wrong_etag,
    (412, "already_exists"): only_new,
    (413, "too_large"): too_much,
    (422, "invalid_input"): unknown_parameter,
    (422, "invalid_cursor"): strange_cursor,
    (422, "source_error"): a_source_that_is_gone,
    (422, "idempotency_mismatch"): key_used_before,
    (503, "semantic_unavailable"): without_the_extra,
    (503, "source_unavailable"): a_source_that_is_away,
}


# ---- errors of their own
async def quota_of_bytes(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    name = "acme/ops" if route.path == "/move" else "acme"
    await rest.ok("POST", "/namespaces", {"name": name, "config": {"max_bytes": 50}})
    if route.path == "/move":
        await rest.store("big", "x" * 40, "acme/ops")
    grown = {"value": "x" * 60} if route.method == "PUT" else {"value": "x" * 60, "key": "new", "namespace": "acme/web"}
    body = (
        {"memories": [grown]} if "batch" in route.path else grown if route.method in {"PUT", "POST"} else example.body
    )
    return await ask_example(rest, route, example if route.path == "/move" else replace(example, body=body))


async def too_many_namespaces(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    for number in range(LIMITS.namespaces):
        await rest.ok("POST", "/namespaces", {"name": f"n{number}"})
    return await ask_example(rest, route, example)


async def move_onto_another(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    return await ask_example(
        rest,
        route,
        replace(
            example, body={"from": example.body["from"], "to": {"namespace": "acme/web", "key": "deploy/rollback"}}
        ),
    )


async def move_no_namespace(rest: Rest, route: Route, _: Example) -> httpx2.Response:
    return await ask_example(rest, route, EXAMPLES[route.method, route.path][1])


async def twice(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    await ask_example(rest, route, example)
    return await ask_example(rest, route, example)


async def patch_that_does_not_fit(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    return await ask_example(rest, route, replace(example, body={"increment": {"steps": 1}}))


async def not_recursive(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    return await ask_example(rest, route, replace(example, query=""))


async def nothing_to_search(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    asked = {"/search": {"query": "-push"}, "/similar": {"text": "…"}, "/recall": {"messages": ["…", "?"]}}[route.path]
    return await ask_example(rest, route, replace(example, body=asked))


async def like_nothing(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    return await ask_example(rest, route, replace(example, body={"key": "gone", "key_namespace": "acme/web"}))


async def no_such_parent(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    return await ask_example(rest, route, replace(example, body={"parent": BACKUP_ID}))


async def no_parent_yet(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    return await ask_example(rest, route, replace(example, body={"parent": "latest"}))


async def of_which_a_part_is_missing(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    full = await some_backup(rest)
    made = {BACKUP_ID: await some_backup(rest, parent=full)}
    shutil.rmtree(rest.backups / full)
    return await ask_example(rest, route, example, made=made)


async def that_another_needs(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    made = {BACKUP_ID: await some_backup(rest)}
    await some_backup(rest, parent=made[BACKUP_ID])
    return await ask_example(rest, route, example, made=made)


async def restore_while_read_only(rest: Rest, route: Route, _: Example) -> httpx2.Response:
    await tell_story(rest)
    made = await made_for(rest, route)
    await rest.ok("PUT", "/mode", {"read_only": True})
    return await ask_example(rest, route, EXAMPLES[route.method, route.path][1], made=made)


async def a_namespace_that_it_has_not(rest: Rest, route: Route, _: Example) -> httpx2.Response:
    made = await made_for(rest, route)
    return await ask_example(rest, route, EXAMPLES[route.method, route.path][1], made=made)


async def the_current_version(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    return await ask_example(rest, route, replace(example, body={**example.body, "version": 2}))


async def a_former_one_that_is_too_large(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    for value in ("x" * 60, "x"):
        await rest.store("deploy/rollback", value, "acme/web")
    await rest.ok("POST", "/namespaces", {"name": "acme", "config": {"max_bytes": 50}})
    return await ask_example(rest, route, example)


async def line_in_conflict(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await rest.store("deploy/checklist", 1, "acme/web")
    return await ask_example(rest, route, replace(example, query="on_conflict=fail"))


async def import_while_read_only(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await rest.store("deploy/checklist", 1, "acme/web")
    await rest.ok("PUT", "/mode", {"read_only": True})
    return await ask_example(rest, route, replace(example, query="on_conflict=replace"))


async def changes_of_long_ago(rest: Rest, route: Route, example: Example) -> httpx2.Response:
    await tell_story(rest)
    assert await rest.service.storage.prune_feed(rest.clock.now() + 1, 2) == 2
    return await ask_example(rest, route, example)


OWN: dict[tuple[str, str, int, str], Provoke] = {
    ("POST", "/store", 403, "quota_exceeded"): quota_of_bytes,
    ("PUT", "/update/{key}", 403, "quota_exceeded"): quota_of_bytes,
    ("PATCH", "/update/{key}", 403, "quota_exceeded"): quota_of_bytes,
    ("POST", "/move", 403, "quota_exceeded"): quota_of_bytes,
    ("POST", "/store/batch", 403, "quota_exceeded"): quota_of_bytes,
    ("POST", "/namespaces", 403, "quota_exceeded"): too_many_namespaces,
    ("PUT", "/namespaces/{name}", 403, "quota_exceeded"): too_many_namespaces,
    ("POST", "/move", 409, "already_exists"): move_onto_another,
    ("POST", "/move", 404, "namespace_not_found"): move_no_namespace,
    ("POST", "/namespaces", 409, "already_exists"): twice,
    ("PATCH", "/update/{key}", 409, "conflict"): patch_that_does_not_fit,
    ("DELETE", "/namespaces/{name}", 409, "namespace_not_empty"): not_recursive,
    ("POST", "/similar", 404, "memory_not_found"): like_nothing,
    ("POST", "/search", 422, "empty_query"): nothing_to_search,
    ("POST", "/similar", 422, "empty_query"): nothing_to_search,
    ("POST", "/recall", 422, "empty_query"): nothing_to_search,
    ("POST", "/backup", 404, "backup_not_found"): no_such_parent,
    ("POST", "/backup", 409, "conflict"): no_parent_yet,
    ("POST", "/backups/{id}/verify", 409, "conflict"): of_which_a_part_is_missing,
    ("POST", "/restore", 409, "conflict"): of_which_a_part_is_missing,
    ("DELETE", "/backups/{id}", 409, "conflict"): that_another_needs,
    ("POST", "/restore", 403, "read_only"): restore_while_read_only,
    ("POST", "/restore", 404, "namespace_not_found"): a_namespace_that_it_has_not,
    ("POST", "/history/restore", 403, "quota_exceeded"): a_former_one_that_is_too_large,
    ("POST", "/history/restore", 409, "conflict"): the_current_version,
    ("POST", "/import", 403, "read_only"): import_while_read_only,
    ("POST", "/import", 409, "conflict"): line_in_conflict,
    ("POST", "/migration/plan", 403, "refused"): a_source_elsewhere,
    ("POST", "/migration/run", 403, "refused"): a_source_elsewhere,
    ("POST", "/migration/verify", 403, "refused"): a_command,
    ("POST", "/migration/switch", 403, "refused"): without_a_ledger,
    ("POST", "/migration/rollback", 403, "refused"): without_a_ledger,
    ("POST", "/migration/finish", 403, "refused"): without_a_ledger,
    ("POST", "/migration/run", 403, "read_only"): of_the_folder_while_read_only,
    ("POST", "/migration/switch", 403, "read_only"): of_the_folder_while_read_only,
    ("POST", "/migration/run", 403, "quota_exceeded"): more_than_may_be_there,
    ("POST", "/migration/run", 409, "migration_state"): after_the_switch,
    ("POST", "/migration/run", 409, "in_progress"): while_another_migrates,
    ("POST", "/migration/switch", 409, "in_progress"): while_another_migrates,
    ("POST", "/migration/rollback", 409, "in_progress"): while_another_migrates,
    ("POST", "/migration/finish", 409, "in_progress"): while_another_migrates,
    ("GET", "/changes", 410, "changes_gone"): changes_of_long_ago,
}


@pytest.fixture(params=["sqlite", "inmemory"])
async def example_rest(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Rest]:
    """A service at the instant of the examples, in which nothing has happened."""
    clock = SettableClock(from_rfc3339(AT))
    async with serving(make_storage(request.param, directory, clock), clock) as rest:
        yield rest


@pytest.mark.parametrize(
    ("route", "cause"),
    [pytest.param(r, c, id=label) for (r, c), label in zip(PROMISES, LABELS, strict=True) if c.code not in FAILURES],
)
async def test_every_promised_error_comes_with_its_status_and_code(
    example_rest: Rest, route: Route, cause: Cause
) -> None:
    provoke = OWN.get((route.method, route.path, cause.status, cause.code)) or EVERYWHERE[cause.status, cause.code]
    answer = await provoke(example_rest, route, EXAMPLES[route.method, route.path][0])
    refused(answer, cause.status, cause.code)


@pytest.mark.parametrize(
    ("route", "cause"),
    [pytest.param(r, c, id=label) for (r, c), label in zip(PROMISES, LABELS, strict=True) if c.code in FAILURES],
)
async def test_a_failure_of_the_storage_is_never_an_empty_answer(route: Route, cause: Cause, directory: Path) -> None:
    clock = SettableClock(from_rfc3339(AT))
    storage: FailingStorage | FailingTiers = (
        make_tiered(directory, clock, kind=FailingTiers) if route.tag == "Tiers" else FailingStorage(clock)
    )
    place = FailingPlace(directory / "backups")
    kept = Safekeeping(place=place, migration=directory / "migration", points=directory / "pre-migration")
    async with serving(storage, clock, safekeeping=kept) as rest:
        await tell_story(rest)
        made = await made_for(rest, route) if route.tag in {"Backups", "Migration"} else None
        migration = failing_migration(rest.service)
        storage.failure = place.failure = migration.failure = FAILURES[cause.code]
        try:
            answer = await ask_example(rest, route, EXAMPLES[route.method, route.path][0], made=made)
        finally:
            storage.failure = place.failure = None
        told = refused(answer, cause.status, cause.code)
        if cause.code == "storage_busy":
            assert answer.headers["retry-after"] == "7"
        assert "RuntimeError" not in str(told)


def test_no_way_to_provoke_an_error_is_left_over() -> None:
    promised = {(route.method, route.path, cause.status, cause.code) for route, cause in PROMISES}
    assert set(OWN) <= promised
    assert {code for _, code in EVERYWHERE} | {code for *_, code in OWN} | set(FAILURES) == {
        c.code for _, c in PROMISES
    }


# ---- where no route is
@pytest.mark.parametrize("path", ["", "/", "/stor", "/store/", "/list/x", "/retrieve", "/backup/1"])
async def test_an_unknown_path_is_told_in_the_one_shape(one_rest: Rest, path: str) -> None:
    refused(await one_rest.ask("GET", path), 404, "no_such_route")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/store", "POST"),
        ("DELETE", "/search", "POST"),
        ("POST", "/namespaces/a/b", "DELETE, GET, HEAD, PUT"),
        ("PUT", "/namespaces", "GET, HEAD, POST"),
        ("POST", "/sessions/1", "DELETE, GET, HEAD"),
        ("GET", "/update/k", "PATCH, PUT"),
        ("PUT", "/retrieve/k", "GET, HEAD"),
        ("OPTIONS", "/mode", "GET, HEAD, PUT"),
        ("GET", "/backup", "POST"),
        ("PUT", "/backups/1/verify", "POST"),
        ("PUT", "/history/restore", "GET, HEAD, POST"),
        ("BREW", "/jobs/1/events", "DELETE, GET, HEAD"),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_told_with_those_it_takes(
    one_rest: Rest, method: str, path: str, allowed: str
) -> None:
    answer = await one_rest.ask(method, path)
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.probe], ids=lambda r: f"{r.method} {r.path}")
async def test_a_parameter_that_stands_twice_is_refused(one_rest: Rest, route: Route) -> None:
    await tell_story(one_rest)
    example = EXAMPLES[route.method, route.path][0]
    told = "namespace=a&namespace=a" if "namespace" in route.parameters else "x=1&x=1"
    answer = await ask_example(one_rest, route, replace(example, query=told), made=await made_for(one_rest, route))
    refused(answer, 422, "invalid_input", "namespace" if "namespace" in route.parameters else "x")


async def test_a_parameter_that_is_no_utf_8_is_refused(one_rest: Rest) -> None:
    refused(await one_rest.ask("GET", "/list?prefix=%FF"), 422, "invalid_input")


async def test_health_does_not_mind_what_load_balancers_add(one_rest: Rest) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        assert (await one_rest.ask("GET", f"{path}?cache=1")).status_code == 200
        assert (await one_rest.client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.body is not None], ids=lambda r: f"{r.method} {r.path}"
)
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"1", b'"a"'])
async def test_a_body_that_is_no_object_is_refused(one_rest: Rest, route: Route, body: bytes) -> None:
    answer = await one_rest.ask(route.method, filled(route.path), body)
    if route.bare and not body:
        assert answer.status_code == 200
        return
    assert (answer.status_code, answer.json()["code"]) in {(400, "malformed_input"), (422, "invalid_input")}
    assert (answer.status_code == 400) == (body == b"")


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.body is not None], ids=lambda r: f"{r.method} {r.path}"
)
async def test_an_unknown_member_is_refused_by_its_name(one_rest: Rest, route: Route) -> None:
    await tell_story(one_rest)
    example = EXAMPLES[route.method, route.path][0]
    answer = await ask_example(one_rest, route, replace(example, body={**example.body, "colour": "blue"}))
    field = "config" if route.path == "/namespaces/{name}" else "colour"
    refused(answer, 422, "invalid_input", field)


async def test_errors_inside_of_lists_name_the_item(one_rest: Rest) -> None:
    bad = {"memories": [{"value": 1}, {"value": 1, "metadata": {"importance": 11}}]}
    refused(await one_rest.ask("POST", "/store/batch", bad), 422, "invalid_input", "memories[1].metadata.importance")
    bad = {"memories": [{"value": 1}, {"value": 1, "key": 5}]}
    refused(await one_rest.ask("POST", "/store/batch", bad), 422, "invalid_input", "memories[1].key")
    for route in ("/retrieve/batch", "/delete/batch"):
        keys = {"keys": [{"key": "a"}, {"key": ""}]}
        refused(await one_rest.ask("POST", route, keys), 422, "invalid_input", "keys[1].key")
        keys = {"keys": [{"key": "a"}, {"key": "a", "namespace": "a//b"}]}
        refused(await one_rest.ask("POST", route, keys), 422, "invalid_input", "keys[1].namespace")


def test_the_example_without_a_body_is_marked_so() -> None:
    for route in ROUTES:
        assert (EXAMPLES[route.method, route.path][0].body is UNSET) == (route.body is None and not route.lines)
